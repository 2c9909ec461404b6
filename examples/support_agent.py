"""The support agent of agent.py on a stub provider, four times: what the cache saves, and what it doesn't.

    .venv/bin/python -m examples.support_agent

Without semcached; through it, first and again; and with the questions in other words. Starts a service in a
temporary folder, unless one answers at SEMCACHED_URL. That one remembers earlier runs, and has to be started
with SEMCACHED_OPENAI_UPSTREAM=http://127.0.0.1:8099/v1, where the stub is (--port).
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import openai
from openai import DefaultHttpxClient

from bench.processes import served
from examples import agent, shop
from examples.conversations import CONVERSATIONS
from examples.stub_model import model
from semcached import set_testing
from semcached.prompts import savings
from tests.provider.server import Provider, threaded

PORT = 8099
WRITES = "create_return"
EXACT = "1.0000"
KEY = os.environ.get("SEMCACHED_API_KEY") or "sk-stub"  # a service with keys wants one of its own


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question, its answer, and what became of the first request for it."""

    question: str
    answer: str
    tool_calls: list[str]
    x_cache: str  # HIT, MISS, BYPASS; empty without the service
    similarity: str  # of a hit
    calls_a_tool: bool  # whether its first answer did


@dataclass(frozen=True, kw_only=True)
class Run:
    """All conversations once."""

    name: str
    turns: list[Turn]
    requests: int  # of the agent, to the model
    exact: int  # of these, served
    semantic: int
    llm_calls: int  # that the provider saw
    tool_calls: int  # of the model
    reads: int  # how many of these ran, in the shop
    writes: int
    seconds: float
    usd: float  # at list prices, of the tokens that the provider counted


class Observed:
    """The agent, with all that is to be seen from beside it."""

    def __init__(self, provider: Provider, url: str) -> None:
        self.headers: list[Any] = []
        hooks = {"response": [lambda response: self.headers.append(response.headers)]}
        self.llm = agent.connected(url, api_key=KEY, http_client=DefaultHttpxClient(event_hooks=hooks))
        self._provider = provider

    def run(self, name: str, *, reworded: bool = False) -> Run:
        provider, seen = self._provider, len(self.headers)
        calls, replies, ran = provider.calls, len(provider.replies), shop.ran.copy()
        begun = time.monotonic()
        turns = self._turns(reworded=reworded)
        seconds = time.monotonic() - begun
        hits = [one["x-cache-similarity"] for one in self.headers[seen:] if one.get("x-cache") == "HIT"]
        newly = shop.ran - ran
        return Run(
            name=name,
            turns=turns,
            requests=len(self.headers) - seen,
            exact=hits.count(EXACT),
            semantic=len(hits) - hits.count(EXACT),
            llm_calls=provider.calls - calls,
            tool_calls=sum(len(turn.tool_calls) for turn in turns),
            reads=newly.total() - newly[WRITES],
            writes=newly[WRITES],
            seconds=seconds,
            usd=sum((price(reply) for reply in provider.replies[replies:]), 0.0),
        )

    def _turns(self, *, reworded: bool) -> list[Turn]:
        turns = []
        for customer, says, otherwise in CONVERSATIONS:
            messages = agent.begun()
            turns += [self._turn(customer, one, messages) for one in (otherwise if reworded else says)]
        return turns

    def _turn(self, customer: str, question: str, messages: agent.Messages) -> Turn:
        seen, before = len(self.headers), len(messages)
        messages.append({"role": "user", "content": question})
        answer = agent.reply(self.llm, customer, messages)
        said: list[Any] = [*messages[before + 1 :]]
        called = [call["function"]["name"] for one in said for call in one.get("tool_calls", [])]
        first = self.headers[seen]
        return Turn(
            question=question,
            answer=answer,
            tool_calls=called,
            x_cache=first.get("x-cache", ""),
            similarity=first.get("x-cache-similarity", ""),
            calls_a_tool="tool_calls" in said[0],
        )


def price(reply: bytes) -> float:
    """USD for one of the provider's answers."""
    usage = json.loads(reply).get("usage")
    return savings(usage, agent.MODEL).paid_usd if usage else 0.0


