"""How long entries live, over generated times, policies and clocks that jump."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from service.cache.canonical import Query, query
from service.cache.digests import Keyring
from service.cache.lifetime import JITTER, end_of, is_over, lived, ttl_of
from service.model import LookupRequest, Policy, Record, Tenant, TtlRule
from tests.helpers import record

KEYS = Keyring(b"the secret of this test").of(Tenant("acme"))
TTLS = st.none() | st.floats(1, 1e6)
SHARES = st.floats(0, 1)
TIMES = st.integers(0, 10**10)


def asked(prompt: Any) -> Query:
    said = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
    return query(msgspec.convert({"agent_type": "a", **said}, LookupRequest), KEYS, None)


def stored(at: int, ttl_s: float | None, answer: bytes = b"1") -> Record:
    end = None if ttl_s is None else at + round(ttl_s * 1000)
    return msgspec.structs.replace(record(expires_at=end), stored_at=at, response=answer)


@given(st.just(UNSET) | TTLS, TTLS, st.lists(st.tuples(st.sampled_from("abc"), TTLS)), SHARES)
def test_the_request_then_the_first_rule_then_the_policy(
    given_s: Any, ttl_s: float | None, rules: list[tuple[str, float | None]], share: float
) -> None:
    policy = Policy(ttl_s=ttl_s, ttl_rules=[TtlRule(*rule) for rule in rules])
    found = ttl_of(given_s, asked("a or b"), policy, lambda: share)
    if given_s is not UNSET:
        assert found == given_s
        return
    wanted = next((seconds for pattern, seconds in rules if pattern in "a or b"), ttl_s)
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert wanted * (1 - JITTER) <= found <= wanted
        assert found == wanted * (1 - JITTER * share)


def test_rules_read_the_last_user_message() -> None:
    policy = Policy(ttl_s=1, ttl_rules=[TtlRule("^price of é$", 2), TtlRule("image", None)])
    picture = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "which image"}]
    turns = [{"role": "user", "content": "which image"}, {"role": "user", "content": "price of e\u0301 "}]
    for said, ttl_s in (
        ("price of é", 2),
        ("the price of é", 1),
        (turns, 2),
        ([*turns, {"role": "assistant", "content": "image"}], 2),
        ([{"role": "user", "content": picture}], None),
        ([{"role": "user", "content": picture[:1]}], 1),
    ):
        assert ttl_of(UNSET, asked(said), policy, lambda: 0) == ttl_s


@given(
    st.sampled_from([None, 5.0, 100.0]),
    st.lists(
        st.tuples(
            st.integers(-20_000, 60_000),
            st.none() | st.floats(1, 300),
            st.sampled_from([b"1", b"1", b"2"]),
        ),
        min_size=2,
        max_size=8,
    ),
)
def test_nothing_outlives_its_hard_limit(
    max_age_s: float | None, stores: list[tuple[int, float | None, bytes]]
) -> None:
    """Whatever is stored again, and however the clock jumps."""
    policy = Policy(max_age_s=max_age_s)
    before: Record | None = None
    first = 0
    at = 10**6
    for jump, ttl_s, answer in stores:
        at += jump
        alive = before is not None and not is_over(before, policy, at)
        one = lived(stored(at, ttl_s, answer), before if alive else None, policy)
        same = alive and before is not None and before.response == answer
        first = min(first, at) if same else at
        assert one.first_stored_at == first
        if max_age_s is None:
            assert (one.expires_at is None) == (ttl_s is None or (same and _end(before) is None))
        else:
            assert one.expires_at is not None
            assert one.expires_at <= first + round(max_age_s * 1000)
        if same and max_age_s is None:  # never shorter
            assert one.expires_at is None or one.expires_at >= (_end(before) or 0)
        before = one


def _end(one: Record | None) -> int | None:
    return None if one is None else one.expires_at


@given(TIMES, TTLS, TTLS, TIMES)
def test_a_stricter_policy_ends_what_was_stored_before(
    at: int, ttl_s: float | None, max_age_s: float | None, now: int
) -> None:
    one, policy = stored(at, ttl_s), Policy(max_age_s=max_age_s)
    limits = [at + round(each * 1000) for each in (ttl_s, max_age_s) if each is not None]
    assert end_of(one, policy) == min(limits, default=None)
    assert is_over(one, policy, now) == any(limit <= now for limit in limits)


def test_a_record_of_an_older_version_counts_from_its_last_store() -> None:
    assert record().first_stored_at is None
    assert end_of(record(expires_at=None), Policy(max_age_s=2)) == 2000
