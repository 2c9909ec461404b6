"""Mode `verified`, played a labelled stream over HTTP: the bound holds, and what is learned is true."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from bench.quality.sets import utterances
from bench.quality.vectors import embedded
from service.api.auth import operator
from service.cache.decided import model_of
from service.cache.learning.pooled import fitted
from service.cache.outcomes import Outcome
from service.cache.question import same_words
from service.embedders.local import MiniLM
from service.verifiers.crossencoder import CrossEncoder
from service.wiring import Loaded, Parts

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
AGENT = "bank"
LENGTH, INTENTS = 500, 12
BOUND = 0.02
LAST, SERVED = 150, 5
"""Of so many at the end so many are served by others' answers; simulated plays have 16 to 34."""
READ = 40


class Said(NamedTuple):
    """A question, and what its right answer is."""

    text: str
    label: str


class Asked(NamedTuple):
    """A request, and what it was answered."""

    said: Said
    reply: Any


def stream() -> list[Said]:
    """People's questions in few intents; some come again. It is that of `tests/bench/test_learning`."""
    draws = random.Random(1)  # noqa: S311 - no secret
    intents = sorted({one.intent for one in utterances("populate", None)})[:INTENTS]
    texts = [Said(one.text, one.intent) for one in utterances("populate", None) if one.intent in intents]
    return [texts[int(len(texts) * draws.random() ** 2)] for _ in range(LENGTH)]


async def call(http: Http, method: str, path: str, **body: Any) -> Any:
    answer = await http.request(method, path, params={"agent_type": AGENT}, json=body or None)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


async def play(http: Http, entries: dict[str, Said]) -> list[Asked]:
    """What misses is answered afresh, and stored; notes what each entry is."""
    await call(http, "PUT", "/v1/policies", mode="verified", max_error_rate=BOUND, comparison="equal")
    found: list[Asked] = []
    for said in stream():
        asked = {"agent_type": AGENT, "prompt": said.text}
        reply = await call(http, "POST", "/v1/cache/lookup", **asked)
        found.append(Asked(said, reply))
        if reply["outcome"] == "miss":
            fresh = {"response": f"The answer to {said.label}.", "lookup_id": reply["lookup_id"]}
            stored = await call(http, "POST", "/v1/cache/store", **asked, **fresh)
            entries[stored["entry_id"]] = said
    return found


async def test_the_bound_holds_and_what_is_learned_is_true(
    client: Http, parts: Parts, models: Loaded, minilm: MiniLM
) -> None:
    """The bound allows ten wrong answers; of twelve simulated plays none had more than three.

    `python -m bench.learning` simulates; here the service itself is asked.
    """
    entries: dict[str, Said] = {}
    asked = await play(client, entries)
    check_served(asked, entries)
    explored = {one.reply["lookup_id"]: one.said for one in asked if one.reply.get("reason") == "explore"}
    with anyio.fail_after(20):
        while (told := await call(client, "GET", "/v1/learning"))["outcomes"] < len(explored):
            await anyio.sleep(0.1)  # compared in the background
    keys = parts.keyring.of(operator("default"))
    assert parts.responses.generation is not None
    said = await parts.judging.outcomes.read(keys, AGENT, model_of(parts.responses.generation))
    outcomes = {one.outcome.lookup_id.hex(): one.outcome for one in said}
    assert len(said) == told["outcomes"]
    assert outcomes.keys() == explored.keys()
    pairs = [(explored[name], entries[one.entry_id.hex()], one) for name, one in outcomes.items()]
    assert all(one.correct == (question.label == entry.label) for question, entry, one in pairs)
    check_similarities(pairs, minilm)
    assert isinstance(models.verifier, CrossEncoder)
    check_scores(pairs, models.verifier)
    await check_another_process(client, parts)


def check_served(asked: Sequence[Asked], entries: Mapping[str, Said]) -> None:
    served = [(one, entries[one.reply["entry_id"]]) for one in asked if one.reply["outcome"] == "hit"]
    wrong = [one for one, entry in served if one.said.label != entry.label]
    assert all(one.reply["tier"] == "semantic" for one in wrong)
    assert len(wrong) <= BOUND * len(asked)
    last = [one for one in asked[-LAST:] if one.reply.get("tier") == "semantic"]
    assert len(last) >= SERVED


def check_similarities(pairs: Sequence[tuple[Said, Said, Outcome]], minilm: MiniLM) -> None:
    """As the model has them."""
    vectors = embedded(minilm, [one.text for question, entry, _ in pairs for one in (question, entry)], None)
    for question, entry, one in pairs:
        cosine = float(vectors.rows[vectors.at[question.text]] @ vectors.rows[vectors.at[entry.text]])
        assert one.cosine == pytest.approx(cosine, abs=0.01)


def check_scores(pairs: Sequence[tuple[Said, Said, Outcome]], verifier: CrossEncoder) -> None:
    """As the verifier gives them: served is by what was learned from them."""
    for question, entry, one in pairs:
        assert (one.verified is None) == same_words(question.text, entry.text)
    for question, entry, one in pairs[:READ]:
        if one.verified is not None:
            assert one.verified == pytest.approx(verifier.run([(question.text, entry.text)])[0], abs=0.01)


async def check_another_process(client: Http, parts: Parts) -> None:
    """One that only reads knows the same."""
    keys = parts.keyring.of(operator("default"))
    own = client.app.state.services.learning.of(keys, AGENT)
    other = parts.learning.of(keys, AGENT)
    await parts.learning.refresh()
    assert other.said == own.said
    assert other.rows() == own.rows()
    assert other.prior == fitted(*own.rows())  # the other's lags behind, by an eighth at most
    assert own.prior.observed >= len(own.said) * 8 / 9 - 8
