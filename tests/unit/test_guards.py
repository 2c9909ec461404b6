"""What may be served."""

import math

import msgspec
import pytest

from service.cache.canonical import Identity
from service.cache.guards import Asked, compared, rejection
from service.model import Candidate, Policy, Record
from tests.helpers import record

ASKED = (
    Identity("id", "tenant", "agent", "scope", "history"),
    Identity("old id", "old tenant", "old agent", "old scope", "old history"),
)


@pytest.mark.parametrize(
    ("similarity", "found", "why"),
    [
        (0.9, record(), None),
        (1.0, record(expires_at=None), None),
        (1.0, record(scope="old scope", history="old history"), None),
        (math.nextafter(0.9, 0), record(), "threshold"),
        (math.nan, record(), "threshold"),
        (1.0, None, "gone"),
        (1.0, record(scope="other"), "scope"),
        (1.0, record(expires_at=1000), "expired"),
        (1.0, record(history="other"), "history"),
        (1.0, record(scope="old scope"), "history"),  # digests of two secrets don't mix
    ],
)
def test_rejection(similarity: float, found: Record | None, why: str | None) -> None:
    asked = Asked(ASKED, None, 0.9, Policy())
    assert rejection(Candidate("id", similarity), found, asked, now=1000) == why


@pytest.mark.parametrize(
    ("question", "messages", "said", "why"),
    [
        ("q", None, None, None),  # the record had no history
        ("q", b"[]", "q", None),
        ("q", b"[]", None, "history"),
        (None, b"[]", "q", "history"),
        (None, None, None, "history"),
    ],
)
def test_another_history_passes_where_both_stand_alone(
    question: str | None, messages: bytes | None, said: str | None, why: str | None
) -> None:
    found = msgspec.structs.replace(record(history="other"), messages=messages, standalone=said)
    asked = Asked(ASKED, question, 0.9, Policy())
    assert rejection(Candidate("id", 1.0), found, asked, now=1000) == why


@pytest.mark.parametrize(
    ("question", "messages", "said", "text"),
    [
        ("q alone", None, None, "and q?"),  # had no history: found by its own words
        ("q alone", b"[]", "the record's q alone", "the record's q alone"),
        (None, b"[]", "the record's q alone", "and q?"),  # of the same history
        ("q alone", b"[]", None, "and q?"),
    ],
)
def test_compared_with_the_text_it_was_found_by(
    question: str | None, messages: bytes | None, said: str | None, text: str
) -> None:
    found = msgspec.structs.replace(record(), text="and q?", messages=messages, standalone=said)
    assert compared(found, Asked(ASKED, question, 0.9, Policy())) == text
