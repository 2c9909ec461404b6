"""The tier `memory` over a real Redis: what it serves, and that nothing stale outlives its 100 ms."""

import asyncio
import itertools
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import msgspec
import pytest
from redis import Redis

from bench.proxy import Proxy
from service.api.auth import operator
from service.cache.digests import TenantKeys
from service.cache.faceted import accepted as faceted_accepted
from service.cache.invalidation import Where
from service.cache.memory import LONGEST_S
from service.cache.ports import Work
from service.model import (
    Hit,
    LookupRequest,
    Miss,
    Origin,
    Policy,
    Reason,
    Refused,
    Stored,
    StoreRequest,
    Tier,
)
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.wiring import Loaded, Parts, opened
from tests.acl import acl_options, as_service
from tests.helpers import accepted, asked, keep, look, vector

pytestmark = pytest.mark.anyio

BYTES = 2**24
Q = {"prompt": "how?", "embedding": vector(1)}


@asynccontextmanager
async def service(settings: Settings, models: Loaded, url: str | None = None) -> AsyncIterator[Parts]:
    settings = replace(settings, memory_bytes=BYTES, redis_url=url or settings.redis_url)
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


@pytest.fixture
async def near(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with service(settings, models) as parts:
        yield parts


@pytest.fixture
async def far(near: Parts, models: Loaded) -> AsyncIterator[Parts]:
    """Another process, as far as Redis can tell."""
    async with service(near.settings, models) as parts:
        yield parts


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that the test may hurt."""
    (tmp_path / "redis").mkdir()
    with EmbeddedRedis(tmp_path / "redis", port=0, options=acl_options(tmp_path / "redis")) as server:
        yield server


@pytest.fixture
async def apart(own: EmbeddedRedis, models: Loaded, tmp_path: Path) -> AsyncIterator[Parts]:
    """A service over that."""
    settings = Settings(data_dir=tmp_path, secret="a secret of the tests, 1", redis_timeout_s=0.25)
    async with service(settings, models, as_service(own.url)) as parts:
        yield parts


@pytest.fixture
def keys(near: Parts) -> TenantKeys:
    return near.keyring.of(operator("acme"))


async def recalled(parts: Parts, keys: TenantKeys, **fields: object) -> Hit:
    """Ask until it comes from memory."""
    with anyio.fail_after(20):
        while True:
            answer = await look(parts, keys, **(Q | fields))
            if isinstance(answer, Hit) and answer.tier is Origin.MEMORY:
                return answer
            await anyio.sleep(0.01)


async def over() -> None:
    """What was known before is too old to be served now."""
    until = time.monotonic() + LONGEST_S + 0.01
    while time.monotonic() < until:
        await anyio.sleep(0.01)


def keys_of(parts: Parts, entry_id: str) -> list[str]:
    generation = parts.responses.generation
    assert generation is not None
    keys = parts.target.keys
    return [keys.record(0, entry_id), keys.document(0, generation, entry_id)]


async def invalidated(parts: Parts, keys: TenantKeys, **where: object) -> int:
    predicates = await parts.invalidator.predicates([msgspec.convert(where, Where)])
    return (await parts.invalidator.run(keys, predicates)).deleted.total()


async def test_the_third_hit_comes_from_memory_and_is_the_same(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q, response='{"a": [1, "\u00e9"]}', metadata={"m": 1}, sources=["s"])
    first = await look(near, keys, **Q)
    assert isinstance(first, Hit)
    assert first.tier is Origin.EXACT
    hit = await recalled(near, keys, explain=True)
    own = ("lookup_id", "tier", "latency_ms", "age_s", "expires_in_s", "decision")
    one, other = (
        {name: getattr(answer, name) for name in answer.__struct_fields__ if name not in own}
        for answer in (first, hit)
    )
    assert one == other
    assert not isinstance(hit.decision, msgspec.UnsetType)
    assert hit.decision.stages_ms.keys() == {"memory"}
    assert hit.decision.tiers == [Tier.EXACT, Tier.SEMANTIC]
    assert (near.memory.entries, near.memory.bytes > len(first.response)) == (1, True)


async def test_it_is_found_without_waiting(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q)
    await recalled(near, keys)
    question = asked(keys, near, **Q)
    assert near.lookup.recalled(question, keys)
    other = asked(keys, near, prompt="who?", embedding=vector(2))
    assert not near.lookup.recalled(other, keys)
    for fields in ({"tiers": ["semantic"]}, {"model": "m"}, {"agent_type": "b"}, {"temperature": 1.0}):
        assert not near.lookup.recalled(asked(keys, near, **(Q | fields)), keys)


async def test_a_batch_takes_from_memory_what_is_there(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q, response='"here"')
    await keep(near, keys, prompt="who?", embedding=vector(2), response='"there"')
    await recalled(near, keys)
    questions = [
        asked(keys, near, prompt="who?", embedding=vector(2)),
        asked(keys, near, **Q),
        asked(keys, near, prompt="why?", embedding=vector(3), tiers=["exact"]),
    ]
    answers = await near.lookup.answer(questions, keys)
    told = [(one.tier, bytes(one.response)) if isinstance(one, Hit) else one.reason for one in answers]
    assert told == [(Origin.EXACT, b'"there"'), (Origin.MEMORY, b'"here"'), Reason.EMPTY]


async def test_who_would_wait_needs_not(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q)
    await recalled(near, keys)
    request = msgspec.convert({"agent_type": "a", **Q}, LookupRequest)
    _, answer = await near.lookup.answer_waiting(request, keys, 5, Work(), leads=True)
    assert isinstance(answer, Hit)
    assert answer.tier is Origin.MEMORY


async def test_it_is_counted(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q, usage={"cost_usd": 0.5})
    await recalled(near, keys)
    near.accounting.drain()
    question = asked(keys, near, **Q)
    work = Work()
    answers = await near.lookup.answer([question], keys, work)
    near.accounting.looked_up(keys, [question], answers, work)
    cell = near.accounting.drain()[keys.tenant, "a"]
    assert cell["responses", "hit", "memory"] == 1
    assert cell["nano_usd", "saved"] == 500_000_000


async def test_its_use_is_noted(near: Parts, keys: TenantKeys, redis: Redis) -> None:
    await near.policies.put(keys, "a", msgspec.json.encode(Policy(max_entries=10)))
    stored = await keep(near, keys, **Q)
    await recalled(near, keys)
    await anyio.sleep(1)  # what the first hits noted is written
    (name,) = redis.keys(f"{near.settings.key_prefix}:*:used:*")
    before = redis.zscore(name, stored.entry_id)
    await recalled(near, keys)
    with anyio.fail_after(10):
        while redis.zscore(name, stored.entry_id) == before:
            await anyio.sleep(0.05)


Doing = Callable[[Parts, TenantKeys, Redis, str], Awaitable[object]]


async def deleted(far: Parts, keys: TenantKeys, _: Redis, entry_id: str) -> object:
    return await invalidated(far, keys, entry_id=entry_id)


async def by_tag(far: Parts, keys: TenantKeys, *_: object) -> object:
    return await invalidated(far, keys, tag="t")


async def cleared(far: Parts, keys: TenantKeys, *_: object) -> object:
    return await far.invalidator.run(keys, [far.invalidator.everything()])


async def replaced(far: Parts, keys: TenantKeys, *_: object) -> object:
    return await keep(far, keys, **Q, response='"new"')


async def replaced_after_a_lookup(far: Parts, keys: TenantKeys, *_: object) -> object:
    (answer,) = await far.lookup.answer([asked(keys, far, **Q)], keys)
    return await keep(far, keys, **Q, response='"new"', lookup_id=answer.lookup_id)


async def record_evicted(far: Parts, _: TenantKeys, redis: Redis, entry_id: str) -> object:
    return redis.unlink(keys_of(far, entry_id)[0])


async def document_evicted(far: Parts, _: TenantKeys, redis: Redis, entry_id: str) -> object:
    return redis.unlink(keys_of(far, entry_id)[1])


async def document_expired(far: Parts, _: TenantKeys, redis: Redis, entry_id: str) -> object:
    return redis.pexpire(keys_of(far, entry_id)[1], 1)


async def altered(far: Parts, _: TenantKeys, redis: Redis, entry_id: str) -> object:
    return redis.setrange(keys_of(far, entry_id)[0], 60, b"x")


CHANGES = [deleted, by_tag, cleared, replaced, replaced_after_a_lookup]
CHANGES += [record_evicted, document_evicted, document_expired, altered]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_another_process_changes_is_not_served_after_its_time(
    near: Parts, far: Parts, keys: TenantKeys, redis: Redis, change: Doing
) -> None:
    await keep(near, keys, **Q, response='"old"', tags=["t"])
    hit = await recalled(near, keys)
    assert await change(far, keys, redis, hit.entry_id)
    await over()
    answers = [await look(near, keys, **Q, tiers=["exact"]) for _ in range(5)]
    told = {bytes(one.response) if isinstance(one, Hit) else one.reason.value for one in answers}
    assert told == {b'"new"' if "replaced" in change.__name__ else "empty"}


async def test_a_change_is_told_and_doesnt_wait_for_the_bound(
    near: Parts, keys: TenantKeys, redis: Redis
) -> None:
    """Else the entry would lie here still, and the beat go on confirming it."""
    await keep(near, keys, **Q)
    hit = await recalled(near, keys)
    redis.unlink(keys_of(near, hit.entry_id)[1])
    with anyio.fail_after(10):
        while near.memory.entries:
            await anyio.sleep(0.01)


async def test_expiry_needs_nobody_to_tell(near: Parts, keys: TenantKeys, redis: Redis) -> None:
    redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        await keep(near, keys, **Q, ttl_s=1)
        hit = await recalled(near, keys)
        assert hit.expires_in_s is not None
        await anyio.sleep(hit.expires_in_s + 0.01)
        assert not near.lookup.recalled(asked(keys, near, **Q), keys)
        assert isinstance(await look(near, keys, **Q), Miss)
    finally:
        redis.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


async def test_who_stores_or_deletes_sees_it_at_once(near: Parts, keys: TenantKeys) -> None:
    """200 at a time, each over an entry of its own that lies in memory, or is just being read."""
    stale: list[object] = []
    from_memory = 0

    async def pair(n: int) -> None:
        nonlocal from_memory
        fields = {"prompt": f"question {n}", "embedding": vector(n), "tiers": ["exact"]}
        stored = {name: one for name, one in fields.items() if name != "tiers"}
        for turn in range(5):
            await keep(near, keys, **stored, response=str(turn))
            for _ in range(3):
                answer = await look(near, keys, **fields)
                from_memory += isinstance(answer, Hit) and answer.tier is Origin.MEMORY
                if not isinstance(answer, Hit) or bytes(answer.response) != b"%d" % turn:
                    stale.append(answer)
        name = near.lookup.name(msgspec.convert({"agent_type": "a", **stored}, LookupRequest), keys)
        await invalidated(near, keys, entry_id=name)
        answer = await look(near, keys, **fields)
        if isinstance(answer, Hit):
            stale.append(answer)

    with anyio.fail_after(120):
        async with anyio.create_task_group() as group:
            for n in range(200):
                group.start_soon(pair, n)
    assert stale == []
    assert from_memory > 0


async def test_what_is_being_read_while_it_is_deleted_doesnt_come_back(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q)
    await recalled(near, keys)  # connected now
    name = near.lookup.name(msgspec.convert({"agent_type": "a", **Q}, LookupRequest), keys)
    for turn in range(100):
        await keep(near, keys, **Q, response=str(turn))
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: look(near, keys, **Q))  # is read to be kept
            group.start_soon(lambda: keep(near, keys, **Q, response='"later"'))
        answer = await look(near, keys, **Q)
        assert isinstance(answer, Hit)
        assert bytes(answer.response) == b'"later"'
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: look(near, keys, **Q))
            group.start_soon(lambda: invalidated(near, keys, entry_id=name))
        assert isinstance(await look(near, keys, **Q, tiers=["exact"]), Miss)


async def test_tenants_share_nothing(near: Parts, keys: TenantKeys) -> None:
    other = near.keyring.of(operator("other"))
    await keep(near, keys, **Q, response='"acme"')
    await recalled(near, keys)
    assert isinstance(await look(near, other, **Q), Miss)
    await keep(near, other, **Q, response='"other"')
    assert bytes((await recalled(near, other)).response) == b'"other"'
    assert bytes((await recalled(near, keys)).response) == b'"acme"'


async def test_a_policy_is_in_force_at_once(near: Parts, keys: TenantKeys) -> None:
    await keep(near, keys, **Q)
    await recalled(near, keys)
    for policy in (
        Policy(tiers=(Tier.SEMANTIC,)),
        Policy(bypass=["creative", "personal", "time_sensitive"], max_temperature=0.5, max_age_s=1),
    ):
        await near.policies.put(keys, "a", msgspec.json.encode(policy))
        if policy.max_age_s is not None:
            await anyio.sleep(1.01)
        assert not near.lookup.recalled(asked(keys, near, **Q), keys)
    await near.policies.put(keys, "a", b"{}")
    await recalled(near, keys)


async def test_a_store_after_a_recalled_hit_is_held_against_invalidations(
    near: Parts, keys: TenantKeys
) -> None:
    await keep(near, keys, **Q, sources=["s"])
    hit = await recalled(near, keys)
    await invalidated(near, keys, source="s")
    one = accepted(keys, near, **Q, sources=["s"], lookup_id=hit.lookup_id)
    (refused,) = await near.store.answer([one], keys)
    assert isinstance(refused, Refused)
    assert refused.reason == "invalidated"


async def test_what_lies_under_the_previous_secret_is_redis_to_serve(near: Parts, models: Loaded) -> None:
    keys = near.keyring.of(operator("acme"))
    await keep(near, keys, **Q)
    rotated = replace(
        near.settings, secret="another secret of the tests", previous_secret="a secret of the tests, 1"
    )
    async with service(rotated, models) as later:
        keys = later.keyring.of(operator("acme"))
        for _ in range(5):
            hit = await look(later, keys, **Q)
            assert isinstance(hit, Hit)
            assert hit.tier is Origin.EXACT
            await anyio.sleep(0.02)
        await keep(later, keys, **Q, response='"new"')
        assert bytes((await recalled(later, keys)).response) == b'"new"'


async def test_langcache_searches_take_from_it_what_is_enough(near: Parts, keys: TenantKeys) -> None:
    """One answer, of the exact tier first: the entry that has these attributes and no others."""
    request = msgspec.json.decode(
        b'{"agent_type": "a", "prompt": "how?", "response": "\\"r\\""}', type=StoreRequest
    )
    one = faceted_accepted(near.store, request, keys, {"plan": "pro"})
    assert not isinstance(one, Refused)
    await near.store.answer([one], keys)

    async def found(most: int, **attributes: str) -> tuple[Origin | None, list[Tier]]:
        asked_for = LookupRequest(agent_type="a", prompt="how?")
        question = near.faceted.faceted(asked_for, keys, attributes, most)
        (answer,) = await near.faceted.answer([question], keys)
        return answer.tier if isinstance(answer, Hit) else None, [tier for tier, _, _ in question.results]

    with anyio.fail_after(20):
        while await found(1, plan="pro") != (Origin.MEMORY, [Tier.EXACT]):
            await anyio.sleep(0.01)
    assert await found(1, plan="pro") == (Origin.MEMORY, [Tier.EXACT])
    assert await found(2, plan="pro") == (Origin.EXACT, [Tier.EXACT])
    assert await found(1) == (Origin.EXACT, [Tier.EXACT])  # by the index, not by its id
    assert await found(1, plan="free") == (None, [])


async def test_off_nothing_is_kept(parts: Parts) -> None:
    keys = parts.keyring.of(operator("acme"))
    await keep(parts, keys, **Q)
    for _ in range(5):
        hit = await look(parts, keys, **Q)
        assert isinstance(hit, Hit)
        assert hit.tier is Origin.EXACT
    assert (parts.memory.coherence, parts.memory.entries) == (None, 0)


async def test_without_the_right_to_it_there_is_one_line_and_no_memory(
    near: Parts,
    models: Loaded,
    redis: Redis,
    redis_server: EmbeddedRedis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis.execute_command("ACL", "SETUSER", "older", "on", "nopass", "~*", "+@all", "-client|tracking")
    try:
        with caplog.at_level(logging.WARNING):
            url = redis_server.url.replace("://", "://older:x@")
            async with service(near.settings, models, url) as parts:
                keys = parts.keyring.of(operator("acme"))
                await keep(parts, keys, **Q)
                for _ in range(10):
                    hit = await look(parts, keys, **Q)
                    assert isinstance(hit, Hit)
                    assert hit.tier is Origin.EXACT
                    await anyio.sleep(0.02)
    finally:
        redis.acl_deluser("older")
    lines = [line for line in caplog.messages if "memory" in line]
    assert len(lines) == 1
    assert "client|tracking" in lines[0]


def trackers(redis: Redis) -> list[str]:
    return [one["id"] for one in redis.client_list() if "t" in one["flags"]]


async def test_a_connection_that_is_lost_takes_all_with_it(apart: Parts, own: EmbeddedRedis) -> None:
    keys = apart.keyring.of(operator("acme"))
    await keep(apart, keys, **Q)
    await recalled(apart, keys)
    with Redis.from_url(own.url) as admin:
        (tracker,) = trackers(admin)
        admin.client_kill_filter(_id=tracker)
        with anyio.fail_after(10):
            while apart.memory.entries:
                await anyio.lowlevel.checkpoint()
        await recalled(apart, keys)
        assert trackers(admin) not in ([], [tracker])


async def test_nothing_is_left_of_an_emptied_redis(apart: Parts, own: EmbeddedRedis) -> None:
    keys = apart.keyring.of(operator("acme"))
    await keep(apart, keys, **Q)
    await recalled(apart, keys)
    with Redis.from_url(own.url) as admin:
        admin.flushall()
    await over()
    assert not apart.lookup.recalled(asked(keys, apart, **Q), keys)
    assert apart.memory.entries == 0


async def test_a_redis_that_hangs_confirms_nothing(apart: Parts, own: EmbeddedRedis) -> None:
    keys = apart.keyring.of(operator("acme"))
    await keep(apart, keys, **Q)
    await recalled(apart, keys)
    assert own.pid is not None
    os.kill(own.pid, signal.SIGSTOP)
    try:
        await over()
        for _ in range(10):
            answer = await look(apart, keys, **Q)
            assert isinstance(answer, Miss)
            assert answer.reason is Reason.DEGRADED
    finally:
        os.kill(own.pid, signal.SIGCONT)
    await recalled(apart, keys)


async def test_an_idle_process_sends_nothing_and_goes_on_where_it_was(
    apart: Parts, own: EmbeddedRedis
) -> None:
    keys = apart.keyring.of(operator("acme"))
    await keep(apart, keys, **Q)
    await recalled(apart, keys)
    await anyio.sleep(1.3)
    with Redis.from_url(own.url) as admin:
        (tracker,) = trackers(admin)

        def sent() -> int:
            return next(int(one["tot-cmds"]) for one in admin.client_list() if one["id"] == tracker)

        if "tot-cmds" in admin.client_list()[0]:
            before = sent()
            await anyio.sleep(0.3)
            assert sent() == before
    question = asked(keys, apart, **Q)
    assert not apart.lookup.recalled(question, keys)
    with anyio.fail_after(10):
        while not apart.lookup.recalled(question, keys):
            await anyio.sleep(0.01)


class Valve:
    """A TCP relay that can hold back what Redis says over connections on which it tells of changes."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Valve"]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = self._to._replace(netloc=f"{self._to.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
        async with server:
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_connection(self._to.hostname, self._to.port)
        tracks = asyncio.Event()
        self._tasks.add(asyncio.create_task(self._pump(reader, out, tracks, said=True)))
        self._tasks.add(asyncio.create_task(self._pump(back, writer, tracks, said=False)))

    async def _pump(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, tracks: asyncio.Event, *, said: bool
    ) -> None:
        try:
            while data := await source.read(2**16):
                if said and b"TRACKING" in data:
                    tracks.set()
                if not said and tracks.is_set():
                    await self._open.wait()
                to.write(data)
        finally:
            to.close()


async def test_what_is_held_up_on_its_way_is_not_served_past(
    apart: Parts, own: EmbeddedRedis, models: Loaded
) -> None:
    """Redis answers everybody else; only its words of changes don't get through."""
    async with (
        Valve(as_service(own.url)).running() as valve,
        service(apart.settings, models, valve.url) as parts,
    ):
        keys = parts.keyring.of(operator("acme"))
        await keep(parts, keys, **Q, response='"old"')
        await recalled(parts, keys)
        valve.hold()
        await keep(apart, keys, **Q, response='"new"')
        await over()
        for _ in range(20):
            hit = await look(parts, keys, **Q)
            assert isinstance(hit, Hit)
            assert (hit.tier, bytes(hit.response)) == (Origin.EXACT, b'"new"')
        valve.release()
        assert bytes((await recalled(parts, keys)).response) == b'"new"'


async def test_an_invalidation_that_finds_nothing_any_more_hides_nothing(
    apart: Parts, own: EmbeddedRedis, models: Loaded
) -> None:
    """Two processes are told the same: the other one was faster, and Redis' word of it isn't here yet."""
    async with (
        Valve(as_service(own.url)).running() as valve,
        service(apart.settings, models, valve.url) as parts,
    ):
        keys = parts.keyring.of(operator("acme"))
        await keep(parts, keys, **Q, tags=["t"])
        hit = await recalled(parts, keys)
        valve.hold()
        await invalidated(apart, keys, tag="t")
        assert await invalidated(parts, keys, tag="t") == 0
        assert not parts.lookup.recalled(asked(keys, parts, **Q), keys)
        valve.release()
        with anyio.fail_after(10):
            while parts.memory.entries:
                await anyio.sleep(0.01)
        assert hit.tier is Origin.MEMORY


class Change(NamedTuple):
    """What was done to an entry, and by whom."""

    parts: Parts
    begun: float
    answered: float
    value: str | None  # None: deleted


class Trial:
    """Random changes and lookups through two processes, against what was answered when."""

    def __init__(self, keys: TenantKeys, entries: int, seconds: float) -> None:
        self._keys = keys
        self._dice = random.Random(7)  # noqa: S311 - to be repeated
        self._history: list[list[Change]] = [[] for _ in range(entries)]
        self._busy = [anyio.Lock() for _ in range(entries)]
        self._values = itertools.count()
        self._until = time.monotonic() + seconds
        self.stale: list[object] = []
        self.hits: Counter[Origin] = Counter()

    async def change(self, parts: Parts) -> None:
        while time.monotonic() < self._until:
            n = self._dice.randrange(len(self._busy))
            async with self._busy[n]:
                begun, value = (
                    time.monotonic(),
                    None if self._dice.random() < 0.3 else str(next(self._values)),
                )
                if value is None:
                    name = parts.lookup.name(msgspec.convert(self._asked(n), LookupRequest), self._keys)
                    await invalidated(parts, self._keys, entry_id=name)
                else:
                    await keep(parts, self._keys, **self._asked(n), response=value)
                self._history[n].append(Change(parts, begun, time.monotonic(), value))
            await anyio.sleep(self._dice.random() * 0.05)

    async def look(self, parts: Parts) -> None:
        while time.monotonic() < self._until:
            n, begun = self._dice.randrange(len(self._busy)), time.monotonic()
            answer = await look(parts, self._keys, **self._asked(n), tiers=["exact"])
            async with self._busy[n]:  # a change that was under way is in the history now
                found = bytes(answer.response).decode() if isinstance(answer, Hit) else None
                if found not in self._allowed(n, parts, begun):
                    self.stale.append((n, found, begun, self._history[n][-3:]))
            if isinstance(answer, Hit):
                self.hits[answer.tier] += 1

    def _asked(self, n: int) -> dict[str, object]:
        return {"agent_type": "a", "prompt": f"question {n}", "embedding": vector(n)}

    def _allowed(self, n: int, parts: Parts, begun: float) -> set[str | None]:
        """The last value known to all who ask here, and all that came after it.

        Known is what was answered the bound ago, or before the lookup where the same process did it.
        """
        past = self._history[n]
        known = [
            at
            for at, one in enumerate(past)
            if one.answered < (begun if one.parts is parts else begun - LONGEST_S)
        ]
        return {one.value for one in past[known[-1] :]} if known else {None, *(one.value for one in past)}


async def test_answers_are_never_older_than_the_bound(near: Parts, far: Parts, keys: TenantKeys) -> None:
    trial = Trial(keys, entries=12, seconds=6)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for parts in (near, far):
                for _ in range(6):
                    group.start_soon(trial.look, parts)
                group.start_soon(trial.change, parts)
    assert trial.stale == []
    assert min(trial.hits[Origin.MEMORY], trial.hits[Origin.EXACT]) > 100, trial.hits


class Segments(Proxy):
    """Hands requests on in pieces, as a network does: Redis serves others in between."""

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while chunk := await reader.read(1448):
            writer.write(chunk)
            await writer.drain()
            if not replies:
                await asyncio.sleep(0.001)  # until the next segment


async def test_what_changes_within_an_exchange_is_not_served(
    near: Parts, far: Parts, keys: TenantKeys, models: Loaded, redis: Redis
) -> None:
    proxy = Segments(near.settings.redis_url or "")
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as server:
        at = urlsplit(near.settings.redis_url or "")
        who, _, _ = at.netloc.rpartition("@")
        there = at._replace(netloc=f"{who}@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with service(near.settings, models, there.geturl()) as behind:
            stale = sum([await changed_while_read(behind, far, keys, redis) for _ in range(4)])
    assert stale == 0


async def changed_while_read(parts: Parts, far: Parts, keys: TenantKeys, redis: Redis) -> int:
    """Of 64 entries that are read to be kept, and deleted behind that: how many are served afterwards."""

    async def ask(at: int) -> Hit | Miss:
        return await look(parts, keys, prompt=f"q{at}", embedding=vector(at), tiers=["exact"])

    stored = [await keep(far, keys, prompt=f"q{at}", embedding=vector(at)) for at in range(64)]
    for _ in range(2):
        await asyncio.gather(*(ask(at) for at in range(64)))
    names = [keys_of(parts, one.entry_id)[0] for one in stored]
    random.shuffle(names)
    deleting = asyncio.to_thread(lambda: [redis.unlink(name) for name in names])
    await asyncio.gather(deleting, *(ask(at) for at in range(64)))
    for _ in range(10):
        await anyio.sleep(0.02)  # while beats go on
        await ask(0)
    return sum([isinstance(await ask(at), Hit) for at in range(64)])


async def test_a_store_that_follows_a_hit_is_not_refused_for_an_old_invalidation(
    near: Parts, keys: TenantKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cache.lookup.SKEW_MS", 50)
    await keep(near, keys, **Q)
    await recalled(near, keys)
    assert await invalidated(near, keys, source="doc1") == 0
    await anyio.sleep(0.2)  # longer than SKEW_MS
    hit = await recalled(near, keys)
    follows: dict[str, Any] = {"response": '"new"', "sources": ["doc1"], "lookup_id": hit.lookup_id}
    (answer,) = await near.store.answer([accepted(keys, near, **(Q | follows))], keys)
    assert isinstance(answer, Stored)


async def test_the_largest_batch_is_stored(near: Parts, keys: TenantKeys) -> None:
    """As large as HTTP lets in, which is more than may wait on a lane."""
    body = msgspec.json.encode("x" * 65_000).decode()
    batch = [accepted(keys, near, prompt=f"p{at}", embedding=vector(at), response=body) for at in range(256)]
    assert {type(one) for one in await near.store.answer(batch, keys)} == {Stored}
