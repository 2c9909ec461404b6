"""The console script `semcached`. Imports what a command needs when it needs it.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import asyncio
import dataclasses
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from service.errors import (
    EmbedderError,
    InvalidInputError,
    SemcachedError,
    SettingsError,
    StoreUnavailableError,
)
from service.logs import log_to_stderr
from service.settings import MAX_RATE, MIN_RATE, PREFIX, Settings, described, from_environment, is_rate

if TYPE_CHECKING:
    from service.embedders.local import MiniLM

Command = Callable[[argparse.Namespace, Settings], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    log_to_stderr()
    command: Command = arguments.command
    try:
        return command(arguments, _settings(arguments))
    except (SettingsError, InvalidInputError) as error:
        return _complain(error, 2)
    except (SemcachedError, OSError) as error:
        return _complain(error, 1)


def _complain(error: Exception, code: int) -> int:
    print(f"semcached: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="semcached", description="The semantic cache for AI agents.")
    parser.add_argument("--version", action="version", version=version("semcached-server"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="answer HTTP",
        epilog="settings, each an environment variable:\n" + _settings_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--host", help="SEMCACHED_HOST")
    serve.add_argument("--port", type=int, help="SEMCACHED_PORT")
    redis = serve.add_mutually_exclusive_group()
    redis.add_argument("--redis-url", metavar="URL", help="SEMCACHED_REDIS_URL")
    redis.add_argument("--embedded", action="store_true", help="a Redis in DATA_DIR, also where a URL is set")
    serve.add_argument("--workers", type=int, help="SEMCACHED_WORKERS")
    serve.set_defaults(command=_serve)

    warm = commands.add_parser("warm", help="fill the cache from a JSON Lines file")
    warm.add_argument("file", type=Path, help='{"agent_type", "prompt", "response", …} per line')
    warm.add_argument("--tenant", default="default", help="whose entries they are [default]")
    warm.add_argument("--refresh", action="store_true", help="store again what is there already")
    warm.set_defaults(command=_warm)

    migrate = commands.add_parser("migrate", help="bring the layout in Redis up to date")
    migrate.add_argument(
        "action",
        choices=["status", "plan", "up", "rollback"],
        help="what was done, what is to do, do it, undo the last",
    )
    migrate.add_argument(
        "--pace", type=_pace, default=0.5, help="share of Redis's time that copying may take [0.5]"
    )
    migrate.add_argument(
        "--texts-per-s",
        type=_texts_per_s,
        metavar="N",
        help="how many texts are embedded a second [no limit]",
    )
    migrate.add_argument(
        "--finish", action="store_true", help="don't keep another model's generation any longer"
    )
    migrate.set_defaults(command=_migrate)

    calibrate = commands.add_parser("calibrate", help="threshold and verifier cut from labelled pairs")
    calibrate.add_argument(
        "pairs",
        type=Path,
        nargs="?",
        help="TSV: text_a, text_b, label (1: one answer is right for both)",
    )
    calibrate.add_argument(
        "--replay",
        type=Path,
        metavar="POLICY",
        help="instead: what this policy (JSON) would have made of the decisions that are kept",
    )
    calibrate.add_argument("--tenant", default="default", help="of --replay: whose decisions [default]")
    calibrate.add_argument("--agent-type", help="of --replay: which")
    calibrate.add_argument(
        "--max-error", type=_share, default=0.02, help="wanted share of label 0 that is served [0.02]"
    )
    calibrate.add_argument("--refit", action="store_true", help="also fit the verifier's head to the pairs")
    calibrate.add_argument("--output", type=Path, help="write what was found as fields of a policy, JSON")
    calibrate.set_defaults(command=_calibrate)

    stats = commands.add_parser("stats", help="what was asked, answered, saved and spent")
    stats.add_argument("--tenant", default="default", help="whose figures [default]")
    stats.set_defaults(command=_stats)

    doctor = commands.add_parser("doctor", help="what this Redis can do, what is wrong, how to mend it")
    doctor.set_defaults(command=_doctor)

    keys = commands.add_parser("keys", help="API keys").add_subparsers(required=True, metavar="ACTION")
    create = keys.add_parser("create", help="print a new key, once")
    create.add_argument("--tenant", required=True, help="whose entries it reaches")
    create.add_argument("--role", required=True, choices=["reader", "writer", "admin"], help="what it may do")
    create.add_argument("--rate-limit", type=_rate, metavar="R", help="requests per second; 0: no limit")
    create.set_defaults(command=_keys_create)
    keys.add_parser("list", help="all keys, without the keys themselves").set_defaults(command=_keys_list)
    revoke = keys.add_parser("revoke", help="a running service refuses the key at once")
    revoke.add_argument("id", help="as `list` shows it")
    revoke.set_defaults(command=_keys_revoke)
    return parser


def _rate(text: str) -> float:
    rate = float(text)
    if not is_rate(rate):
        raise argparse.ArgumentTypeError(f"0, or {MIN_RATE} to {MAX_RATE}")
    return rate


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError("0 to below 1")
    return share


def _pace(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("above 0, to 1")
    return share


def _texts_per_s(text: str) -> float:
    rate = float(text)
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError("above 0")
    return rate


def _settings_table() -> str:
    return "\n".join(
        f"  {name:28} {text}{f' [{default}]' if default else ''}" for name, default, text in described()
    )


def _settings(arguments: argparse.Namespace) -> Settings:
    """The environment's, then the flags'."""
    environ = dict(os.environ)
    for flag in ("host", "port", "redis_url", "workers"):
        value = getattr(arguments, flag, None)
        if value is not None:
            environ[PREFIX + flag.upper()] = str(value)
    settings = from_environment(environ)
    if getattr(arguments, "embedded", False):
        settings = dataclasses.replace(settings, redis_url=None)
    return settings


# --- serve ---


def _serve(_: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import Keys
    from service.server import serve

    Keys(settings.keys_path, settings.admin_key).check_bind(settings.host)
    model = _local_model(settings)
    # uvicorn lets requests in flight finish, then raises the signal again: then Redis is stopped, last.
    signal.signal(signal.SIGTERM, _exit)
    redis_died = threading.Event()
    code: object = 0
    try:
        with _redis(settings, redis_died) as url:
            os.environ |= _exported(dataclasses.replace(settings, redis_url=url))
            if settings.workers > 1:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = _fresh(settings.data_dir / "metrics")
            asyncio.run(_prepared(settings, url, model))
            del model
            _say(f"Redis at {_shown(url)}")
            serve(settings)
    except KeyboardInterrupt:
        pass
    except SystemExit as ended:  # uvicorn's own codes are not ours
        code = ended.code
    return 1 if code or redis_died.is_set() else 0


def _fresh(folder: Path) -> str:
    """An empty folder, where workers add up their metrics."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return str(folder)


