"""`semcached doctor`: what this Redis can do, what is wrong with it, and how to mend that.

Changes nothing. What the ACL keeps it from asking is a warning, not a failure.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from service import migrate
from service.api.auth import DEFAULT_TENANT, read_keys
from service.cache.digests import Keyring
from service.cache.policy import UNVERIFIED
from service.embedders.local import DIM, MODEL
from service.errors import StartupError, StoreFullError, StoreUnavailableError
from service.model import Comparison, Generation, History, Policy
from service.settings import Settings
from service.store import chosen, diagnosis
from service.store.census import Census, without_record
from service.store.client import IndexMissingError, RedisClient, RedisRefusedError, connected
from service.store.drift import IndexState, differences, read_index
from service.store.flaws import REDIS, SEARCH, Flaw, Version, first_without, flaws_of, version_of
from service.store.index import as_kept, check_search, datatype_of, load_schema
from service.store.keys import Keys
from service.store.layout import Layout, read_generation, read_layout
from service.store.live import generations_of
from service.store.policies import Kept, is_foreign, read_all
from service.store.rates import Rates
from service.store.tracking import TrackingRefusedError, trial
from service.verifiers.crossencoder import WEIGHTS, digest_of
from service.wiring import secret_of

PATIENCE_S = 5.0
MOST_DOCUMENTS = 100_000
FEWEST_ENTRIES = 50  # of a tenant, before its scopes are judged
SKEW_WARN_S, SKEW_FAIL_S = 2.0, 60.0
FULL = 0.9
LOST_RECORDS = 0.05
FOREIGN = "threshold or verifier_head was chosen for another model: it counts only where it is stricter"
FOREIGN_FIX = "look at it (`semcached calibrate`) and PUT it again"


class Level(StrEnum):
    """How bad a finding is; only `fail` makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One line, and what to do about it."""

    level: Level
    subject: str
    text: str
    fix: str = ""


class Patient(NamedTuple):
    """The Redis under examination; `given` by SEMCACHED_REDIS_URL, else our embedded one."""

    redis: RedisClient
    keys: Keys
    settings: Settings
    given: bool
    info: dict[str, str]


Check = Callable[[Patient], AsyncIterator[Finding]]


async def examine(settings: Settings, url: str) -> AsyncIterator[Finding]:
    """Findings, one after the other."""
    keys = Keys(settings.key_prefix)
    async with connected(url, PATIENCE_S, keys.meta("probe")) as redis:
        patient = Patient(redis, keys, settings, settings.redis_url is not None, {})
        try:
            patient = patient._replace(info=await diagnosis.read_info(redis))
        except diagnosis.NotAllowedError:
            pass  # each check says what it would have asked
        except StoreUnavailableError as error:
            fix = "is it running, are URL, user and password right, does a firewall stand between?"
            yield Finding(Level.FAIL, "Redis", str(error), fix)
            return
        if patient.info.get("loading", "0") != "0":
            yield Finding(Level.FAIL, "Redis", "it is loading its data", "wait until it has")
            return
        try:
            for subject, check in CHECKS.items():
                async for finding in _guarded(subject, check, patient):
                    yield finding
        except StoreUnavailableError as error:
            yield Finding(Level.FAIL, "Redis", f"in the middle of this: {error}", "run doctor again")


async def _guarded(subject: str, check: Check, patient: Patient) -> AsyncIterator[Finding]:
    try:
        async for finding in check(patient):
            yield finding
    except diagnosis.NotAllowedError:
        yield _not_allowed(subject)
    except StoreFullError as error:
        yield Finding(Level.WARN, subject, f"can't be tried: {error}", "see memory and persistence")
    except (RedisRefusedError, StartupError) as error:
        yield Finding(Level.FAIL, subject, str(error), "mend that, then run doctor again")


def _not_allowed(subject: str) -> Finding:
    fix = "run doctor with an admin's URL, or that of semcached-migrate (docs/acl.md)"
    return Finding(Level.WARN, subject, "not allowed to ask", fix)


def _info(patient: Patient) -> dict[str, str]:
    """What INFO said, where the next line needs it."""
    if not patient.info:
        raise diagnosis.NotAllowedError("INFO")
    return patient.info


async def _server(patient: Patient) -> AsyncIterator[Finding]:
    info = _info(patient)
    yield _versioned("Redis", info.get("redis_version", ""), REDIS)
    if info.get("role", "master") != "master":
        fix = "set SEMCACHED_REDIS_URL to its master"
        yield Finding(Level.FAIL, "Redis", "this is a replica: it takes no writes", fix)


async def _search(patient: Patient) -> AsyncIterator[Finding]:
    await check_search(patient.redis)
    info = _info(patient)
    found = info.get("search_version") or info.get("module_search", "")
    yield _versioned("search module", found, SEARCH)


def _versioned(subject: str, text: str, known: tuple[Flaw, ...]) -> Finding:
    version = version_of(text)
    if version is None:
        return Finding(
            Level.WARN, subject, f"its version is not known: {text!r}", "compare it with docs/acl.md"
        )
    flaws = flaws_of(version, known)
    if not flaws:
        return Finding(Level.OK, subject, f"{_dotted(version)}, no flaw known to this doctor")
    told = "; ".join(f"{flaw.name} ({flaw.what}; {flaw.source})" for flaw in flaws)
    fix = f"upgrade to {_dotted(first_without(version, known))} or later"
    return Finding(Level.WARN, subject, f"{_dotted(version)} has {told}", fix)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


async def _vector_types(patient: Patient) -> AsyncIterator[Finding]:
    found = await diagnosis.vector_types(patient.redis, patient.keys)
    if "FLOAT32" not in found or "HNSW" not in found:
        fix = "use Redis Stack 7.4 or Redis 8"
        yield Finding(Level.FAIL, "vector types", f"only {', '.join(found) or 'none'}", fix)
    else:
        yield Finding(Level.OK, "vector types", ", ".join(found))


async def _timeouts(patient: Patient) -> AsyncIterator[Finding]:
    policy = await diagnosis.timeout_policy(patient.redis, patient.info)
    if policy == "fail":
        yield Finding(Level.OK, "timeout policy", "a search that runs out of time fails")
        return
    fix = (
        "FT.CONFIG SET ON_TIMEOUT FAIL, and ON_TIMEOUT FAIL behind --loadmodule's path; "
        "on Redis 8 CONFIG SET search-on-timeout fail, and in redis.conf"
    )
    text = f"`{policy}`: a search that runs out of time looks like one that found nothing"
    yield Finding(Level.WARN, "timeout policy", text, fix)


async def _persistence(patient: Patient) -> AsyncIterator[Finding]:
    info = _info(patient)
    for field in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get(field, "ok") != "ok":
            fix = "look into Redis's log; is the disk full?"
            yield Finding(Level.FAIL, "persistence", f"{field} is {info[field]}", fix)
    if info.get("aof_enabled") == "1":
        yield await _fsync(patient)
    elif await diagnosis.read_setting(patient.redis, "save"):
        yield Finding(Level.OK, "persistence", "snapshots: a crash loses what was stored after the last")
    else:
        fix = "CONFIG SET appendonly yes, and in redis.conf"
        yield Finding(Level.WARN, "persistence", "none: a restart of Redis empties the cache", fix)


async def _fsync(patient: Patient) -> Finding:
    try:
        policy = await diagnosis.read_setting(patient.redis, "appendfsync")
    except diagnosis.NotAllowedError:
        policy = None
    if policy == "no":
        text = "append-only file, synced when the system likes: a power cut may lose half a minute"
        return Finding(Level.WARN, "persistence", text, "CONFIG SET appendfsync everysec, and in redis.conf")
    lost = {"always": ": nothing is lost", "everysec": ": a power cut loses about a second"}
    return Finding(Level.OK, "persistence", "append-only file" + lost.get(policy or "", ""))


async def _memory(patient: Patient) -> AsyncIterator[Finding]:
    info = _info(patient)
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = info.get("maxmemory_policy", "unknown")
    told = f"{used / 2**20:.0f} MiB used, limit {limit / 2**20:.0f} MiB, policy {policy}"
    if policy.startswith("allkeys"):
        text = f"{told}: may evict layout, generation and ledger, which have no end, and stop the service"
        fix = "CONFIG SET maxmemory-policy volatile-lru (or volatile-ttl), and in redis.conf"
        yield Finding(Level.WARN, "memory", text, fix)
    elif limit == 0:
        fix = "CONFIG SET maxmemory <bytes>; CONFIG SET maxmemory-policy volatile-lru; and in redis.conf"
        text = f"{used / 2**20:.0f} MiB used, no limit"
        yield Finding(Level.WARN, "memory", text, fix) if patient.given else Finding(Level.OK, "memory", text)
    elif policy == "noeviction" and used > FULL * limit:
        fix = "CONFIG SET maxmemory <more>, or maxmemory-policy volatile-lru"
        yield Finding(Level.WARN, "memory", f"{told}: when it is full, stores are answered 507", fix)
    else:
        yield Finding(Level.OK, "memory", told)


async def _clock(patient: Patient) -> AsyncIterator[Finding]:
    skew = await diagnosis.skew_s(patient.redis)
    if abs(skew) <= SKEW_WARN_S:
        yield Finding(Level.OK, "clock", "Redis's and ours agree")
        return
    level = Level.FAIL if abs(skew) > SKEW_FAIL_S else Level.WARN
    where = "ahead of" if skew > 0 else "behind"
    text = f"Redis's is {abs(skew):.1f} s {where} ours: entries end too early or too late"
    yield Finding(level, "clock", text, "run a time service (chrony, ntpd) on both machines")


async def _rights(patient: Patient) -> AsyncIterator[Finding]:
    lacking = await diagnosis.lacking(patient.redis, patient.keys)
    if lacking:
        text = f"this user may not {', '.join(lacking)}, which the service sends"
        yield Finding(Level.FAIL, "rights", text, "give it the rights of `semcached` in docs/redis.acl")
    name = await diagnosis.user(patient.redis)
    needless = await diagnosis.needless(patient.redis)
    if needless and patient.given:
        text = f"the user `{name}` may do what the service never does: {', '.join(needless)}"
        yield Finding(Level.WARN, "rights", text, "use the user `semcached` of docs/redis.acl (docs/acl.md)")
    elif not lacking:
        yield Finding(Level.OK, "rights", f"user `{name}`")


async def _tier(patient: Patient) -> AsyncIterator[Finding]:
    if not patient.settings.memory_bytes:
        yield Finding(Level.OK, "memory tier", "off: SEMCACHED_MEMORY_BYTES is 0")
        return
    try:
        await trial(patient.redis.connections)
    except TrackingRefusedError as error:
        text = f"serves nothing: Redis doesn't tell of changes (CLIENT TRACKING): {error}"
        fix = (
            "give its user the rights of `semcached` in docs/redis.acl, and connect without a proxy that "
            "lacks it; or set SEMCACHED_MEMORY_BYTES=0"
        )
        yield Finding(Level.WARN, "memory tier", text, fix)
    else:
        yield Finding(Level.OK, "memory tier", "Redis tells of changes")


async def _rate_limit(patient: Patient) -> AsyncIterator[Finding]:
    rates = Rates(patient.redis, patient.keys, PATIENCE_S)
    keys = read_keys(patient.settings.keys_path)
    if not patient.settings.rate_limit and not any(key.rate_limit for key in keys):
        yield Finding(Level.OK, "rate limit", "none is set")
    elif await rates.is_loaded():
        yield Finding(Level.OK, "rate limit", "its function is loaded")
    else:
        fix = "`semcached migrate up` with the URL of semcached-migrate or an admin"
        yield Finding(Level.FAIL, "rate limit", "not in force: its function isn't loaded", fix)


async def _layout(patient: Patient) -> AsyncIterator[Finding]:
    redis, keys = patient.redis, patient.keys
    layout, generation = await read_layout(redis, keys), await read_generation(redis, keys)
    if layout is None and generation is None:
        text = "this Redis was never set up, or was emptied"
        yield Finding(Level.WARN, "layout", text, "`semcached serve` or `semcached migrate up` does it")
        return
    if layout is None or generation is None:
        text = f"the {'layout' if layout is None else 'generation'} is gone, perhaps evicted"
        yield Finding(Level.FAIL, "layout", text, "`semcached migrate up`; see memory")
        return
    yield _secret(patient.settings, layout)
    pending = await migrate.pending(redis, keys, patient.settings.migrations_dir)
    if pending:
        names = ", ".join(step.name for step in pending)
        yield Finding(Level.WARN, "migrations", f"pending: {names}", "`semcached migrate up`")
    else:
        yield Finding(Level.OK, "migrations", "none is pending")
    told = f"{generation.number}: vectors of {generation.model} {generation.revision} ({generation.dim})"
    yield Finding(Level.OK, "generation", told)
    yield _embedder(patient.settings, await generations_of(redis, keys))


def _embedder(settings: Settings, generations: Sequence[Generation]) -> Finding:
    """Whether the settings name a model whose vectors a live index holds, by name and dimension."""
    local = settings.embedder == "local"
    model, dim = (MODEL, DIM) if local else (settings.openai_model, settings.openai_dimensions)
    found = [one.number for one in generations if one.model == model and dim in {None, one.dim}]
    if found[:1] == [generations[0].number]:
        return Finding(Level.OK, "embedder", f"{model}, as the generation's name and dimension say")
    if found:
        text = f"{model}, of generation {found[0]}, which serves until `semcached migrate up --finish`"
        fix = "replace the services by ones with the new model's settings, or `semcached migrate rollback`"
        return Finding(Level.WARN, "embedder", text, fix)
    text = (
        f"the settings name {model} ({dim or 'its own dimension'}), not the generation's: no service starts"
    )
    fix = "set SEMCACHED_EMBEDDER and its settings back, or `semcached migrate up`"
    return Finding(Level.FAIL, "embedder", text, fix)


def _secret(settings: Settings, layout: Layout) -> Finding:
    keyring = _keyring(settings)
    if keyring is None:
        text = "none is set, and SEMCACHED_DATA_DIR holds none"
        fix = "set SEMCACHED_SECRET, or SEMCACHED_DATA_DIR, to the service's"
        return Finding(Level.WARN, "secret", text, fix)
    if layout.secret_fingerprint == keyring.fingerprints[0]:
        return Finding(Level.OK, "secret", f"ours (fingerprint {layout.secret_fingerprint})")
    if layout.secret_fingerprint in keyring.fingerprints:
        fix = "start a service: it records the new one"
        return Finding(Level.WARN, "secret", "Redis was written under the previous one", fix)
    text = f"Redis was written under another (fingerprint {layout.secret_fingerprint}): no service starts"
    fix = "set SEMCACHED_SECRET to that one, or give it as SEMCACHED_PREVIOUS_SECRET"
    return Finding(Level.FAIL, "secret", text, fix)


def _keyring(settings: Settings) -> Keyring | None:
    """None where a service would make a new secret."""
    if settings.secret is None and not (settings.data_dir / "secret").exists():
        return None
    previous = settings.previous_secret
    return Keyring(secret_of(settings), None if previous is None else previous.encode())


async def _policies(patient: Patient) -> AsyncIterator[Finding]:
    """Policies that ask for what this service doesn't have."""
    layout, keyring = await read_layout(patient.redis, patient.keys), _keyring(patient.settings)
    if layout is None or keyring is None:  # has been said
        return
    found = await read_all(patient.redis, patient.keys, keyring, layout.partitions)
    readable = [one for one in found if isinstance(one, Kept) and one.policy is not None]
    if len(readable) < len(found):
        text = (
            f"{len(found) - len(readable)} of {len(found)} can't be read: the exact tier alone serves there, "
            "and no tool's results"
        )
        fix = (
            "if the secret is right, PUT /v1/policies or /v1/tools/policies again where a miss says rule "
            "`unreadable`"
        )
        yield Finding(Level.WARN, "policies", text, fix)
    version = _verifier_version(patient.settings)
    lacking = [
        _lacks(one.policy, patient.settings, version) if isinstance(one.policy, Policy) else None
        for one in readable
    ]
    generation = await read_generation(patient.redis, patient.keys)
    unmarked = chosen.decoded(await patient.redis.call("GET", chosen.name(patient.keys)))
    foreign = [generation is not None and is_foreign(one, unmarked, generation) for one in readable]
    for one, lack, is_other in zip(readable, lacking, foreign, strict=True):
        if lack is not None:
            text, fix = lack
            yield Finding(Level.WARN, "policies", f"{_of(one)}: {text}", fix)
        if is_other:
            yield Finding(Level.WARN, "policies", f"{_of(one)}: {FOREIGN}", FOREIGN_FIX)
    if len(readable) == len(found) and not any(lacking) and not any(foreign):
        yield Finding(Level.OK, "policies", f"{len(found)}, each with what it asks for")


