"""An index over tool results per partition."""

from service.errors import LayoutError
from service.migrate import Target
from service.store.index import ensure_tool_indexes, load_schema
from service.store.layout import read_layout


async def up(target: Target) -> None:
    """Idempotent: what is there already stays."""
    layout = await read_layout(target.redis, target.keys)
    if layout is None:
        raise LayoutError("the layout vanished while it was migrated")
    schema = load_schema(target.settings.schema_dir / "tools.yaml")
    await ensure_tool_indexes(target.redis, target.keys, layout.partitions, schema)
