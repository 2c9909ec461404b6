"""Each fault is made for real on a real Redis; the doctor names it and how to mend it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from redis import Redis

from bench.processes import command, served
from service.api.auth import Role, create_key, operator
from service.doctor import Finding, Level, examine
from service.model import Stored
from service.settings import Settings
from service.store import census
from service.store.embedded import EmbeddedRedis
from service.store.index import _create_command, as_kept, load_schema
from service.store.keys import Keys
from service.store.layout import publish_generation
from service.wiring import Parts
from tests.acl import MIGRATE, as_service
from tests.helpers import accepted, keep, vector

pytestmark = pytest.mark.anyio


async def findings(settings: Settings, url: str) -> dict[str, Finding]:
    """By subject; the worst where there are several."""
    order = [Level.OK, Level.WARN, Level.FAIL]
    found: dict[str, Finding] = {}
    async for finding in examine(settings, url):
        assert bool(finding.fix) == (finding.level is not Level.OK), finding
        other = found.get(finding.subject)
        if other is None or order.index(finding.level) > order.index(other.level):
            found[finding.subject] = finding
    return found


@pytest.fixture
def url(redis_server: EmbeddedRedis) -> str:
    return as_service(redis_server.url, MIGRATE)


@contextmanager
def config(redis: Redis, name: str, value: str) -> Iterator[None]:
    before = redis.config_get(name)[name] or ""
    redis.config_set(name, value)
    try:
        yield
    finally:
        redis.config_set(name, before)


def index_of(settings: Settings) -> str:
    return f"{settings.key_prefix}:{{0}}:responses:index:1"


async def test_a_sound_redis_is_found_sound(parts: Parts, redis: Redis, url: str) -> None:
    await keep(parts, parts.keyring.of(operator("default")), prompt="p")
    with config(redis, "appendonly", "yes"), config(redis, "maxmemory", "10gb"):
        found = await findings(parts.settings, url)
    assert {name for name, finding in found.items() if finding.level is not Level.OK} <= {
        "Redis",  # the versions that the tests run on have known flaws
        "search module",
    }
    assert found["index"].text == "2 as their schemas ask for; 1 documents in all"
    assert "default: 1 entries in 1 scopes" in found["scopes"].text
    assert "FLOAT32" in found["vector types"].text
    assert found["rights"].text == f"user `{MIGRATE}`"


async def test_it_changes_nothing(parts: Parts, redis: Redis, redis_server: EmbeddedRedis) -> None:
    await keep(parts, parts.keyring.of(operator("acme")), prompt="p")
    await parts.embeddings.written()

    def state() -> object:
        keys = {key: redis.dump(key) for key in redis.scan_iter(count=1000)}
        return keys, sorted(redis.execute_command("FT._LIST")), redis.config_get("*"), redis.acl_list()

    before = state()
    for url in (redis_server.url, as_service(redis_server.url), as_service(redis_server.url, MIGRATE)):
        assert await findings(parts.settings, url)
    assert state() == before
    assert not (parts.settings.data_dir / "secret").exists()


async def test_what_the_services_user_may_not_ask_is_no_failure(
    parts: Parts, redis_server: EmbeddedRedis
) -> None:
    found = await findings(parts.settings, as_service(redis_server.url))
    unasked = {name for name, finding in found.items() if finding.text == "not allowed to ask"}
    assert unasked == {"vector types", "persistence"}
    assert "semcached-migrate" in found["vector types"].fix
    assert Level.FAIL not in [finding.level for finding in found.values()]
    assert found["timeout policy"].level is found["rights"].level is found["index"].level is Level.OK


async def test_a_user_who_may_ask_nothing(parts: Parts, redis: Redis, redis_server: EmbeddedRedis) -> None:
    url = redis_server.url.replace("://", "://mute:x@")
    redis.execute_command("ACL", "SETUSER", "mute", "on", "nopass", "-@all")
    try:
        assert "echo" in (await findings(parts.settings, url))["Redis"].text
        redis.execute_command("ACL", "SETUSER", "mute", "+echo")
        found = await findings(parts.settings, url)
    finally:
        redis.acl_deluser("mute")
    assert found["rights"].text == "not allowed to ask"
    assert found["layout"].level is Level.FAIL  # which the service reads, too


async def test_rights_too_few_and_too_many(parts: Parts, redis: Redis, redis_server: EmbeddedRedis) -> None:
    found = await findings(parts.settings, redis_server.url)
    assert found["rights"].level is Level.WARN
    for name in ("`default`", "EVAL", "CONFIG SET", "FLUSHALL", "reading other keys"):
        assert name in found["rights"].text
    assert "docs/redis.acl" in found["rights"].fix
    redis.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "~*", "+@all", "-hset", "-eval")
    try:
        found = await findings(parts.settings, redis_server.url.replace("://", "://poor:x@"))
    finally:
        redis.acl_deluser("poor")
    assert found["rights"].level is Level.FAIL
    assert "may not HSET, which" in found["rights"].text


async def test_whether_redis_tells_of_changes(
    parts: Parts, redis: Redis, redis_server: EmbeddedRedis
) -> None:
    settings = replace(parts.settings, memory_bytes=2**20)
    found = (await findings(settings, as_service(redis_server.url)))["memory tier"]
    assert (found.level, found.text) == (Level.OK, "Redis tells of changes")
    assert "SEMCACHED_MEMORY_BYTES" in (await findings(parts.settings, redis_server.url))["memory tier"].text
    redis.execute_command("ACL", "SETUSER", "older", "on", "nopass", "~*", "+@all", "-client|caching")
    try:
        found_of = await findings(settings, redis_server.url.replace("://", "://older:x@"))
    finally:
        redis.acl_deluser("older")
    assert found_of["memory tier"].level is Level.WARN
    assert "client|caching" in found_of["memory tier"].text
    assert "may not CLIENT CACHING, which" in found_of["rights"].text


async def test_a_redis_that_goes_away_in_the_middle(parts: Parts, redis: Redis, url: str) -> None:
    said = []
    redis.execute_command("ACL", "SETUSER", "brief", "on", "nopass", "~*", "+@all")
    async for finding in examine(parts.settings, url.replace(MIGRATE, "brief")):
        said.append(finding)
        redis.execute_command("ACL", "DELUSER", "brief")  # closes the connection, too
    assert said[-1].level is Level.FAIL
    assert "in the middle" in said[-1].text
    assert len(said) < 4


async def test_a_silent_timeout(parts: Parts, redis: Redis, url: str) -> None:
    redis.execute_command("FT.CONFIG", "SET", "ON_TIMEOUT", "RETURN")
    try:
        said: list[str] = []
        await parts.attach(said.append)
        finding = (await findings(parts.settings, url))["timeout policy"]
    finally:
        redis.execute_command("FT.CONFIG", "SET", "ON_TIMEOUT", "FAIL")
    assert finding.level is Level.WARN
    assert "`return`" in finding.text
    assert "FT.CONFIG SET ON_TIMEOUT FAIL" in finding.fix
    assert any("ON_TIMEOUT" in line for line in said)  # the service sees it under the ACL, too


@pytest.mark.parametrize(
    ("limit", "policy", "level", "told"),
    [
        ("0", "noeviction", Level.WARN, "no limit"),
        ("10gb", "allkeys-lru", Level.WARN, "generation"),
        ("10gb", "volatile-lru", Level.OK, "10240 MiB"),
        ("10gb", "noeviction", Level.OK, "noeviction"),
        ("1", "noeviction", Level.WARN, "507"),
    ],
)
async def test_memory(  # noqa: PLR0917 - fixtures and parameters
    parts: Parts, redis: Redis, url: str, limit: str, policy: str, level: Level, told: str
) -> None:
    with config(redis, "maxmemory-policy", policy), config(redis, "maxmemory", limit):
        found = await findings(parts.settings, url)
    finding = found["memory"]
    assert finding.level is level
    assert Level.FAIL not in [one.level for one in found.values()]
    assert ("no room" in found["vector types"].text) == (limit == "1")
    assert told in finding.text
    assert level is Level.OK or "CONFIG SET maxmemory" in finding.fix


async def test_persistence(parts: Parts, redis: Redis, url: str) -> None:
    for settings, level, told in [
        ({"appendonly": "no", "save": ""}, Level.WARN, "none"),
        ({"appendonly": "no", "save": "3600 1"}, Level.OK, "snapshots"),
        ({"appendonly": "yes", "appendfsync": "no"}, Level.WARN, "half a minute"),
        ({"appendonly": "yes", "appendfsync": "always"}, Level.OK, "nothing is lost"),
    ]:
        with config(redis, "appendonly", settings["appendonly"]):
            name, value = list(settings.items())[1]
            with config(redis, name, value):
                finding = (await findings(parts.settings, url))["persistence"]
        assert (finding.level, told in finding.text) == (level, True), finding


async def test_secrets(parts: Parts, url: str) -> None:
    other, ours = "a secret that is another's", parts.settings.secret
    found = await findings(replace(parts.settings, secret=other), url)
    assert found["secret"].level is Level.FAIL
    assert "SEMCACHED_PREVIOUS_SECRET" in found["secret"].fix
    found = await findings(replace(parts.settings, secret=other, previous_secret=ours), url)
    assert found["secret"].level is Level.WARN
    assert "previous" in found["secret"].text
    found = await findings(replace(parts.settings, secret=None), url)
    assert found["secret"].level is Level.WARN
    assert "SEMCACHED_SECRET" in found["secret"].fix


async def test_layouts(parts: Parts, redis: Redis, url: str) -> None:
    meta = f"{parts.settings.key_prefix}:{{meta}}:"
    redis.delete(meta + "migrations")
    found = await findings(parts.settings, url)
    assert "0001_responses" in found["migrations"].text
    assert "migrate up" in found["migrations"].fix
    redis.delete(meta + "responses:generation")
    assert (await findings(parts.settings, url))["layout"].level is Level.FAIL
    redis.delete(meta + "layout")
    found = await findings(parts.settings, url)
    assert found["layout"].level is Level.WARN
    assert "never set up" in found["layout"].text


async def test_policies_chosen_for_another_model(parts: Parts, url: str) -> None:
    await parts.policies.put(parts.keyring.of(operator("acme")), "support", b'{"threshold":0.6}')
    names, generation = Keys(parts.settings.key_prefix), parts.responses.generation
    assert generation is not None
    await publish_generation(parts.redis, names, msgspec.structs.replace(generation, revision="other"))
    found = (await findings(parts.settings, url))["policies"]
    assert (found.level, "tenant acme, agent_type support" in found.text) == (Level.WARN, True)
    assert "another model" in found.text


async def test_policies_that_ask_for_what_is_not_there(parts: Parts, url: str) -> None:
    keys = parts.keyring.of(operator("acme"))
    assert (await findings(parts.settings, url))["policies"].level is Level.OK
    await parts.policies.put(keys, "support", b'{"history":"rewrite"}')
    found = (await findings(parts.settings, url))["policies"]
    assert found.level is Level.WARN
    assert found.text.startswith("tenant acme, agent_type support: history `rewrite`")
    able = replace(parts.settings, rewriter="openai", rewriter_model="small")
    assert (await findings(able, url))["policies"].text == "1, each with what it asks for"

    head = b'{"verifier_head":{"version":"older weights","bias":0,"logit":1,"similarity":0}}'
    await parts.policies.put(keys, "support", head)
    found = (await findings(parts.settings, url))["policies"]
    assert found.level is Level.WARN
    assert "other weights" in found.text

    await parts.policies.put(keys, "support", b'{"threshold":0.6,"verifier_cut":0.9}')
    assert (await findings(parts.settings, url))["policies"].level is Level.OK
    found = (await findings(replace(parts.settings, verifier="off"), url))["policies"]
    assert "threshold 0.6 counts on the verifier" in found.text


async def test_a_policy_that_wants_a_judge(parts: Parts, url: str) -> None:
    await parts.policies.put(parts.keyring.of(operator("acme")), "support", b'{"comparison":"judge"}')
    found = (await findings(parts.settings, url))["policies"]
    assert (found.level, found.fix) == (Level.WARN, "set SEMCACHED_JUDGE")
    able = replace(parts.settings, judge="openai", judge_model="small")
    assert (await findings(able, url))["policies"].level is Level.OK


async def test_a_policy_that_was_altered(parts: Parts, redis: Redis, url: str) -> None:
    await parts.policies.put(parts.keyring.of(operator("acme")), "support", b'{"threshold":0.9}')
    name = f"{parts.settings.key_prefix}:{{0}}:policies"
    ((field, blob),) = redis.execute_command("HGETALL", name).items()
    redis.execute_command("HSET", name, field, blob.replace(b"0.9", b"0.1"))
    found = (await findings(parts.settings, url))["policies"]
    assert found.level is Level.WARN
    assert found.text.startswith("1 of 1 can't be read")


async def test_an_index_that_drifted(parts: Parts, redis: Redis, url: str, tmp_path: Path) -> None:
    settings = parts.settings
    assert parts.responses.generation is not None
    drifted = (settings.schema_dir / "responses.yaml").read_text()
    for here, there in [
        ("m: 20", "m: 8"),
        ('name: tag, type: tag, attrs: {case_sensitive: true, separator: ","}', "name: label, type: tag"),
        ("{name: history, type: tag, attrs: {case_sensitive: true}}", "{name: history, type: tag}"),
        ("{name: stored_at, type: numeric}", "{name: stored_at, type: numeric, attrs: {sortable: true}}"),
    ]:
        assert here in drifted
        drifted = drifted.replace(here, there)
    (tmp_path / "drifted.yaml").write_text(drifted)
    redis.execute_command("FT.DROPINDEX", index_of(settings))
    gone = (await findings(settings, url))["index"]
    assert (gone.level, gone.text) == (Level.FAIL, f"{index_of(settings)} is gone")
    documents = f"{settings.key_prefix}:{{0}}:responses:document:1:"
    redis.execute_command(
        *_create_command(
            as_kept(load_schema(tmp_path / "drifted.yaml"), parts.responses.generation),
            index_of(settings),
            documents,
        )
    )
    finding = (await findings(settings, url))["index"]
    assert finding.level is Level.WARN
    assert sorted(finding.text.split(": ", 1)[1].split("; ")) == [
        "`label` is not in the schema",
        "`tag` is missing",
        "casesensitive of `history` is not set, the schema asks for set",
        "m of `vector` is 8, the schema asks for 20",
        "sortable of `stored_at` is set, the schema asks for not set",
    ]
    assert "semcached migrate plan" in finding.fix
    redis.execute_command("FT.DROPINDEX", index_of(settings))  # as the fix says
    await parts.attach(lambda _: None)
    assert (await findings(settings, url))["index"].level is Level.OK


async def test_documents_that_were_not_indexed(parts: Parts, redis: Redis, url: str) -> None:
    redis.hset(f"{parts.settings.key_prefix}:{{0}}:responses:document:1:x", "vector", b"too short")
    finding = (await findings(parts.settings, url))["index"]
    assert finding.level is Level.WARN
    assert "1 documents were not indexed" in finding.text
    assert "vector" in finding.text.lower()


async def store(parts: Parts, tenant: str, number: int, **fields: str) -> None:
    """Entries; `{n}` in a field is its number."""
    keys = parts.keyring.of(operator(tenant))
    items = [
        accepted(
            keys,
            parts,
            prompt=f"question {n}",
            embedding=vector(n),
            **{name: text.format(n=n) for name, text in fields.items()},
        )
        for n in range(number)
    ]
    assert all(isinstance(one, Stored) for one in await parts.store.answer(items, keys))


async def test_a_timestamp_in_system(parts: Parts, url: str, tmp_path: Path) -> None:
    await store(parts, "stamped", 60, system="You help. It is 12:00:{n:02}.")
    await store(parts, "sound", 60, system="You help.")
    await store(parts, "small", 20, system="It is 12:00:{n:02}.")
    create_key(tmp_path / "keys.json", "stamped", Role.reader)
    create_key(tmp_path / "keys.json", "sound", Role.reader)
    said = [finding async for finding in examine(parts.settings, url) if finding.subject == "scopes"]
    by_tenant = {finding.text.split(":")[0]: finding for finding in said}
    assert by_tenant["stamped"].level is Level.WARN
    assert by_tenant["stamped"].text.endswith("60 entries in 60 scopes")
    assert "timestamp" in by_tenant["stamped"].fix
    assert by_tenant["sound"] == Finding(Level.OK, "scopes", "sound: 60 entries in 1 scopes")
    digest = parts.keyring.of(operator("small")).current.tenant
    assert by_tenant[f"tenant {digest[:8]}…"].text.endswith("20 entries in 20 scopes")
    assert len(said) == 3


async def test_pages_are_counted_once_and_closed(
    parts: Parts, redis: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(parts, "acme", 35)
    monkeypatch.setattr(census, "PAGE", 10)
    assert (await findings(parts.settings, url))["scopes"].text.endswith("35 entries in 1 scopes")
    monkeypatch.setattr("service.doctor.MOST_DOCUMENTS", 20)
    assert (await findings(parts.settings, url))["scopes"].text.endswith("20 documents")
    info = redis.execute_command("FT.INFO", index_of(parts.settings))
    cursors = info[info.index(b"cursor_stats") + 1]
    assert cursors[cursors.index(b"index_total") + 1] == 0


async def test_evicted_records(parts: Parts, redis: Redis, url: str) -> None:
    await store(parts, "acme", 10)
    assert "records" not in await findings(parts.settings, url)
    redis.delete(*list(redis.scan_iter(f"{parts.settings.key_prefix}:{{0}}:responses:record:*"))[:3])
    finding = (await findings(parts.settings, url))["records"]
    assert (finding.level, "3 of 10" in finding.text) == (Level.WARN, True)


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0.5, Level.OK), (10.0, Level.WARN), (-10.0, Level.WARN), (100.0, Level.FAIL)]
)
async def test_our_clock_is_wrong(
    parts: Parts, url: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float, level: Level
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() - ahead_s)
    monkeypatch.setattr("service.store.diagnosis.time", wrong)
    finding = (await findings(parts.settings, url))["clock"]
    assert finding.level is level
    if level is not Level.OK:
        assert ("ahead of" if ahead_s > 0 else "behind") in finding.text


def test_the_command(tmp_path: Path) -> None:
    with served(tmp_path):
        done = command(tmp_path, "doctor")
        assert done.returncode == 0, done.stdout
        assert "ok    index: 2 as their schemas ask for; 0 documents in all\n" in done.stdout
        assert "fail  " not in done.stdout
        assert "\n      fix: upgrade to" in done.stdout
        refused = command(tmp_path, "doctor", secret="another secret of this test")
        assert refused.returncode == 1
        assert "\nfail  secret: " in refused.stdout
    away = command(tmp_path, "doctor", redis_url="redis://127.0.0.1:1")
    assert away.returncode == 1
    assert away.stdout.startswith("fail  Redis: ")
    assert len(away.stdout.splitlines()) == 2
    assert away.stderr == ""
