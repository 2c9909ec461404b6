"""Answers from other conversations: how often right, how often wrong, by `policy.history`.

    python bench/conversations.py [--data ../shared/data] [--part public] [--limit N] [--output FILE.json]

sgd_context: pairs of dialogues with the same last message: a is stored, b asked. trec_cast: does the rule see
which turns stand alone; and with a rewriter that says what trec_cast's annotators wrote: store a turn under
its history, ask for it in other words, and in another conversation. bench/data/chats: our own pairs, by kind.
"""

import argparse
import asyncio
import gzip
import hashlib
import json
import platform
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from bench.quality.rates import share
from service.api.auth import operator
from service.cache import canonical
from service.cache.digests import Keyring, TenantKeys
from service.cache.guards import Asked, rejection
from service.cache.lookup import Lookup
from service.cache.rewriting import Rewriting, as_it_is, own_words
from service.cache.standalone import closes, stands_alone
from service.cache.store import Accepted, Store
from service.cache.usage import Uses
from service.errors import RewriterError
from service.model import (
    Candidate,
    History,
    Hit,
    LookupRequest,
    Message,
    Policy,
    Record,
    StoreRequest,
)
from service.rewriters.belief import believed
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.store.keys import Keys
from service.store.rewritings import RedisRewritings
from service.wiring import Parts, now_ms, opened

CHATS = Path(__file__).parent / "data" / "chats" / "chats.jsonl"
DEVELOPED_ON = 70
"""Percent of trec_cast's topics, and of sgd_context's messages, that the rules were written on."""

Row = dict[str, Any]


@dataclass
class Counts:
    """Pairs or messages, and how many of them were served (or said to stand alone)."""

    served: Counter[str] = field(default_factory=Counter)
    of: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, *, served: bool) -> None:
        self.of[kind] += 1
        self.served[kind] += served

    def rows(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {
                "served": self.served[kind],
                "of": total,
                "share": round(self.served[kind] / total, 4),
                "interval": [round(one, 4) for one in share(self.served[kind], total)[3:]],
            }
            for kind, total in sorted(self.of.items())
        }


