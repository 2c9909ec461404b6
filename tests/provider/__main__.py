"""The stub provider, in a process of its own."""

import argparse
import asyncio
import importlib
import sys

from tests.provider.server import Provider, running


async def _serve(provider: Provider) -> None:
    async with running(provider):
        sys.stdout.write(f"{provider.root}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Prints its root URL once it listens."""
    parser = argparse.ArgumentParser(prog="python -m tests.provider", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--first-ms", type=float, default=0, help="before the first token")
    parser.add_argument("--token-ms", type=float, default=0, help="per token of an answer")
    parser.add_argument("--mode", help="module:function from a request to a Script")
    told = parser.parse_args()
    provider = Provider(port=told.port, first_s=told.first_ms / 1e3, token_s=told.token_ms / 1e3)
    if told.mode:
        module, _, name = told.mode.partition(":")
        provider.mode = getattr(importlib.import_module(module), name)
    asyncio.run(_serve(provider))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