def _local_model(settings: Settings) -> "MiniLM | None":
    """Loaded before anything is started: onnxruntime can't be interrupted."""
    if settings.embedder != "local":
        return None
    from service.embedders.local import MiniLM

    return MiniLM(settings.embedder_threads)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise SystemExit(0)


async def _prepared(settings: Settings, url: str, model: "MiniLM | None") -> None:
    """Refuse to start what can't work, with one clear line; what is away may come later."""
    from service.wiring import Loaded, opened

    async with opened(settings, url, Loaded(model)) as parts:
        try:
            await parts.attach(_say)
        except (StoreUnavailableError, EmbedderError) as error:
            _say(f"{error}; starting all the same, and serving from it once it works")


@contextmanager
def _redis(settings: Settings, died: threading.Event) -> Iterator[str]:
    """The URL of the Redis to use: the one set, or an embedded one for the duration.

    An embedded one that ends by itself sets `died` and ends the service, for a supervisor to start both anew.
    """
    from service.store.embedded import EmbeddedRedis

    def end() -> None:
        died.set()
        _say("the embedded Redis ended by itself; see redis.log in SEMCACHED_DATA_DIR")
        os.kill(os.getpid(), signal.SIGTERM)

    if settings.redis_url is not None:
        yield settings.redis_url
        return
    with EmbeddedRedis(settings.data_dir) as redis:
        redis.watch(end)
        yield redis.url


@contextmanager
def _running_redis(settings: Settings) -> Iterator[str]:
    """As `_redis`, but a running service's embedded Redis comes first."""
    from service.store.embedded import running_url

    url = settings.redis_url or running_url(settings.data_dir)
    if url is not None:
        yield url
        return
    with _redis(settings, threading.Event()) as own:
        yield own


def _exported(settings: Settings) -> dict[str, str]:
    """The settings as the environment of worker processes."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {PREFIX + name.upper(): str(value) for name, value in values.items() if value is not None}


def _shown(url: str) -> str:
    """A URL without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _say(text: str) -> None:
    print(f"semcached: {text}", file=sys.stderr)


# --- warm, migrate, calibrate, doctor, stats ---


