"""What another policy would have made of a decision."""

import pytest

from service.cache.decided import PLACES, UNIT, Decided
from service.cache.learning.replay import Now, fate, replayed
from service.model import Origin, OwnPattern, Policy, Reason, Tier
from service.replay import left_out, table


def decided(outcome: Origin | Reason, similarity: float = 0.8, **more: object) -> Decided:
    fields = {"entry_id": bytes(16), "score": round(0.9 * UNIT)} | more
    return Decided(bytes(16), PLACES[outcome], similarity=round(similarity * UNIT), **fields)  # type: ignore[arg-type] # a test's


@pytest.mark.parametrize(
    ("one", "policy", "threshold", "cut", "now"),
    [
        (decided(Origin.EXACT, 1.0), Policy(), 0.9, 0.5, Now.HIT),
        (decided(Origin.MEMORY, 1.0), Policy(tiers=(Tier.SEMANTIC,)), 0.9, 0.5, Now.MISS),
        (decided(Origin.EXACT, 1.0), Policy(shadow=True), 0.9, 0.5, Now.MISS),
        (decided(Origin.SEMANTIC), Policy(), 0.7, 0.5, Now.HIT),
        (decided(Origin.SEMANTIC), Policy(), 0.8, 0.5, Now.HIT),
        (decided(Origin.SEMANTIC), Policy(), 0.85, 0.5, Now.MISS),
        (decided(Origin.SEMANTIC), Policy(), 0.7, 0.95, Now.MISS),
        (decided(Origin.SEMANTIC, score=None), Policy(), 0.7, 0.95, Now.HIT),
        (decided(Reason.GUARD, rule="verifier"), Policy(), 0.7, 0.95, Now.MISS),
        (decided(Reason.GUARD, rule="verifier"), Policy(), 0.7, 0.85, Now.HIT),
        (decided(Reason.GUARD, rule="verifier"), Policy(), 0.7, None, Now.HIT),
        (decided(Reason.GUARD, rule="numbers"), Policy(), 0.7, 0.5, Now.MISS),
        (decided(Reason.GUARD, rule="numbers"), Policy(guards={"numbers": False}), 0.7, 0.5, Now.UNKNOWN),
        (decided(Reason.GUARD, rule="history"), Policy(), 0.7, 0.5, Now.MISS),
        (decided(Reason.BELOW_THRESHOLD, 0.6), Policy(), 0.7, 0.5, Now.MISS),
        (decided(Reason.BELOW_THRESHOLD, 0.6), Policy(), 0.5, 0.5, Now.UNKNOWN),
        (decided(Reason.EMPTY, entry_id=None), Policy(), 0.5, 0.5, Now.MISS),
        (decided(Reason.EXPLORE), Policy(), 0.7, 0.5, Now.HIT),
        (decided(Reason.POLICY, rule="shadow"), Policy(), 0.7, 0.5, Now.HIT),
        (decided(Reason.POLICY, rule="creative"), Policy(), 0.7, 0.5, Now.UNKNOWN),
    ],
)
def test_fate(one: Decided, policy: Policy, threshold: float, cut: float | None, now: Now) -> None:
    assert fate(one, policy, threshold, cut) is now


def test_verdicts_are_counted_then_and_now() -> None:
    some = [
        Decided(bytes([at]) * 16, PLACES[Origin.SEMANTIC], bytes(16), round(similarity * UNIT))
        for at, similarity in enumerate((0.7, 0.8, 0.9, 0.95))
    ]
    correct = {some[0].lookup_id: False, some[1].lookup_id: True, some[3].lookup_id: True}
    found = replayed(some, correct, Policy(), 0.75, None)
    assert found == (4, 4, 3, 0, 2, 1, 2, 0)


def test_what_is_not_gone_by_is_told() -> None:
    policy = Policy(mode="adaptive", threshold=0.9, decisions_s=5, bypass=[OwnPattern("x")])
    assert left_out(policy) == ["bypass", "mode"]
    found = replayed([], {}, policy, 0.9, None)
    assert "not gone by  bypass, mode" in table(found, policy)
    assert "not gone by" not in table(found, Policy(threshold=0.9))
