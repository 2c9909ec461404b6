"""The first layout: partitions and secret, an index over answers per partition, generation 1."""

from service.errors import LayoutError
from service.migrate import Target
from service.model import Generation
from service.store.client import RedisRefusedError
from service.store.index import create_command, load_schema, vector_dim
from service.store.layout import create_layout, publish_generation, read_generation, read_layout


async def up(target: Target) -> None:
    """Idempotent: what is there already stays."""
    redis, keys, settings = target.redis, target.keys, target.settings
    schema = load_schema(settings.schema_dir / "responses.yaml")
    if vector_dim(schema) != target.model.dim:
        raise LayoutError(
            f"responses.yaml asks for {vector_dim(schema)} dimensions, {target.model.name} makes "
            f"{target.model.dim}: set `dims` to that"
        )
    await create_layout(redis, keys, settings.partitions, target.keyring)
    layout = await read_layout(redis, keys)
    generation = Generation(
        number=1,
        index="1",
        space="1",
        model=target.model.name,
        revision=target.model.revision,
        dim=target.model.dim,
        datatype="float32",
        threshold=settings.threshold,
    )
    for partition in range(layout.partitions if layout else 0):
        prefix = keys.documents(partition, generation)
        try:
            await redis.call(*create_command(schema, keys.index(partition, generation), prefix), patience_s=5)
        except RedisRefusedError as error:
            if "unknown command" in str(error):
                raise LayoutError("this Redis has no search: use Redis Stack 7.4 or Redis 8") from None
            if "already exists" not in str(error):
                raise
    if await read_generation(redis, keys) is None:
        await publish_generation(redis, keys, generation)