def _of(kept: Kept) -> str:
    return f"tenant {kept.body.tenant}, agent_type {kept.body.agent_type or 'none'}"


def _lacks(policy: Policy, settings: Settings, version: str | None) -> tuple[str, str] | None:
    """What is missing for it, and how to mend that; `version` is the verifier's, None where it is off."""
    if policy.history is History.REWRITE and settings.rewriter is None:
        return "history `rewrite`, but no rewriter: conversations miss", "set SEMCACHED_REWRITER"
    if policy.comparison is Comparison.JUDGE and settings.llm("judge") is None:
        return "comparison `judge`, but no judge: nothing is compared or learned", "set SEMCACHED_JUDGE"
    if version is None:
        if policy.threshold is None or policy.threshold >= UNVERIFIED or not policy.guarded("verifier"):
            return None
        text = f"threshold {policy.threshold} counts on the verifier, which is off: {UNVERIFIED} is in force"
        return text, 'set SEMCACHED_VERIFIER=local, or switch it off there: "guards": {"verifier": false}'
    made_with = {policy.verifier_version, policy.verifier_head and policy.verifier_head.version} - {None}
    if made_with - {version}:
        fix = "`semcached calibrate` with this version's weights, then PUT what it prints"
        return "verifier_cut or verifier_head are of other weights: the shipped ones are used", fix
    return None


