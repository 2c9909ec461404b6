"""What a policy asks for over similarities that it was not chosen for."""

import msgspec
import pytest

from service.cache.policy import UNVERIFIED, counting
from service.model import Generation, Head, Policy

NOW = Generation(
    number=2,
    index="2",
    space="2",
    model="m",
    revision="2",
    dim=3,
    datatype="float16",
    threshold=0.7,
    placed=True,
)
BEFORE = ("m", "1", 3)


def test_as_it_is_over_its_own_model() -> None:
    policy = Policy(threshold=0.2, verifier_cut=0.1)
    assert counting(policy, NOW.embedding, NOW) is policy
    assert counting(policy, BEFORE, msgspec.structs.replace(NOW, revision="1", number=3)) is policy


@pytest.mark.parametrize(("own", "counts"), [(None, None), (0.2, 0.7), (0.7, 0.7), (0.9, 0.9)])
def test_only_as_far_as_it_is_stricter(own: float | None, counts: float | None) -> None:
    assert counting(Policy(threshold=own), BEFORE, NOW).threshold == counts


@pytest.mark.parametrize(("own", "counts"), [(0.2, UNVERIFIED), (0.8, UNVERIFIED), (0.97, 0.97)])
def test_what_did_without_the_verifier_does_no_longer(own: float, counts: float) -> None:
    policy = Policy(threshold=own, guards={"verifier": False})
    assert counting(policy, BEFORE, NOW).threshold == counts


def test_what_weighs_similarities_doesnt_count() -> None:
    head = Head(version="v", bias=0.0, logit=1.0, similarity=9.0)
    policy = Policy(verifier_head=head, verifier_cut=0.1, ttl_s=7)
    assert counting(policy, BEFORE, NOW) == Policy(ttl_s=7)
    assert counting(Policy(verifier_cut=0.1), BEFORE, NOW) == Policy(verifier_cut=0.1)
