"""Client and AsyncClient: every call of the service."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, Unpack

import httpx

from semcached import calls, fields, model
from semcached.breaker import Breaker
from semcached.calls import Call
from semcached.errors import DeadlineError, SemcachedError
from semcached.sending import LIMITS, pause_s, result, timeouts, translated, whole
from semcached.settings import settings

T = TypeVar("T")

TIMEOUT_S, CONNECT_TIMEOUT_S, RETRIES = 5.0, 1.0, 2
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}


class _Pool(NamedTuple):
    """One loop's connections, and the generator that the loop ends when it ends itself."""

    pid: int
    http: httpx.AsyncClient
    ending: AsyncGenerator[None, None]


class _Base:
    """What both are made of. Nothing is opened before the first call."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        """A client of the service at `url`.

        Args:
            url: else SEMCACHED_URL, else http://127.0.0.1:8080.
            api_key: else SEMCACHED_API_KEY, else none.
            timeout_s: longest that a call waits for an answer; a call's own `timeout_s` replaces it. What a
                lookup waits for others (`wait_s`) comes on top.
            connect_timeout_s: longest for a new connection.
            retries: how often a call is sent again, where that is safe.

        Raises:
            ConfigurationError: one of them can't be used.
        """
        self._settings = settings(url, api_key, timeout_s, connect_timeout_s, retries)
        self.breaker = Breaker(self._settings.url)
        self._closed = False
        self._by_process: dict[int, httpx.Client] = {}  # Client's
        self._by_loop: dict[asyncio.AbstractEventLoop, _Pool] = {}  # AsyncClient's

    def __repr__(self) -> str:
        """Without the key."""
        return f"{type(self).__name__}({self._settings.url!r})"

    def _longest_s(self, call: Call[Any], timeout_s: float | None) -> float:
        return (self._settings.timeout_s if timeout_s is None else timeout_s) + call.wait_s

    def _options(self) -> dict[str, Any]:
        if self._closed:
            raise SemcachedError("the client is closed")
        return {
            "base_url": self._settings.url,
            "headers": _HEADERS | self._settings.headers,
            "limits": LIMITS,
            "trust_env": not self._settings.is_local,  # HTTP_PROXY is for the way out
        }

    def _again(
        self, call: Call[Any], error: SemcachedError, tried: int, longest_s: float, retries: int | None
    ) -> float | None:
        most = self._settings.retries if retries is None else retries
        return pause_s(call, error, tried, most, longest_s)


class Client(_Base):
    """For code that isn't async: of any thread, also while an event loop runs, also after a fork.

    A child process has connections of its own. `with Client() as client:` closes them at the end.
    """

    def send(self, call: Call[T], timeout_s: float | None = None, retries: int | None = None) -> T:
        """Make a call of `semcached.calls`. The deadline is for each step, then for the answer as a whole.

        Raises:
            SemcachedError: see `errors.py`.
        """
        longest_s, tried = self._longest_s(call, timeout_s), 0
        while True:
            try:
                return self._once(call, longest_s)
            except SemcachedError as error:
                pause = self._again(call, error, tried, longest_s, retries)
                if pause is None:
                    raise
            time.sleep(pause)  # before it is sent again
            tried += 1

    def _once(self, call: Call[T], seconds: float) -> T:
        http, until = self._http(), time.monotonic() + seconds
        with (
            translated(),
            http.stream(
                call.method,
                call.path,
                content=call.body,
                params=call.query or None,
                timeout=timeouts(self._settings, seconds),
            ) as response,
        ):
            body = whole(response.iter_bytes(), until)
        return result(call, response, body)

    def _http(self) -> httpx.Client:
        """This process' pool. Its parent's isn't touched: the parent uses it."""
        pid = os.getpid()
        http = self._by_process.get(pid)
        if http is None:
            # Of two threads that make one at once, both get the first. No lock: see `breaker.py`.
            http = self._by_process.setdefault(pid, httpx.Client(**self._options()))
        return http

    def close(self) -> None:
        """Close the connections. The client can't be used any more."""
        self._closed = True
        http = self._by_process.pop(os.getpid(), None)
        if http is not None:
            http.close()

    def __enter__(self) -> Self:
        """Closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    def lookup(
        self, *, timeout_s: float | None = None, **query: Unpack[fields.Lookup]
    ) -> model.Hit | model.Miss:
        """Ask the cache. `wait_s`: wait for whoever makes the same answer already."""
        return self.send(calls.lookup(query), timeout_s)

    def store(
        self, *, timeout_s: float | None = None, **answer: Unpack[fields.Store]
    ) -> model.Stored | model.Refused:
        """Keep an answer. Give it the `lookup_id` of the miss that it follows."""
        return self.send(calls.store(answer), timeout_s)

    def lookup_batch(
        self, items: Sequence[fields.Lookup], *, timeout_s: float | None = None
    ) -> list[model.Hit | model.Miss | model.Failed]:
        """Ask up to 256 questions; answers in order."""
        return self.send(calls.lookup_batch(items), timeout_s)

    def store_batch(
        self, items: Sequence[fields.Store], *, timeout_s: float | None = None
    ) -> list[model.Stored | model.Refused | model.Failed]:
        """Keep up to 256 answers."""
        return self.send(calls.store_batch(items), timeout_s)

    def lookup_tool(
        self, *, timeout_s: float | None = None, **call: Unpack[fields.ToolLookup]
    ) -> model.ToolHit | model.ToolMiss:
        """Ask for a tool's result."""
        return self.send(calls.lookup_tool(call), timeout_s)

    def store_tool(
        self, *, timeout_s: float | None = None, **call: Unpack[fields.ToolStore]
    ) -> model.Stored | model.Refused:
        """Keep a tool's result."""
        return self.send(calls.store_tool(call), timeout_s)

    def tool_policies(self, *, timeout_s: float | None = None) -> list[model.ToolPolicy]:
        """The policies that were set; any other tool has the defaults."""
        return self.send(calls.tool_policies(), timeout_s)

    def put_tool_policy(
        self, policy: model.ToolPolicy, *, timeout_s: float | None = None
    ) -> model.ToolPolicy:
        """Set the whole policy of a tool."""
        return self.send(calls.put_tool_policy(policy), timeout_s)

    def entry(self, entry_id: str, *, timeout_s: float | None = None) -> model.Entry:
        """One entry.

        Raises:
            NotFoundError: there is none.
        """
        return self.send(calls.entry(entry_id), timeout_s)

    def delete_entry(self, entry_id: str, *, timeout_s: float | None = None) -> None:
        """Delete one entry.

        Raises:
            NotFoundError: there is none.
        """
        self.send(calls.delete_entry(entry_id), timeout_s)

    def entries(
        self,
        *,
        agent_type: str | None = None,
        source: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout_s: float | None = None,
    ) -> model.Entries:
        """A page of entries, newest first."""
        call = calls.entries(agent_type=agent_type, source=source, tag=tag, limit=limit, cursor=cursor)
        return self.send(call, timeout_s)

    def clear(self, *, confirm: str, timeout_s: float | None = None) -> model.Cleared:
        """Delete everything the tenant has; `confirm` is its name."""
        return self.send(calls.clear(confirm), timeout_s)

    def embed(
        self, texts: Sequence[str], *, model: str = "default", timeout_s: float | None = None
    ) -> model.Embeddings:
        """Vectors of texts, by the service's embedder through its cache."""
        return self.send(calls.embed(texts, model), timeout_s)

    def lookup_embeddings(
        self, texts: Sequence[str], *, model: str, timeout_s: float | None = None
    ) -> list[list[float] | None]:
        """Vectors that are kept; None where there is none."""
        return self.send(calls.lookup_embeddings(texts, model), timeout_s)

    def store_embeddings(
        self,
        items: Sequence[fields.GivenEmbedding],
        *,
        model: str,
        ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Keep vectors that the caller computed; how many. `ttl_s` None: the service's."""
        return self.send(calls.store_embeddings(items, model, ttl_s), timeout_s)

    def feedback(
        self, lookup_id: str, *, correct: bool, note: str | None = None, timeout_s: float | None = None
    ) -> model.Recorded:
        """Say whether a hit's answer was right; a wrong one leaves the cache."""
        return self.send(calls.feedback(lookup_id, note, correct=correct), timeout_s)

    def invalidate(
        self,
        where: fields.Where,
        *,
        keyspaces: Sequence[model.Keyspace] | None = None,
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> model.Invalidated:
        """Delete what matches; with `dry_run` only count it."""
        return self.send(calls.invalidate(where, keyspaces, dry_run=dry_run), timeout_s)

    def rules(self, *, timeout_s: float | None = None) -> list[model.Rule]:
        """The tenant's rules for events."""
        return self.send(calls.rules(), timeout_s)

    def put_rule(
        self, name: str, *, event: str, where: fields.Where, timeout_s: float | None = None
    ) -> model.Rule:
        """Set what events of a type invalidate; strings of `where` may use {field} of the event's data."""
        return self.send(calls.put_rule(name, event, where), timeout_s)

    def delete_rule(self, name: str, *, timeout_s: float | None = None) -> None:
        """Delete a rule.

        Raises:
            NotFoundError: there is none.
        """
        self.send(calls.delete_rule(name), timeout_s)

    def event(
        self,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> model.Fired:
        """Invalidate what the rules for events of the type `kind` say."""
        return self.send(calls.event(kind, data or {}), timeout_s)

    def policy(self, agent_type: str, *, timeout_s: float | None = None) -> model.Policy:
        """The policy in force."""
        return self.send(calls.policy(agent_type), timeout_s)

    def put_policy(
        self, agent_type: str, policy: model.Policy, *, timeout_s: float | None = None
    ) -> model.Policy:
        """Set the whole policy of an agent_type; answers what is in force then."""
        return self.send(calls.put_policy(agent_type, policy), timeout_s)

    def stats(self, agent_type: str | None = None, *, timeout_s: float | None = None) -> model.Stats:
        """What was counted of the tenant, or of one agent_type."""
        return self.send(calls.stats(agent_type), timeout_s)

    def health(self, *, timeout_s: float | None = None) -> model.Health:
        """Whether the service answers from Redis."""
        return self.send(calls.health(), timeout_s)


async def _until_the_loop_ends(http: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    """`asyncio.run` ends every generator that was begun in it."""
    try:
        yield
    finally:
        await http.aclose()


class AsyncClient(_Base):
    """For asyncio. Each event loop has connections of its own, which are closed with it.

    So one client serves several loops: of other threads, after each other, after a fork.
    `async with AsyncClient() as client:` closes those of its loop earlier.
    """

    async def send(self, call: Call[T], timeout_s: float | None = None, retries: int | None = None) -> T:
        """Make a call of `semcached.calls`. The deadline is for a request as a whole.

        Raises:
            SemcachedError: see `errors.py`.
        """
        longest_s, tried = self._longest_s(call, timeout_s), 0
        while True:
            try:
                return await self._once(call, longest_s)
            except SemcachedError as error:
                pause = self._again(call, error, tried, longest_s, retries)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            tried += 1

    async def _once(self, call: Call[T], seconds: float) -> T:
        http = await self._http()
        try:
            async with asyncio.timeout(seconds):
                with translated():
                    response = await http.request(
                        call.method,
                        call.path,
                        content=call.body,
                        params=call.query or None,
                        timeout=timeouts(self._settings, seconds),
                    )
        except DeadlineError:
            raise
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {seconds:g} s") from error
        return result(call, response, response.content)

    async def _http(self) -> httpx.AsyncClient:
        """This loop's pool."""
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is None or pool.pid != os.getpid() or self._closed:
            for ended in [one for one in list(self._by_loop) if one.is_closed()]:
                self._by_loop.pop(ended, None)
            http = httpx.AsyncClient(**self._options())
            pool = self._by_loop[loop] = _Pool(os.getpid(), http, _until_the_loop_ends(http))
            await anext(pool.ending)
        return pool.http

    async def aclose(self) -> None:
        """Close this loop's connections. The client can't be used any more."""
        self._closed = True
        pool = self._by_loop.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.ending.aclose()

    async def __aenter__(self) -> Self:
        """Closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `aclose`."""
        await self.aclose()

    async def lookup(
        self, *, timeout_s: float | None = None, **query: Unpack[fields.Lookup]
    ) -> model.Hit | model.Miss:
        """Ask the cache. `wait_s`: wait for whoever makes the same answer already."""
        return await self.send(calls.lookup(query), timeout_s)

    async def store(
        self, *, timeout_s: float | None = None, **answer: Unpack[fields.Store]
    ) -> model.Stored | model.Refused:
        """Keep an answer. Give it the `lookup_id` of the miss that it follows."""
        return await self.send(calls.store(answer), timeout_s)

    async def lookup_batch(
        self, items: Sequence[fields.Lookup], *, timeout_s: float | None = None
    ) -> list[model.Hit | model.Miss | model.Failed]:
        """Ask up to 256 questions; answers in order."""
        return await self.send(calls.lookup_batch(items), timeout_s)

    async def store_batch(
        self, items: Sequence[fields.Store], *, timeout_s: float | None = None
    ) -> list[model.Stored | model.Refused | model.Failed]:
        """Keep up to 256 answers."""
        return await self.send(calls.store_batch(items), timeout_s)

    async def lookup_tool(
        self, *, timeout_s: float | None = None, **call: Unpack[fields.ToolLookup]
    ) -> model.ToolHit | model.ToolMiss:
        """Ask for a tool's result."""
        return await self.send(calls.lookup_tool(call), timeout_s)

    async def store_tool(
        self, *, timeout_s: float | None = None, **call: Unpack[fields.ToolStore]
    ) -> model.Stored | model.Refused:
        """Keep a tool's result."""
        return await self.send(calls.store_tool(call), timeout_s)

    async def tool_policies(self, *, timeout_s: float | None = None) -> list[model.ToolPolicy]:
        """The policies that were set; any other tool has the defaults."""
        return await self.send(calls.tool_policies(), timeout_s)

    async def put_tool_policy(
        self, policy: model.ToolPolicy, *, timeout_s: float | None = None
    ) -> model.ToolPolicy:
        """Set the whole policy of a tool."""
        return await self.send(calls.put_tool_policy(policy), timeout_s)

    async def entry(self, entry_id: str, *, timeout_s: float | None = None) -> model.Entry:
        """One entry.

        Raises:
            NotFoundError: there is none.
        """
        return await self.send(calls.entry(entry_id), timeout_s)

    async def delete_entry(self, entry_id: str, *, timeout_s: float | None = None) -> None:
        """Delete one entry.

        Raises:
            NotFoundError: there is none.
        """
        await self.send(calls.delete_entry(entry_id), timeout_s)

    async def entries(
        self,
        *,
        agent_type: str | None = None,
        source: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout_s: float | None = None,
    ) -> model.Entries:
        """A page of entries, newest first."""
        call = calls.entries(agent_type=agent_type, source=source, tag=tag, limit=limit, cursor=cursor)
        return await self.send(call, timeout_s)

    async def clear(self, *, confirm: str, timeout_s: float | None = None) -> model.Cleared:
        """Delete everything the tenant has; `confirm` is its name."""
        return await self.send(calls.clear(confirm), timeout_s)

    async def embed(
        self, texts: Sequence[str], *, model: str = "default", timeout_s: float | None = None
    ) -> model.Embeddings:
        """Vectors of texts, by the service's embedder through its cache."""
        return await self.send(calls.embed(texts, model), timeout_s)

    async def lookup_embeddings(
        self, texts: Sequence[str], *, model: str, timeout_s: float | None = None
    ) -> list[list[float] | None]:
        """Vectors that are kept; None where there is none."""
        return await self.send(calls.lookup_embeddings(texts, model), timeout_s)

    async def store_embeddings(
        self,
        items: Sequence[fields.GivenEmbedding],
        *,
        model: str,
        ttl_s: float | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Keep vectors that the caller computed; how many. `ttl_s` None: the service's."""
        return await self.send(calls.store_embeddings(items, model, ttl_s), timeout_s)

    async def feedback(
        self, lookup_id: str, *, correct: bool, note: str | None = None, timeout_s: float | None = None
    ) -> model.Recorded:
        """Say whether a hit's answer was right; a wrong one leaves the cache."""
        return await self.send(calls.feedback(lookup_id, note, correct=correct), timeout_s)

    async def invalidate(
        self,
        where: fields.Where,
        *,
        keyspaces: Sequence[model.Keyspace] | None = None,
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> model.Invalidated:
        """Delete what matches; with `dry_run` only count it."""
        return await self.send(calls.invalidate(where, keyspaces, dry_run=dry_run), timeout_s)

    async def rules(self, *, timeout_s: float | None = None) -> list[model.Rule]:
        """The tenant's rules for events."""
        return await self.send(calls.rules(), timeout_s)

    async def put_rule(
        self, name: str, *, event: str, where: fields.Where, timeout_s: float | None = None
    ) -> model.Rule:
        """Set what events of a type invalidate; strings of `where` may use {field} of the event's data."""
        return await self.send(calls.put_rule(name, event, where), timeout_s)

    async def delete_rule(self, name: str, *, timeout_s: float | None = None) -> None:
        """Delete a rule.

        Raises:
            NotFoundError: there is none.
        """
        await self.send(calls.delete_rule(name), timeout_s)

    async def event(
        self,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> model.Fired:
        """Invalidate what the rules for events of the type `kind` say."""
        return await self.send(calls.event(kind, data or {}), timeout_s)

    async def policy(self, agent_type: str, *, timeout_s: float | None = None) -> model.Policy:
        """The policy in force."""
        return await self.send(calls.policy(agent_type), timeout_s)

    async def put_policy(
        self, agent_type: str, policy: model.Policy, *, timeout_s: float | None = None
    ) -> model.Policy:
        """Set the whole policy of an agent_type; answers what is in force then."""
        return await self.send(calls.put_policy(agent_type, policy), timeout_s)

    async def stats(self, agent_type: str | None = None, *, timeout_s: float | None = None) -> model.Stats:
        """What was counted of the tenant, or of one agent_type."""
        return await self.send(calls.stats(agent_type), timeout_s)

    async def health(self, *, timeout_s: float | None = None) -> model.Health:
        """Whether the service answers from Redis."""
        return await self.send(calls.health(), timeout_s)
