import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.patterns import LONGEST_TEXT, compiled
from service.errors import InvalidInputError


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("price", "What is the price of it?", True),
        ("price", "What is the PRICE of it?", False),
        ("(?i)price", "What is the PRICE of it?", True),
        ("^price$", "the price", False),
        (r"\bpreis\b", "Was ist der preis?", True),
        (r"\p{Greek}+", "τι είναι", True),
        (r"(?i)\p{L}+", "τι είναι", True),
        ("é", "caf\u00e9", True),
        ("a\0b", "a\0b", True),
        ("x$", "y" * LONGEST_TEXT + "x", False),
    ],
)
def test_they_are_found_anywhere(pattern: str, text: str, found: bool) -> None:  # noqa: FBT001 - a table
    assert compiled("f", pattern).matches(text) is found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "1 to 512"),
        ("a" * 513, "1 to 512"),
        ("(", "missing"),
        (r"(a)\1", "invalid escape"),
        ("(?=a)", "invalid perl operator"),
        ("a{1001}", "repetition"),
        ("((a{100}){10}){10}", "large|repetition"),
        (r"\p{L}{20}", "too large"),
        ("(?:[ab]{500}c){9}", "large|repetition"),
    ],
)
def test_what_is_no_pattern_or_too_large_is_said(pattern: str, why: str) -> None:
    for _ in range(2):  # also from the cache
        with pytest.raises(InvalidInputError, match=f"(?i){why}") as raised:
            compiled("bypass[0].pattern", pattern)
        assert raised.value.field == "bypass[0].pattern"


@given(st.text(max_size=40), st.text(max_size=200))
def test_anything_is_a_pattern_or_a_400(pattern: str, text: str) -> None:
    try:
        pattern.encode()
        text.encode()
    except UnicodeEncodeError:  # JSON of a request has no such
        return
    try:
        one = compiled("f", pattern)
    except InvalidInputError:
        return
    assert one.matches(text) in {True, False}


def test_a_pattern_is_compiled_once() -> None:
    assert compiled("a", "once only") is compiled("b", "once only")