def _verifier_version(settings: Settings) -> str | None:
    if settings.verifier == "off":
        return None
    return digest_of((settings.verifier_weights or WEIGHTS).read_bytes())


async def _indexes(patient: Patient) -> AsyncIterator[Finding]:
    generation = await read_generation(patient.redis, patient.keys)
    dim = None if generation is None else generation.dim
    folder = patient.settings.schema_dir
    answers, tools = load_schema(folder / "responses.yaml", dim), load_schema(folder / "tools.yaml")
    if generation is not None:
        yield _vectors(generation, datatype_of(answers))
        answers = as_kept(answers, generation)
    sound = documents = 0
    names = [(name, answers) async for name, _ in _names(patient)]
    names += [(patient.keys.tool_index(one), tools) async for _, one in _names(patient)]
    for name, schema in names:
        try:
            state = await read_index(patient.redis, name)
        except IndexMissingError:
            fix = "start a service: it makes the index from the documents; find out who dropped it"
            yield Finding(Level.FAIL, "index", f"{name} is gone", fix)
            continue
        found = list(_index_state(name, schema.index.name, state, list(differences(schema, state.fields))))
        for finding in found:
            yield finding
        sound += not found
        documents += state.documents
    if sound:
        text = f"{sound} as their schemas ask for; {documents} documents in all"
        yield Finding(Level.OK, "index", text)