def runs(provider: Provider) -> list[Run]:
    """All four."""
    with set_testing():
        without = Observed(provider, provider.root).run("without")
    with service(provider) as url:
        os.environ["SEMCACHED_URL"] = url  # the decorators' client is made when it is needed first
        observed = Observed(provider, url)
        check(observed, provider, url)
        first, again = observed.run("first"), observed.run("again")
        return [without, first, again, observed.run("in other words", reworded=True)]


@contextmanager
def service(provider: Provider) -> Iterator[str]:
    """The URL of the one that runs, or of one that ends with this."""
    url = os.environ.get("SEMCACHED_URL", "").rstrip("/")
    if url and answers(url):
        yield url
        return
    # On a busy machine Redis may take longer than the 0.3 s after which a lookup is a miss.
    settings = {"openai_upstream": provider.url, "redis_timeout_s": "5"}
    with TemporaryDirectory() as folder, served(Path(folder), **settings) as started:
        yield f"http://127.0.0.1:{started.port}"


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def check(observed: Observed, provider: Provider, url: str) -> None:
    """Whether the service passes on to our stub; /v1/models is never cached."""
    seen, said = len(provider.requests), "which passes on to another"
    try:
        observed.llm.with_options(max_retries=0).models.list()
    except openai.APIError as error:
        said = str(error)
    if len(provider.requests) == seen:
        needs = f"SEMCACHED_OPENAI_UPSTREAM={provider.url}, and if it has keys, SEMCACHED_API_KEY here"
        raise SystemExit(f"the service at {url} needs {needs}: {said}")


def table(told: list[Run]) -> str:
    """For people, in Markdown."""
    rows: dict[str, list[str]] = {
        "": [run.name for run in told],
        "requests of the agent to the LLM": [str(run.requests) for run in told],
        "served: same words + similar": [f"{run.exact} + {run.semantic}" for run in told],
        "hit rate": [f"{(run.exact + run.semantic) / run.requests:.0%}" for run in told],
        "**calls to the LLM**": [str(run.llm_calls) for run in told],
        "tool calls of the LLM": [str(run.tool_calls) for run in told],
        "**tools that ran: reading + writing**": [f"{run.reads} + {run.writes}" for run in told],
        "**seconds**": [f"{run.seconds:.1f}" for run in told],
        "**USD, list prices**": [f"{run.usd:.4f}" for run in told],
    }
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([lines[0], f"| --- |{' ---: |' * len(told)}", *lines[1:]])


def fates(run: Run) -> str:
    """What became of each question's first request."""
    lines = [f"| {turn.question} | {fate(turn)} |" for turn in run.turns]
    return "\n".join(["| in other words | the first request for it |", "| --- | --- |", *lines])


def fate(turn: Turn) -> str:
    if turn.x_cache == "HIT":
        return "served, same words" if turn.similarity == EXACT else f"served, {turn.similarity} similar"
    if turn.calls_a_tool:
        return f"passed on: answered by a call of {turn.tool_calls[0]}, which only the same words are served"
    return "passed on: nothing near enough, or a guard or the verifier said no"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m examples.support_agent", description=__doc__)
    arguments.add_argument("--port", type=int, default=PORT, help="of the stub, for SEMCACHED_URL")
    arguments.add_argument("--first-ms", type=float, default=300, help="the stub's time to its first token")
    arguments.add_argument("--token-ms", type=float, default=10, help="and for each token")
    arguments.add_argument("--tool-ms", type=float, default=100, help="what a tool takes")
    arguments.add_argument("--json", action="store_true", help="the runs as data")
    given = arguments.parse_args()
    shop.takes_s = given.tool_ms / 1e3
    port = given.port if "SEMCACHED_URL" in os.environ else 0
    provider = Provider(port=port, first_s=given.first_ms / 1e3, token_s=given.token_ms / 1e3)
    provider.mode = model
    with threaded(provider):
        told = runs(provider)
    text = json.dumps([asdict(run) for run in told]) if given.json else f"{table(told)}\n\n{fates(told[-1])}"
    print(text)


if __name__ == "__main__":
    main()