def lines(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def side(key: str) -> str:
    """Whether the rules were written on it; the rest was counted, never read."""
    number = int(hashlib.sha256(f"split {key}".encode()).hexdigest()[:8], 16) % 100
    return "developed on" if number < DEVELOPED_ON else "kept back"


def same(one: str, other: str) -> bool:
    """Up to case and punctuation."""
    return re.sub(r"[^a-z0-9 ]", "", one.lower()).split() == re.sub(r"[^a-z0-9 ]", "", other.lower()).split()


# The rule on trec_cast's turns


def detection(turns: Sequence[Row]) -> Counts:
    counts = Counts()
    for row in turns:
        alone = not row["history"] or same(row["raw"], row["rewritten"])
        kind = "does not" if not alone else "stands alone, later turn" if row["history"] else "first turn"
        where = side("{year} {topic}".format_map(row))
        counts.add(f"{where}: {kind}", served=stands_alone(row["raw"]))
    return counts


# The decision on sgd_context's pairs: equal last messages, so the similarity is 1 and nothing is embedded


def is_served(cached: list[Row], question: list[Row], policy: Policy, keys: TenantKeys) -> bool:
    stored, query = (
        canonical.query(msgspec.convert({"agent_type": "sgd", "messages": one}, LookupRequest), keys, None)
        for one in (cached, question)
    )
    identity = stored.identities[0]
    record = Record(
        entry_id=identity.entry_id,
        tenant=identity.tenant,
        scope=identity.scope,
        history=identity.history,
        agent_type="sgd",
        model=None,
        prompt_version=None,
        temperature=None,
        attributes={},
        text=stored.text,
        messages=msgspec.json.encode(stored.messages),  # first turns are left out of the set
        response=b"0",
        metadata=b"null",
        sources=[],
        tags=[],
        usage=None,
        embedding=None,
        stored_at=0,
        expires_at=None,
        standalone=own_words(stored, policy),
    )
    asked = Asked(query.identities, as_it_is(query, policy), 0.95, policy)
    return rejection(Candidate(identity.entry_id, 1.0), record, asked, 0) is None


def dialogues(pairs: Sequence[Row], history: History, keys: TenantKeys) -> Counts:
    counts, policy = Counts(), Policy(history=history)
    for row in pairs:
        where, right = side(row["last_message"].lower()), "right" if row["label"] else "leak"
        served = is_served(row["a"], row["b"], policy, keys)
        counts.add(f"{where}: {right}", served=served)
        counts.add(right, served=served)
        if right == "right" and history is History.STANDALONE:
            farewell = served and closes(row["last_message"])
            counts.add("right, and more than a farewell", served=served and not farewell)
    return counts


# The whole service, with a rewriter that knows the annotators' words


class Annotators:
    """Fulfils `cache.ports.Rewriter` with trec_cast's own rewritings, those that are believed.

    A turn in a conversation that nobody annotated is said to be about that conversation's first question.
    """

    version = "trec_cast"

    def __init__(self, turns: Sequence[Row]) -> None:
        self._rewritten = {(*row["history"], row["raw"]): row["rewritten"] for row in turns}

    async def rewritten(self, messages: Sequence[Message], asked: str) -> str:
        said = tuple(str(one.content) for one in messages)
        if not said:
            raise RewriterError("nothing was said")
        line = self._rewritten.get(said) or f"About {said[0].rstrip('?.')}: {asked}"
        return believed(line, messages, asked)


class Cache:
    """The service without HTTP, under one policy."""

    def __init__(self, parts: Parts, history: History, turns: Sequence[Row]) -> None:
        self._keys = parts.keyring.of(operator("bench"))
        kept = RedisRewritings(parts.redis, Keys(parts.settings.key_prefix), parts.responses)
        self._policy = Policy(history=history)
        common: Any = {
            "policies": self,
            "rewriting": Rewriting(Annotators(turns), kept),
            "embeddings": parts.embeddings,
            "uses": Uses(now_ms),
            "clock": now_ms,
            "redis_s": parts.settings.redis_timeout_s,
        }
        self._lookup = Lookup(parts.responses, parts.embedder, verifier=None, leases=parts.leases, **common)
        self._store = Store(parts.responses, parts.embedder, **common)

    def of(self, keys: TenantKeys, agent_type: str) -> Policy:  # noqa: ARG002 - the port's
        return self._policy

    async def keep(self, agent_type: str, answer: str, messages: list[Row]) -> None:
        fields = {"agent_type": f"{self._policy.history} {agent_type}", "messages": messages}
        body = msgspec.json.encode(fields | {"response": answer})
        one = self._store.accept(msgspec.json.decode(body, type=StoreRequest), self._keys)
        assert isinstance(one, Accepted)  # noqa: S101 - no policy refuses it
        await self._store.answer([one], self._keys)

    async def answered(self, agent_type: str, messages: list[Row]) -> str | None:
        fields = {"agent_type": f"{self._policy.history} {agent_type}", "messages": messages}
        question = self._lookup.question(msgspec.convert(fields, LookupRequest), self._keys)
        (answer,) = await self._lookup.answer([question], self._keys)
        return str(msgspec.json.decode(answer.response)) if isinstance(answer, Hit) else None


def users(*said: str) -> list[Row]:
    return [{"role": "user", "content": text} for text in said]


def _told(row: Row, *, dependent: bool) -> str:
    """2019's turns refer to questions only, later ones also to answers, which the set doesn't have."""
    where = "what is asked is all there" if row["year"] == 2019 else "answers are missing"
    return f"{where}, {'rewritten' if dependent else 'left unchanged'}"


async def turns_asked(cache: Cache, turns: Sequence[Row], title: str) -> Counts:
    """Each turn by itself: asked in words that need no history, and with the history of another topic."""
    counts = Counts()
    later = [row for row in turns if row["history"]]
    for at, row in enumerate(tqdm(later, title)):
        other = next(one for one in [*later[at:], *later] if one["topic"] != row["topic"])
        await cache.keep(str(at), "a", users(*row["history"], row["raw"]))
        dependent = not same(row["raw"], row["rewritten"])
        found = await cache.answered(str(at), users(row["rewritten"]))
        counts.add("right: asked in words that stand alone", served=found is not None)
        counts.add(f"right: {_told(row, dependent=dependent)}", served=found is not None)
        if dependent:
            found = await cache.answered(str(at), users(*other["history"], row["raw"]))
            counts.add("leak: asked in another conversation", served=found is not None)
    return counts


async def homonyms(cache: Cache, turns: Sequence[Row]) -> Counts:
    """Equal turns of two topics, which mean something else in each."""
    counts = Counts()
    later = [row for row in turns if row["history"]]
    for at, one in enumerate(later):
        for to, other in enumerate(later):
            if at != to and same(one["raw"], other["raw"]) and not same(one["rewritten"], other["rewritten"]):
                await cache.keep(f"homonym {at} {to}", "a", users(*one["history"], one["raw"]))
                found = await cache.answered(f"homonym {at} {to}", users(*other["history"], other["raw"]))
                counts.add("leak: equal words of another topic", served=found is not None)
    return counts


async def chats_asked(cache: Cache, rows: Sequence[Row], title: str) -> Counts:
    counts = Counts()
    for at, row in enumerate(tqdm(rows, title)):
        await cache.keep(f"chat {at}", "a", row["a"])
        served = await cache.answered(f"chat {at}", row["b"]) is not None
        counts.add(f"{'right' if row['label'] else 'leak'}: {row['kind']}", served=served)
    return counts


async def served_by_service(turns: Sequence[Row], chats: Sequence[Row]) -> dict[str, Counts]:
    results: dict[str, Counts] = {}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(EmbeddedRedis(folder, port=0))
        settings = Settings(data_dir=folder, secret="a secret of the bench", redis_timeout_s=5)  # noqa: S106 - no secret
        parts = await stack.enter_async_context(opened(settings, redis.url))
        await parts.attach(lambda _: None)
        for history in History:
            cache = Cache(parts, history, turns)
            results[f"trec_cast, {history}"] = await turns_asked(cache, turns, f"trec_cast, {history}")
            results[f"trec_cast's equal turns, {history}"] = await homonyms(cache, turns)
            if history is not History.REWRITE:  # nobody wrote what these chats mean
                results[f"our chats, {history}"] = await chats_asked(cache, chats, f"our chats, {history}")
    return results


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    out = []
    for name, rows in results.items():
        out.append(name)
        for kind, row in rows.items():
            low, high = row["interval"]
            share = f"{row['served']:5d} of {row['of']:5d} = {row['share']:6.1%} ({low:.1%}-{high:.1%})"
            out.append(f"  {kind:45s} {share}")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where the sets lie")
    parser.add_argument("--part", default="public", help="which part of each set")
    parser.add_argument("--limit", type=int, help="rows of each set; all if absent")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    turns = list(lines(arguments.data / "trec_cast" / arguments.part / "turns.jsonl.gz"))[: arguments.limit]
    pairs = list(lines(arguments.data / "sgd_context" / arguments.part / "conversations.jsonl.gz"))[
        : arguments.limit
    ]
    keys = Keyring(b"a secret of the bench").of(operator("bench"))
    counted = {"trec_cast: said to stand alone": detection(turns)}
    for history in (History.EXACT, History.STANDALONE):
        counted[f"sgd_context, {history}"] = dialogues(pairs, history, keys)
    counted |= asyncio.run(served_by_service(turns, list(lines(CHATS))[: arguments.limit]))
    results = {name: counts.rows() for name, counts in counted.items()}
    print(table(results))
    if arguments.output:
        about = {
            "data": f"trec_cast and sgd_context, {arguments.part} part; bench/data/chats",
            "command": "python bench/conversations.py",
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "semcached": version("semcached-server"),
        }
        arguments.output.write_text(json.dumps(about | {"results": results}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
