"""A migrator in a process of its own, to be killed: what `semcached migrate` does, without its start."""

import asyncio
from pathlib import Path

from service import migrate
from service.settings import Settings
from service.store.client import connected
from service.store.keys import Keys
from service.store.layout import read_generation
from service.wiring import keyring_of


def work(settings: Settings, action: str, share: float) -> None:
    """`up` or `rollback`; ends with exit code 3 where another is at work."""
    try:
        asyncio.run(_work(settings, action, share))
    except migrate.BusyError:
        raise SystemExit(3) from None


async def _work(settings: Settings, action: str, share: float) -> None:
    keys = Keys(settings.key_prefix)
    async with connected(settings.redis_url or "", settings.redis_timeout_s, keys.meta("probe")) as redis:
        generation = await read_generation(redis, keys)
        assert generation is not None
        model = migrate.Model(*generation.embedding)
        target = migrate.Target(redis, keys, keyring_of(settings), settings, model)
        options = migrate.Options(share=share, say=lambda _: None)
        await (migrate.up if action == "up" else migrate.rollback)(target, options)


def schemas(settings: Settings, folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the schemas, with changes to that of answers."""
    folder.mkdir(exist_ok=True)
    for name in ("responses.yaml", "tools.yaml"):
        text = (settings.schema_dir / name).read_text()
        for here, there in changes if name == "responses.yaml" else ():
            assert here in text
            text = text.replace(here, there)
        (folder / name).write_text(text)
    return folder
