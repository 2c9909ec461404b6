"""What is learned, over kill -9 in the middle of it: nothing counts twice, a second of work is lost at most.

Five agents ask two services on one Redis; now and then one of these is killed, or both, and started again. A
request whose connection broke is repeated, at either. LEARNING_KILLS: how often.
"""

import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from service.api.auth import operator
from service.cache.decided import model_of
from service.cache.digests import TenantKeys
from service.cache.learning.quality import verdicts
from service.cache.outcomes import Said
from service.embedders.local import MiniLM
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from service.wiring import Loaded, Parts, opened
from tests.faults.comparing import Comparing, Exploring, Shadowed
from tests.faults.fleet import PLACES, SECOND, SECRET, Fleet
from tests.faults.loads import Adapting, Asking, Reviewed, Telling

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("LEARNING_KILLS", "4"))
LEAST_S, MOST_S = 0.5, 2.5
"""Between two kills."""
LAST_S = 4.5
"""After the last: until all is written, followed and moved."""
BOTH = 0.3
"""Share of kills that are of both."""


class Story(NamedTuple):
    """What happened."""

    fleet: Fleet
    url: str
    telling: Telling
    reviewed: Reviewed
    exploring: Exploring
    shadowed: Shadowed
    adapting: Adapting

    @property
    def loads(self) -> tuple[Asking, ...]:
        return self.telling, self.reviewed, self.exploring, self.shadowed, self.adapting


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("killed")
    chance = random.Random(KILLS)  # noqa: S311 - no secret
    with EmbeddedRedis(folder / "redis", port=0) as redis:
        fleet = Fleet(folder, redis.url)
        try:
            yield _told(Story(fleet, redis.url, *(load(fleet, KILLS) for load in LOADS)), chance)
        finally:
            fleet.end()


LOADS: Any = (Telling, Reviewed, Exploring, Shadowed, Adapting)


def _told(story: Story, chance: random.Random) -> Story:
    for load in story.loads:
        load.prepare()
    time.sleep(1.5)  # until both have the policies
    for load in story.loads:
        load.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(LEAST_S, MOST_S))
        both = chance.random() < BOTH
        story.fleet.kill(*(range(PLACES) if both else [chance.randrange(PLACES)]))
    time.sleep(MOST_S)
    for load in story.loads:
        load.stop()
    time.sleep(LAST_S)
    return story


@pytest.fixture
async def parts(story: Story, minilm: MiniLM, tmp_path: Path) -> AsyncIterator[Parts]:
    """Another service, which only reads."""
    settings = Settings(
        redis_url=story.url, data_dir=tmp_path, secret=SECRET, verifier="off", redis_timeout_s=5
    )
    async with opened(settings, story.url, Loaded(minilm)) as found:
        await found.attach(lambda _: None)
        yield found


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("default"))


async def outcomes(parts: Parts, keys: TenantKeys, load: Asking) -> dict[str, Said]:
    """By lookup; there is one of each."""
    assert parts.responses.generation is not None
    model = model_of(parts.responses.generation)
    said = await parts.judging.outcomes.read(keys, load.agent_type, model)
    found = {one.outcome.lookup_id.hex(): one for one in said}
    assert len(found) == len(said)
    return found


def quality(story: Story, place: int, load: Asking) -> Any:
    return story.fleet.told(place, f"/v1/stats?agent_type={load.agent_type}")["quality"]


