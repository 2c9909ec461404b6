"""What is near enough is read before it is served."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.api.auth import operator
from service.cache.decided import UNIT
from service.cache.decisions import decided
from service.cache.digests import TenantKeys
from service.cache.lookup import Lookup
from service.cache.policy import UNVERIFIED
from service.cache.question import VERIFIED
from service.errors import VerifierError
from service.model import Decision, Head, Hit, Miss, Policy, Reason
from service.settings import Settings
from service.wiring import Loaded, Parts, now_ms, opened
from tests.helpers import Same, asked, keep, look, near, vector

pytestmark = pytest.mark.anyio

SEMANTIC = {"tiers": ["semantic"]}


class Reader:
    """A verifier that believes what it is told, and remembers what it read."""

    version, cut = "weights 1", 0.5

    def __init__(self, scores: dict[str, float | None] | None = None) -> None:
        self.told = scores or {}
        self.read: list[tuple[str, str]] = []

    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        self.read += pairs
        return [self.told[cached] for _, cached in pairs]


class Broken(Reader):
    async def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        raise VerifierError(f"{len(pairs)} too many")


def reading(parts: Parts, verifier: Reader | None, policy: Policy | None = None) -> Parts:
    lookup = Lookup(
        parts.responses,
        parts.embedder,
        embeddings=parts.embeddings,
        verifier=verifier,
        policies=Same(policy or Policy()),
        rewriting=parts.lookup._rewriting,
        leases=parts.leases,
        uses=parts.lookup._uses,
        clock=now_ms,
        redis_s=5,
    )
    return replace(parts, lookup=lookup)


@pytest.fixture
def keys(parts: Parts) -> TenantKeys:
    return parts.keyring.of(operator("acme"))


@pytest.fixture
async def three(parts: Parts, keys: TenantKeys) -> Parts:
    """Entries at 0.98, 0.96 and 0.94 of the question's vector."""
    for text, cosine in (("first", 0.98), ("second", 0.96), ("third", 0.94)):
        await keep(parts, keys, prompt=text, response=f'"{text}"', embedding=near(1, cosine))
    return parts


ASKED = {"prompt": "asked", "embedding": vector(1), **SEMANTIC}


async def test_the_nearest_that_passes_is_served(three: Parts, keys: TenantKeys) -> None:
    reader = Reader({"first": 0.4, "second": 0.6})
    answer = await look(reading(three, reader), keys, **ASKED, explain=True)
    assert isinstance(answer, Hit)
    assert bytes(answer.response) == b'"second"'
    assert reader.read == [("asked", "first"), ("asked", "second")]
    assert isinstance(answer.decision, Decision)
    assert "verify" in answer.decision.stages_ms
    seen = [(c.rejected_by, c.verdicts.get("verifier"), c.verifier_score) for c in answer.decision.candidates]
    assert seen == [("verifier", False, 0.4), (None, True, 0.6), (None, None, None)]


async def test_a_hit_at_once_reads_one(three: Parts, keys: TenantKeys) -> None:
    reader = Reader({"first": 0.5})
    assert isinstance(await look(reading(three, reader), keys, **ASKED), Hit)
    assert len(reader.read) == 1


async def test_only_the_nearest_few_are_read(three: Parts, keys: TenantKeys) -> None:
    reader = Reader({"first": 0.1, "second": 0.1, "third": 0.9})
    answer = await look(reading(three, reader), keys, **ASKED)
    assert isinstance(answer, Miss)
    assert (answer.reason, answer.rule) == (Reason.GUARD, "verifier")
    assert len(reader.read) == VERIFIED


async def test_what_is_too_long_to_read_is_not_served(three: Parts, keys: TenantKeys) -> None:
    reader = Reader({"first": None, "second": None})
    assert isinstance(await look(reading(three, reader), keys, **ASKED), Miss)
    trusting = Policy(verifier_head=Head(version="weights 1", bias=50, logit=0, similarity=500))
    assert isinstance(await look(reading(three, reader, trusting), keys, **ASKED), Miss)