def _vectors(generation: Generation, asked: str) -> Finding:
    """How the index keeps them: nothing but a new generation changes that."""
    told = f"{generation.datatype}, {'with' if generation.placed else 'without'} places of scopes"
    if generation.placed and generation.datatype == asked:
        return Finding(Level.OK, "vectors", told)
    return Finding(
        Level.OK,
        "vectors",
        f"{told}, as generation {generation.number} began; a new one has {asked} with places",
    )


def _index_state(name: str, schema: str, state: IndexState, drift: list[str]) -> Iterator[Finding]:
    if drift:
        text = f"{name} is not as {schema}.yaml asks for: {'; '.join(drift)}"
        fix = f"`semcached migrate plan`; or FT.DROPINDEX {name}: a running service makes it anew"
        yield Finding(Level.WARN, "index", text, fix)
    if state.failures:
        text = f"{name}: {state.failures} documents were not indexed, the last for: {state.last_error}"
        fix = "only semcached may write under its prefix; store these entries again, or let them end"
        yield Finding(Level.WARN, "index", text, fix)
    if state.built < 1:
        text = f"{name}: {state.built:.0%} built; until then lookups in other words may miss"
        yield Finding(Level.WARN, "index", text, "wait")


async def _scopes(patient: Patient) -> AsyncIterator[Finding]:
    census = Census()
    async for name, partition in _names(patient):
        try:
            sample = await census.take(patient.redis, name, MOST_DOCUMENTS)
        except IndexMissingError:  # has been said
            continue
        except RedisRefusedError as error:
            yield Finding(
                Level.WARN, "scopes", f"not counted: {error}", "run doctor when there is less to do"
            )
            continue
        lost = await without_record(patient.redis, patient.keys, partition, sample)
        if lost > LOST_RECORDS * len(sample):
            text = f"{lost} of {len(sample)} documents have no record: it was evicted or deleted"
            fix = "give Redis more memory (see memory); such documents are misses, and end with their time"
            yield Finding(Level.WARN, "records", text, fix)
        if census.total >= MOST_DOCUMENTS:
            break
    names = _tenants(patient.settings)
    for tenant, entries in sorted(census.entries.items()):
        finding = _scoped(names.get(tenant, f"tenant {tenant[:8]}…"), entries, len(census.scopes[tenant]))
        seen = f", of the first {census.total} documents" if census.total >= MOST_DOCUMENTS else ""
        yield finding._replace(text=finding.text + seen)