async def test_each_decision_is_found(story: Story, parts: Parts, keys: TenantKeys) -> None:
    """And none twice."""
    kept = Counter([one.decided.lookup_id.hex() async for one in parts.ledger.decisions.all(keys)])
    assert max(kept.values()) == 1
    for load in story.loads:
        assert load.steps > 10 * KILLS
        lost = [one for one in load.answered.values() if one.lookup_id not in kept]
        assert [one for one in lost if one.is_safe] == []
        for one in list(load.answered.values())[:: max(1, len(load.answered) // 50)]:
            found = await parts.ledger.decisions.find(keys, one.lookup_id)
            assert (found is not None) == (one.lookup_id in kept)
            assert found is None or found.agent_type == load.agent_type


async def test_feedback_counts_once(story: Story, parts: Parts, keys: TenantKeys) -> None:
    """What was acknowledged holds, also where the connection broke, or another thing was said before."""
    load = story.telling
    found = await outcomes(parts, keys, load)
    assert len(load.told) > 5 * KILLS
    assert load.wrong
    assert load.again == []
    assert {name: found[name].outcome.correct for name in load.told if name in found} == load.told
    assert [one for one in load.unknown if one.is_safe] == []
    assert found.keys() - load.told.keys() <= {one.lookup_id for one in load.unknown}
    for place in range(PLACES):
        told = quality(story, place, load)
        wrong = sum(not one.outcome.correct for one in found.values())
        assert (told["verdicts"], told["wrong"]) == (len(found), wrong)
        safe = sum(one.is_safe for one in load.answered.values())
        assert told["hits"] <= load.hits
        assert safe - told["hits"] <= len(load.answered) - load.hits  # misses are no hits


async def test_reviews_count_once(story: Story, parts: Parts, keys: TenantKeys) -> None:
    load = story.reviewed
    waiting, _ = await parts.judging.reviews.pending(keys, 2000, load.agent_type)
    queued = {one.review.id for one in waiting} | load.judged.keys()
    lost = [load.answered[one] for one in load.served if one not in queued]
    assert [one for one in lost if one.is_safe] == []
    assert not {one.review.id for one in waiting} & load.judged.keys()
    found = await outcomes(parts, keys, load)
    assert len(found) > 5 * KILLS
    assert {name: one.outcome.correct for name, one in found.items()} == load.judged
    assert {one.outcome.source for one in found.values()} == {"review"}
    for place in range(PLACES):
        told = quality(story, place, load)
        assert (told["verdicts"], told["wrong"]) == (len(found), list(load.judged.values()).count(False))


@pytest.mark.parametrize("name", ["exploring", "shadowed"])
async def test_each_fresh_answer_is_compared_once(
    story: Story, parts: Parts, keys: TenantKeys, name: str
) -> None:
    """One that was answered in a process' last second, too, if the agent says it again."""
    load: Comparing = getattr(story, name)
    found = await outcomes(parts, keys, load)
    assert len(found) > 5 * KILLS
    assert {one: load.fresh[one].is_same for one in found} == {
        one: it.outcome.correct for one, it in found.items()
    }
    lost = [load.had(one) for one in load.fresh if one not in found]
    assert [had for had in lost if had > SECOND] == []
    for place in range(PLACES):
        assert story.fleet.told(place, f"/v1/learning?agent_type={name}")["outcomes"] == len(found)


async def test_what_shadow_would_have_served(story: Story, parts: Parts, keys: TenantKeys) -> None:
    load = story.shadowed
    found = await outcomes(parts, keys, load)
    right = sum(one.outcome.correct for one in found.values())
    safe = sum(one.is_safe for one in load.answered.values())
    for place in range(PLACES):
        told = story.fleet.told(place, f"/v1/learning?agent_type={load.agent_type}")["shadow"]
        assert (told["right"], told["wrong"]) == (right, len(found) - right)
        assert safe <= told["hits"] <= len(load.answered)


async def test_moves_are_made_once(story: Story, parts: Parts, keys: TenantKeys) -> None:
    """By two processes at once: each verdict is counted, and each move goes on from the one before."""
    load = story.adapting
    assert load.changed == []
    found = await outcomes(parts, keys, load)
    assert {name: found[name].outcome.correct for name in load.told if name in found} == load.told
    state = await parts.learning.state(keys, load.agent_type)
    assert state is not None
    parts.learning.of(keys, load.agent_type)
    await parts.learning.refresh()
    said = verdicts(parts.learning.of(keys, load.agent_type).said.values())
    assert Counter((one.similarity, one.right) for one in said) == Counter(
        (one.outcome.cosine, one.outcome.correct) for one in found.values()
    )
    assert len(state.moves) >= 2
    assert state.moves[0].before == 0.65
    assert all(one.after == other.before for one, other in pairwise(state.moves))
    assert [one.number for one in state.moves] == list(range(1, len(state.moves) + 1))
    assert all(one.at < other.at for one, other in pairwise(state.moves))
    assert state.moves[-1].after == state.threshold
    for place in range(PLACES):
        told = story.fleet.told(place, f"/v1/learning?agent_type={load.agent_type}")
        assert [one["number"] for one in told["moves"]] == [one.number for one in state.moves]
        assert told["threshold"] == state.threshold


async def test_who_starts_anew_knows_the_same(story: Story) -> None:
    paths = [f"/v1/learning?agent_type={load.agent_type}" for load in story.loads]
    before = [story.fleet.told(0, path) for path in paths]
    story.fleet.kill(*range(PLACES))
    for place in range(PLACES):
        assert [story.fleet.told(place, path) for path in paths] == before