async def test_a_broken_verifier_makes_misses(three: Parts, keys: TenantKeys) -> None:
    answer = await look(reading(three, Broken()), keys, **ASKED)
    assert isinstance(answer, Miss)
    assert (answer.reason, answer.rule) == (Reason.DEGRADED, "verifier")


async def test_what_is_explored_keeps_its_score(three: Parts, keys: TenantKeys) -> None:
    """What is learned of it is learned at the score that it is served at later."""
    own = reading(three, Reader({"first": 0.6}), Policy(mode="verified"))
    question = asked(keys, own, **ASKED)
    (answer,) = await own.lookup.answer([question], keys)
    found = decided(question, answer, 1)
    assert found.outcome is Reason.EXPLORE
    assert found.score == round(0.6 * UNIT)


async def test_nothing_near_nothing_read(three: Parts, keys: TenantKeys) -> None:
    reader = Reader()
    assert isinstance(
        await look(reading(three, reader), keys, prompt="asked", embedding=near(1, -0.5), **SEMANTIC), Miss
    )
    assert reader.read == []


@pytest.mark.parametrize(
    ("cached", "read"),
    [("asked", 0), ("ASKED", 0), ("  Äskéd ", 0), ("asked?", 1), ("as ked", 1)],
)
async def test_the_same_words_are_not_read(parts: Parts, keys: TenantKeys, cached: str, read: int) -> None:
    reader = Reader({cached.strip(): 0.6})
    own = reading(parts, reader, Policy(guards={"entities": False}))
    await keep(parts, keys, prompt=cached, temperature=1, embedding=near(1, 0.9))
    assert isinstance(await look(own, keys, **ASKED), Hit)
    assert len(reader.read) == read


async def test_what_has_the_callers_own_vector_is_not_read(parts: Parts, keys: TenantKeys) -> None:
    """Who gives vectors says what is equal; that the embedder's are doesn't say it: it is blind to case."""
    reader = Reader({"other": 0.1, "5 mW in W": 0.1})
    own = reading(parts, reader)
    await keep(parts, keys, prompt="other", embedding=vector(1))
    assert isinstance(await look(own, keys, **ASKED), Hit)
    assert reader.read == []
    await keep(parts, keys, prompt="5 mW in W")
    lax = reading(parts, reader, Policy(guards={"units": False}))
    assert isinstance(await look(lax, keys, prompt="5  mW in W ?", **SEMANTIC), Miss)
    assert len(reader.read) == 1


async def test_a_policy_may_do_without(three: Parts, keys: TenantKeys) -> None:
    """Then the default threshold is stricter, for nobody reads what is near enough."""
    reader = Reader()
    off = Policy(guards={"verifier": False})
    answer = await look(reading(three, reader, off), keys, **ASKED)
    assert isinstance(answer, Hit)
    assert (answer.threshold, reader.read) == (UNVERIFIED, [])
    none = await look(reading(three, None), keys, **ASKED)
    assert isinstance(none, Hit)
    assert none.threshold == UNVERIFIED
    counted_on = await look(reading(three, None, Policy(threshold=0.6, verifier_cut=0.9)), keys, **ASKED)
    assert isinstance(counted_on, Hit)
    assert counted_on.threshold == UNVERIFIED
    without = Policy(threshold=0.6, guards={"verifier": False})
    own = await look(reading(three, None, without), keys, **ASKED)
    assert isinstance(own, Hit)
    assert own.threshold == 0.6
    asked = await look(reading(three, reader, off), keys, **ASKED, threshold=0.5)
    assert isinstance(asked, Hit)
    assert asked.threshold == 0.5