def _warm(arguments: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import operator
    from service.warm import Summary, warm
    from service.wiring import opened

    tenant = operator(arguments.tenant)

    async def run(url: str) -> int:
        summary = Summary()
        try:
            async with opened(settings, url) as parts:
                await parts.attach(_say)
                keys = parts.keyring.of(tenant)
                await warm(parts, keys, arguments.file, summary, refresh=arguments.refresh)
        finally:
            print(f"stored {summary.stored}, already there {summary.skipped}, refused {len(summary.refused)}")
            for refusal in sorted(summary.refused):
                print(f"line {refusal.line}: {refusal.why}")
        return 1 if summary.refused else 0

    with _running_redis(settings) as url:
        return asyncio.run(run(url))


def _migrate(arguments: argparse.Namespace, settings: Settings) -> int:
    from service import migrate
    from service.wiring import opened

    async def run(url: str) -> int:
        async with opened(settings, url) as parts:
            try:
                await parts.measure(ask=True)
            except EmbedderError:
                if arguments.action in {"up", "rollback"}:
                    raise
            options = migrate.Options(
                share=arguments.pace,
                texts_per_s=arguments.texts_per_s,
                finish=arguments.finish,
                say=_say,
            )
            if arguments.action == "up":
                await migrate.up(parts.target, options)
                await parts.attach(_say)
            elif arguments.action == "rollback":
                await migrate.rollback(parts.target, options)
            else:
                told = (
                    migrate.planned(parts.target, arguments.texts_per_s)
                    if arguments.action == "plan"
                    else migrate.told(parts.target)
                )
                print("\n".join(await told))
        return 0

    with _running_redis(settings) as url:
        return asyncio.run(run(url))


def _calibrate(arguments: argparse.Namespace, settings: Settings) -> int:
    from service import calibrate
    from service.wiring import judges

    if arguments.replay is not None:
        return _replay(arguments, settings)
    if arguments.pairs is None:
        raise SettingsError("calibrate needs a file of pairs, or --replay")
    pairs = calibrate.read(arguments.pairs)

    async def run() -> calibrate.Report:
        async with judges(settings) as (embedder, verifier):
            found = await calibrate.judged(pairs, embedder, verifier)
        version = None if verifier is None else verifier.version
        return calibrate.report(found, arguments.max_error, version, refit=arguments.refit)

    report = asyncio.run(run())
    print(report.text)
    if arguments.output:
        arguments.output.write_bytes(report.policy)
    return 0


def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    from service import replay
    from service.api.auth import operator
    from service.wiring import judges

    if arguments.agent_type is None:
        raise SettingsError("calibrate --replay needs --agent-type")
    policy = replay.read(arguments.replay)

    async def run(url: str) -> str:
        async with judges(settings) as (_, verifier):
            tenant = operator(arguments.tenant)
            found = await replay.replay(
                settings, url, tenant, arguments.agent_type, policy=policy, verifier=verifier
            )
        return replay.table(found, policy)

    with _running_redis(settings) as url:
        print(asyncio.run(run(url)))
    return 0


def _doctor(_: argparse.Namespace, settings: Settings) -> int:
    from service.doctor import Level, examine

    async def run(url: str) -> int:
        code = 0
        async for finding in examine(settings, url):
            print(f"{finding.level:4}  {finding.subject}: {finding.text}")
            if finding.fix:
                print(f"      fix: {finding.fix}")
            if finding.level is Level.FAIL:
                code = 1
        return code

    with _running_redis(settings) as url:
        return asyncio.run(run(url))


def _stats(arguments: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import operator
    from service.stats import read, table

    tenant = operator(arguments.tenant)
    with _running_redis(settings) as url:
        print(table(tenant, asyncio.run(read(settings, url, tenant))))
    return 0


def _when(seconds: float | None) -> str:
    return (
        "pending" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    )


# --- keys ---


def _keys_create(arguments: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import Role, create_key

    print(create_key(settings.keys_path, arguments.tenant, Role[arguments.role], arguments.rate_limit))
    return 0


def _keys_list(_: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import read_keys

    for key in read_keys(settings.keys_path):
        limit = "" if key.rate_limit is None else f"  {key.rate_limit:g}/s"
        print(f"{key.id}  {key.role:6}  {_when(key.created_at)}  {key.tenant}{limit}")
    return 0


def _keys_revoke(arguments: argparse.Namespace, settings: Settings) -> int:
    from service.api.auth import revoke_key

    revoke_key(settings.keys_path, arguments.id)
    return 0