def _scoped(tenant: str, entries: int, scopes: int) -> Finding:
    told = f"{tenant}: {entries} entries in {scopes} scopes"
    if entries < FEWEST_ENTRIES or scopes <= entries / 2:
        return Finding(Level.OK, "scopes", told)
    fix = (
        "does `system`, `context` or `params` hold a timestamp or an id? Every such question is a scope "
        "of its own and never hits: leave it out"
    )
    return Finding(Level.WARN, "scopes", told, fix)


def _tenants(settings: Settings) -> dict[str, str]:
    """The names behind the digests, of the tenants that have keys here."""
    keyring = _keyring(settings)
    if keyring is None:
        return {}
    known = {DEFAULT_TENANT, *(key.principal().tenant for key in read_keys(settings.keys_path))}
    return {key.tenant: tenant for tenant in known for key in keyring.of(tenant).keys}


async def _names(patient: Patient) -> AsyncIterator[tuple[str, int]]:
    """The indexes that serve, each with its partition; none before the first migration."""
    layout = await read_layout(patient.redis, patient.keys)
    generation = await read_generation(patient.redis, patient.keys)
    if layout is not None and generation is not None:
        for partition in range(layout.partitions):
            yield patient.keys.index(partition, generation), partition


CHECKS: dict[str, Check] = {
    "Redis": _server,
    "search module": _search,
    "vector types": _vector_types,
    "timeout policy": _timeouts,
    "persistence": _persistence,
    "memory": _memory,
    "clock": _clock,
    "rights": _rights,
    "memory tier": _tier,
    "rate limit": _rate_limit,
    "layout": _layout,
    "policies": _policies,
    "index": _indexes,
    "scopes": _scopes,
}