@pytest.mark.parametrize(
    ("policy", "hits"),
    [
        (Policy(verifier_cut=0.7), False),
        (Policy(verifier_cut=0.6), True),
        (Policy(verifier_head=Head(version="weights 1", bias=-5, logit=1, similarity=0)), False),
        (Policy(verifier_head=Head(version="weights 1", bias=0, logit=1, similarity=0)), True),
        # Fitted to other weights: neither the head nor the cut that belongs to it counts.
        (Policy(verifier_head=Head(version="old", bias=-5, logit=1, similarity=0), verifier_cut=0.9), True),
        (Policy(verifier_version="weights 1", verifier_cut=0.7), False),
        (Policy(verifier_version="old", verifier_cut=0.7), True),
    ],
)
async def test_the_policys_own_cut_and_head(
    three: Parts, keys: TenantKeys, policy: Policy, *, hits: bool
) -> None:
    reader = Reader({"first": 0.65, "second": 0.1})
    assert isinstance(await look(reading(three, reader, policy), keys, **ASKED), Hit) is hits


async def test_explain_shows_the_cut_in_force(three: Parts, keys: TenantKeys) -> None:
    for policy, cut in (
        (Policy(), Reader.cut),
        (Policy(verifier_cut=0.7), 0.7),
        (Policy(verifier_cut=0.7, verifier_version="old"), Reader.cut),
    ):
        reader = Reader({"first": 0.1, "second": 0.1})
        miss = await look(reading(three, reader, policy), keys, **ASKED, explain=True)
        assert isinstance(miss.decision, Decision)
        assert miss.decision.policy is not None
        assert miss.decision.policy.verifier_cut == cut
        assert miss.decision.policy.threshold == miss.decision.threshold


async def test_what_cannot_be_read_reaches_no_cut(three: Parts, keys: TenantKeys) -> None:
    reader = Reader({"first": None, "second": None})
    assert isinstance(await look(reading(three, reader, Policy(verifier_cut=0)), keys, **ASKED), Miss)


async def test_a_head_weighs_the_similarity_of_what_was_read(three: Parts, keys: TenantKeys) -> None:
    """The second candidate's is 0.96: by the first one's 0.98 it would pass."""
    head = Head(version="weights 1", bias=-48.5, logit=0, similarity=50)  # passes from 0.97
    reader = Reader({"first": None, "second": 0.5})
    assert isinstance(await look(reading(three, reader, Policy(verifier_head=head)), keys, **ASKED), Miss)
    laxer = Head(version="weights 1", bias=-47.5, logit=0, similarity=50)  # from 0.95
    assert isinstance(await look(reading(three, reader, Policy(verifier_head=laxer)), keys, **ASKED), Hit)


async def test_a_very_long_text_is_not_compared(parts: Parts, keys: TenantKeys) -> None:
    """Also with a vector, and with the reading switched off."""
    lax = reading(parts, None, Policy(threshold=0.5, guards={"verifier": False}))
    for length, tiers in ((8192, ["exact", "semantic"]), (8193, ["exact"])):
        stored = await keep(parts, keys, prompt="x" * length, embedding=vector(1))
        assert [tier.value for tier in stored.tiers] == tiers
    answer = await look(lax, keys, prompt="y" * 8193, embedding=vector(1), tiers=["semantic"])
    assert isinstance(answer, Miss)
    assert (answer.reason, answer.rule) == (Reason.POLICY, "too_long")
    assert isinstance(await look(lax, keys, prompt="y" * 8192, embedding=vector(1), tiers=["semantic"]), Hit)


async def test_the_shipped_verifier_is_in_the_service(parts: Parts, keys: TenantKeys) -> None:
    await keep(parts, keys, prompt="How do I enable 2FA?", response="1")
    trap = await look(parts, keys, prompt="How do I disable 2FA?", explain=True)
    assert isinstance(trap, Miss)
    assert trap.reason is Reason.GUARD
    reworded = await look(parts, keys, prompt="how can I enable 2FA")
    assert isinstance(reworded, Hit)


async def test_it_can_be_switched_off(settings: Settings, models: Loaded) -> None:
    off = replace(settings, verifier="off")
    assert off.redis_url is not None
    async with opened(off, off.redis_url, models) as parts:
        assert parts.lookup._verifier is None
