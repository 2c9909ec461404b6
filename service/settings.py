"""Every setting: one frozen Struct, made once from the environment, then passed in."""

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from service.errors import SettingsError

CHECKOUT = Path(__file__).resolve().parent.parent
PREFIX = "SEMCACHED_"
KEY_PREFIX = "sk-sc-"
"""What the keys of tenants begin with."""
SHORTEST_SECRET = 16
MAX_TTL_S = 3_153_600_000  # a hundred years
LLM_APIS = frozenset({"openai", "anthropic"})
MIN_RATE, MAX_RATE = 0.001, 100_000
"""Requests per second; a limit of 0 is none."""
_CLIENTS = frozenset({"SEMCACHED_URL", "SEMCACHED_API_KEY"})
"""What the client reads: an agent and the service may have one environment."""
# What Kubernetes puts into every pod beside a Service named `semcached`.
_KUBERNETES = re.compile(r"SEMCACHED_(SERVICE_(HOST|PORT)|PORT_\d+_)|SEMCACHED_PORT=tcp://")


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


class LLMSettings(NamedTuple):
    """An LLM that is asked by the service itself."""

    api: str
    base_url: str | None  # None: the provider's own
    api_key: str | None
    model: str
    timeout_s: float
    concurrency: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; each is the environment variable SEMCACHED_<NAME>."""

    host: str = _setting("127.0.0.1", "address to bind; without keys only loopback is allowed")
    port: int = _setting(8080, "port to bind")
    workers: int = _setting(1, "processes that answer HTTP")
    redis_url: str | None = _setting(
        None, "redis://, rediss:// or unix:// of a Redis with search; else embedded"
    )
    data_dir: Path = _setting(Path(".data"), "embedded Redis, generated secret, keys")
    key_prefix: str = _setting("sc", "first part of every Redis key")
    partitions: int = _setting(
        1, "cluster slots the tenants are spread over; fixed when the layout is created"
    )
    secret: str | None = _setting(None, "keys digests and MACs; else generated in DATA_DIR/secret")
    previous_secret: str | None = _setting(None, "still read entries written under this secret")
    keys_file: Path | None = _setting(None, "hashed API keys; else DATA_DIR/keys.json")
    admin_key: str | None = _setting(None, "a first admin key of tenant `default`")
    embedder: str = _setting(
        "local",
        "`local`: all-MiniLM-L6-v2, int8, in this process; `openai`: any server with its embeddings API",
    )
    embedder_threads: int = _setting(0, "threads of the local model; 0: one per core")
    openai_base_url: str = _setting("https://api.openai.com/v1", "address of the embeddings API")
    openai_api_key: str | None = _setting(None, "its key; local servers need none")
    openai_model: str = _setting("text-embedding-3-small", "the embedding model, as the API calls it")
    openai_dimensions: int | None = _setting(None, "asked of models that can shorten; else the model's own")
    openai_max_bytes: int = _setting(8000, "longest text, in bytes of UTF-8, that the model reads whole")
    openai_timeout_s: float = _setting(
        2.0, "longest an embedding may take, with waits and retries; batches longer"
    )
    openai_concurrency: int = _setting(16, "requests to the embeddings API at a time, per worker")
    verifier: str = _setting("local", "`local`: the shipped cross-encoder, in this process; `off`: none")
    verifier_weights: Path | None = _setting(
        None, "weights made by bench/verifier instead of the shipped ones"
    )
    rewriter: str | None = _setting(
        None,
        "an LLM for the policy `history: rewrite`: `openai` (chat completions) or `anthropic`; else none",
    )
    rewriter_base_url: str | None = _setting(None, "address of its API; else the provider's own")
    rewriter_api_key: str | None = _setting(None, "its key; local servers behind `openai` need none")
    rewriter_model: str = _setting("", "its model, as the API calls it; small and fast, and no reasoner")
    rewriter_timeout_s: float = _setting(2.0, "longest a rewriting may take, with waits and retries")
    rewriter_concurrency: int = _setting(16, "requests to the rewriter at a time, per worker")
    judge: str = _setting(
        "off",
        "an LLM for the policy `comparison: judge`: `openai` (chat completions) or `anthropic`; `off`: none",
    )
    judge_base_url: str | None = _setting(None, "address of its API; else the provider's own")
    judge_api_key: str | None = _setting(None, "its key; local servers behind `openai` need none")
    judge_model: str = _setting("", "its model, as the API calls it; answers only one word, so no reasoner")
    judge_timeout_s: float = _setting(
        10.0, "longest a verdict may take, with waits and retries; nobody waits for it"
    )
    judge_concurrency: int = _setting(4, "requests to the judge at a time, per worker")
    openai_upstream: str = _setting(
        "https://api.openai.com/v1", "where /v1/chat/completions and /v1/responses are passed on to"
    )
    openai_upstream_key: str | None = _setting(None, "its key, for clients that bring none of their own")
    anthropic_upstream: str = _setting("https://api.anthropic.com", "where /v1/messages is passed on to")
    anthropic_upstream_key: str | None = _setting(None, "its key, for clients that bring none of their own")
    upstream_timeout_s: float = _setting(600, "longest time without a byte of a provider's answer")
    schema_dir: Path = _setting(CHECKOUT / "index_schemas", "index schemas, the end state of `migrate`")
    threshold: float = _setting(
        0.65, "default threshold of a newly created generation; where no verifier reads, 0.95 at least"
    )
    redis_timeout_s: float = _setting(
        0.25, "longest a request waits for Redis in total; batches a little longer"
    )
    max_in_flight: int = _setting(1024, "requests of one key at a time, per worker; above: 429")
    max_body_bytes_in_flight: int = _setting(
        128 * 2**20, "bodies being read or answered, bytes per worker, half of it per key; above: 429"
    )
    rate_limit: float = _setting(0, "requests per second of each key; 0: no limit; a key may have its own")
    prices: Path | None = _setting(None, "list prices of models, JSON as service/prices.json; else that one")
    memory_bytes: int = _setting(
        64 * 2**20, "records of exact hits kept in the process, bytes per worker; 0: none"
    )
    embeddings_ttl_s: int = _setting(30 * 86_400, "how long embeddings are kept, seconds")
    share_embeddings: str = _setting(
        "off", "`on`: tenants share computed embeddings; by the time taken, one can tell another's texts"
    )
    metric_tenants: str = _setting("", "tenants that metrics may name, with commas between; others: `other`")

    def llm(self, name: str) -> LLMSettings | None:
        """The LLM behind `rewriter` or `judge`; None: there is none."""
        found = _llm(self, name)
        return found if found.api in LLM_APIS else None

    @property
    def migrations_dir(self) -> Path:
        """The numbered steps of the layout."""
        return CHECKOUT / "migrations"

    def label(self, tenant: str) -> str:
        """What metrics may call a tenant."""
        names = (name.strip() for name in self.metric_tenants.split(","))
        return tenant if tenant in names else "other"

    @property
    def named_tenants(self) -> frozenset[str]:
        """The tenants that metrics may name."""
        return frozenset(name.strip() for name in self.metric_tenants.split(","))

    @property
    def keys_path(self) -> Path:
        """Where the hashed keys lie."""
        return self.keys_file or self.data_dir / "keys.json"


def _llm(settings: Settings, name: str) -> LLMSettings:
    others = (getattr(settings, f"{name}_{part}") for part in LLMSettings._fields[1:])
    return LLMSettings(getattr(settings, name), *others)


def is_rate(value: float) -> bool:
    """Whether that is a rate limit."""
    return value == 0 or MIN_RATE <= value <= MAX_RATE


def _parse(name: str, kind: Any, text: str) -> Any:
    try:
        if kind in (int, int | None):
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        wanted = "float" if kind is float else "int"
        raise SettingsError(f"{name}: {text!r} is no {wanted}") from None
    if kind in (Path, Path | None):
        return Path(text)
    return text


def _provider_rules(
    name: str, url: str, key: str | None, suffixes: tuple[str, str] = ("_BASE_URL", "_API_KEY")
) -> list[tuple[str, bool, str]]:
    fits, key = re.fullmatch(r"https?://[\w.:\[\]-]+(/[!-~]*)?", url), key or ""
    return [
        (name + suffixes[0], fits is not None, "http://host/… or https://host/…, without a password"),
        (name + suffixes[1], key.isascii() and key.isprintable() and " " not in key, "ASCII without spaces"),
    ]


def _llm_rules(settings: Settings, name: str, none: str | None) -> list[tuple[str, bool, str]]:
    """Of `rewriter` and `judge`; `none` is the value without one."""
    prefix, llm = name.upper(), _llm(settings, name)
    return [
        (
            prefix,
            llm.api in {none, *LLM_APIS},
            f"`openai`, `anthropic` or {f'`{none}`' if none else 'empty'}",
        ),
        *_provider_rules(prefix, llm.base_url or "http://default", llm.api_key),
        (
            f"{prefix}_API_KEY",
            llm.api != "anthropic" or llm.api_key is not None,
            f"set, with SEMCACHED_{prefix}=anthropic",
        ),
        (f"{prefix}_MODEL", llm.api == none or llm.model != "", f"set, with SEMCACHED_{prefix}"),
        (f"{prefix}_TIMEOUT_S", 0 < llm.timeout_s <= 60, "above 0, at most 60"),  # noqa: PLR2004 - the text says it
        (f"{prefix}_CONCURRENCY", llm.concurrency >= 1, "at least 1"),
    ]


def _openai_rules(settings: Settings) -> list[tuple[str, bool, str]]:
    dimensions = settings.openai_dimensions
    return [
        *_provider_rules("OPENAI", settings.openai_base_url, settings.openai_api_key),
        ("OPENAI_DIMENSIONS", dimensions is None or dimensions >= 1, "at least 1"),
        ("OPENAI_MAX_BYTES", settings.openai_max_bytes >= 1, "at least 1"),
        ("OPENAI_TIMEOUT_S", 0 < settings.openai_timeout_s <= 60, "above 0, at most 60"),  # noqa: PLR2004 - the text says it
        ("OPENAI_CONCURRENCY", settings.openai_concurrency >= 1, "at least 1"),
    ]


def _upstream_rules(settings: Settings) -> list[tuple[str, bool, str]]:
    openai, anthropic = settings.openai_upstream, settings.anthropic_upstream
    plain = all("?" not in url and "#" not in url for url in (openai, anthropic))
    return [
        *_provider_rules("OPENAI_UPSTREAM", openai, settings.openai_upstream_key, ("", "_KEY")),
        *_provider_rules("ANTHROPIC_UPSTREAM", anthropic, settings.anthropic_upstream_key, ("", "_KEY")),
        ("OPENAI_UPSTREAM, ANTHROPIC_UPSTREAM", plain, "without a query"),
        ("UPSTREAM_TIMEOUT_S", 1 <= settings.upstream_timeout_s <= 3600, "1 to 3600"),  # noqa: PLR2004 - the text says it
    ]


def _check(settings: Settings) -> None:
    rules = [
        ("PORT", 0 <= settings.port <= 65535, "0 to 65535"),  # noqa: PLR2004 - the range of ports
        ("WORKERS", settings.workers >= 1, "at least 1"),
        ("PARTITIONS", 1 <= settings.partitions <= 1024, "1 to 1024"),  # noqa: PLR2004 - the text says it
        ("THRESHOLD", -1 <= settings.threshold <= 1, "-1 to 1"),
        ("REDIS_TIMEOUT_S", 0 < settings.redis_timeout_s <= 60, "above 0, at most 60"),  # noqa: PLR2004 - the text says it
        ("MAX_IN_FLIGHT", settings.max_in_flight >= 1, "at least 1"),
        ("MAX_BODY_BYTES_IN_FLIGHT", settings.max_body_bytes_in_flight >= 2**25, "at least 33554432"),
        ("MEMORY_BYTES", settings.memory_bytes >= 0, "0 or more"),
        ("EMBEDDINGS_TTL_S", 1 <= settings.embeddings_ttl_s <= MAX_TTL_S, f"1 to {MAX_TTL_S}"),
        ("SHARE_EMBEDDINGS", settings.share_embeddings in {"on", "off"}, "`on` or `off`"),
        ("RATE_LIMIT", is_rate(settings.rate_limit), f"0, or {MIN_RATE} to {MAX_RATE}"),
        ("EMBEDDER", settings.embedder in {"local", "openai"}, "`local` or `openai`"),
        ("VERIFIER", settings.verifier in {"local", "off"}, "`local` or `off`"),
        ("EMBEDDER_THREADS", settings.embedder_threads >= 0, "0 or more"),
        *_openai_rules(settings),
        *_llm_rules(settings, "rewriter", None),
        *_llm_rules(settings, "judge", "off"),
        *_upstream_rules(settings),
        (
            "KEY_PREFIX",
            settings.key_prefix.isascii() and settings.key_prefix.replace("-", "").isalnum(),
            "ASCII letters, digits and `-`",
        ),
    ]
    for name, holds, wanted in rules:
        if not holds:
            raise SettingsError(f"{PREFIX}{name}: must be {wanted}")
    for name in ("secret", "previous_secret"):
        value = getattr(settings, name)
        if value is not None and len(value.encode()) < SHORTEST_SECRET:
            raise SettingsError(f"{PREFIX}{name.upper()}: must have {SHORTEST_SECRET} bytes or more")


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read SEMCACHED_*. An empty variable counts as absent.

    Raises:
        SettingsError: a variable is unknown or has no fitting value.
    """
    known = {PREFIX + f.name.upper(): f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or not text or name in _CLIENTS or _KUBERNETES.match(f"{name}={text}"):
            continue
        if name not in known:
            raise SettingsError(f"{name}: no such setting; `semcached serve --help` lists them")
        values[known[name].name] = _parse(name, known[name].type, text)
    settings = Settings(**values)
    _check(settings)
    return settings


def described() -> list[tuple[str, str, str]]:
    """Name, default and meaning of each variable, for `serve --help`."""
    return [
        (PREFIX + f.name.upper(), "" if f.default in (None, MISSING) else str(f.default), f.metadata["help"])
        for f in fields(Settings)
    ]
