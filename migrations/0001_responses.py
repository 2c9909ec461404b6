"""The first layout: partitions and secret, an index over answers per partition, generation 1."""

from service.errors import LayoutError
from service.migrate import Target
from service.model import Generation
from service.store.index import (
    as_found,
    check_schema,
    check_search,
    datatype_of,
    ensure_indexes,
    load_schema,
)
from service.store.layout import create_layout, publish_generation, read_generation, read_layout


async def up(target: Target) -> None:
    """Idempotent: what is there already stays."""
    redis, keys, settings = target.redis, target.keys, target.settings
    if target.model.dim is None:
        raise LayoutError("the embedder's dimension is not known: set SEMCACHED_OPENAI_DIMENSIONS")
    schema = load_schema(settings.schema_dir / "responses.yaml", target.model.dim)
    first = Generation(
        number=1,
        index="1",
        space="1",
        model=target.model.name,
        revision=target.model.revision,
        dim=target.model.dim,
        datatype=datatype_of(schema),
        threshold=settings.threshold,
        placed=True,
    )
    check_schema(schema, first)  # before anything is written
    await check_search(redis)
    await create_layout(redis, keys, settings.partitions, target.keyring)
    layout = await read_layout(redis, keys)
    if layout is None:
        raise LayoutError("the layout vanished while it was written")
    first, _ = await as_found(redis, keys, first, layout.partitions)  # where only its record was lost
    await ensure_indexes(redis, keys, first, layout.partitions, schema)
    if await read_generation(redis, keys) is None:
        await publish_generation(redis, keys, first)
