"""The question in words that need no history: as it is, from an earlier rewriting, or rewritten now."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from service.cache import canonical
from service.cache.canonical import Query
from service.cache.digests import TenantKeys
from service.cache.ports import Budget, Rewriter, Rewritings
from service.cache.standalone import closes, instructs, stands_alone
from service.errors import RewriterError, StoreUnavailableError
from service.model import History, Policy
from service.telemetry import REWRITE_FAILURES, REWRITTEN


class Wanted(NamedTuple):
    """A message that has to be rewritten."""

    name: str  # digest of the conversation, and of who rewrites it how
    query: Query
    text: str


def as_it_is(query: Query, policy: Policy) -> str | None:
    """The question in words that need no history, where it is there already; None: nobody knows, or may."""
    if query.text is None or policy.history is History.EXACT:
        return None
    return query.text if query.messages is None else own_words(query, policy)


def own_words(query: Query, policy: Policy) -> str | None:
    """A question with a history in its own words, if they need no history.

    Where an LLM rewrites, that is left to it but for farewells: the rules err more often.
    """
    if query.text is None or query.messages is None:
        return None
    if closes(query.text):
        return query.text
    if policy.history is History.REWRITE or not stands_alone(query.text):
        return None
    return None if any(map(instructs, canonical.said(query.messages))) else query.text


def is_wanted(query: Query, policy: Policy, standalone: str | None) -> bool:
    """Whether the message has to be rewritten. A caller's own vector says what it means already."""
    rewrites = policy.history is History.REWRITE and query.vector is None
    return rewrites and standalone is None and query.messages is not None and query.text is not None


class Rewriting:
    """Rewrites messages, each conversation once: kept in Redis, and shared by all who ask meanwhile."""

    def __init__(self, rewriter: Rewriter | None, kept: Rewritings) -> None:
        self._rewriter = rewriter
        self._kept = kept
        self._running: dict[str, asyncio.Task[str]] = {}  # a name is of one tenant: made with its key

    async def texts(self, queries: Sequence[Query], keys: TenantKeys, budget: Budget) -> list[str | None]:
        """One text per query, in order; None for what could not be rewritten.

        Raises:
            StoreUnavailableError: Redis did not answer in time.
        """
        if self._rewriter is None or not queries:
            REWRITE_FAILURES.labels("none").inc(len(queries))
            return [None] * len(queries)
        wanted = [_wanted(query, keys, self._rewriter.version) for query in queries]
        names = list(dict.fromkeys(one.name for one in wanted))
        kept = dict(zip(names, await self._kept.read(keys, names, budget), strict=True))
        REWRITTEN.labels("cached").inc(sum(text is not None for text in kept.values()))
        missing = {one.name: one for one in wanted if kept[one.name] is None}
        texts = await asyncio.gather(*(self._made(one, self._rewriter) for one in missing.values()))
        made = {name: text for name, text in zip(missing, texts, strict=True) if text is not None}
        with contextlib.suppress(StoreUnavailableError):  # it is known now, and made again next time
            await self._kept.write(keys, made, budget)
        return [kept[one.name] or made.get(one.name) for one in wanted]

    async def _made(self, one: Wanted, rewriter: Rewriter) -> str | None:
        """The rewriting that is under way, or a new one; who is cancelled leaves it to the others."""
        task = self._running.get(one.name)
        if task is None:
            task = self._running[one.name] = asyncio.create_task(
                rewriter.rewritten(one.query.messages or [], one.text)
            )
            task.add_done_callback(lambda done: self._done(one.name, done))
        try:
            return await asyncio.shield(task)
        except RewriterError:
            return None

    def _done(self, name: str, task: asyncio.Task[str]) -> None:
        del self._running[name]
        if not task.cancelled() and task.exception() is None:  # seen, in case every caller is gone
            REWRITTEN.labels("made").inc()

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _wanted(query: Query, keys: TenantKeys, version: str) -> Wanted:
    conversation = canonical.conversation(query.messages or [])
    name = keys.current.digest("rewriting", version.encode() + b"\0" + conversation)
    return Wanted(name, query, query.text or "")


@asynccontextmanager
async def rewriting(rewriter: Rewriter | None, kept: Rewritings) -> AsyncIterator[Rewriting]:
    """Whatever is under way at the end is ended."""
    one = Rewriting(rewriter, kept)
    try:
        yield one
    finally:
        await one.close()
