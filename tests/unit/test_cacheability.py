"""The kinds of questions that a policy can keep away from the cache."""

from typing import get_args

import pytest

from bench.cacheability import labelled, rates
from service.cache.cacheability import END, is_of
from service.model import Kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write a poem about the sea", "creative"),
        ("WRITE A POEM", "creative"),
        ("Hi, could you please write me a short story?", "creative"),
        ("What time is it in Tokyo?", "time_sensitive"),
        ("What\u2019s the weather like in Paris?", "time_sensitive"),
        ("latest version of redis", "time_sensitive"),
        ("Who is the current CEO of Twitter?", "time_sensitive"),
        ("who has the most goals in the premier league", "time_sensitive"),
        ("What is my balance?", "personal"),
        ("Hello! Where is my order?", "personal"),
        ("cancel my subscription please", "personal"),
    ],
)
def test_of_a_kind(text: str, kind: Kind) -> None:
    assert is_of(kind, text)
    assert not any(is_of(other, text) for other in get_args(Kind) if other != kind)


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my password?",
        "Where can I find my invoice?",
        "What happens if my payment fails?",
        "Write a function that reverses a string",
        "What is a haiku?",
        "How does alternating current work?",
        "How do I get the current date in JavaScript?",
        "Who won the World Cup in 2014?",
        "who scored the most goals in the premier league in 2012",
        "What is the price of the Pro plan?",
        "",
        "¿Cómo cambio mi contraseña?",
    ],
)
def test_of_none(text: str) -> None:
    assert not any(is_of(kind, text) for kind in get_args(Kind))


def test_of_a_long_text_both_ends_are_read() -> None:
    filling = "Lorem ipsum dolor. " * END
    assert is_of("personal", f"{filling} Where is my order?")
    assert is_of("creative", f"Write a poem about this: {filling}")
    assert not is_of("personal", f"{filling} Where is my order? {filling}")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_figures_on_the_first_list_stay(kind: Kind) -> None:
    found = rates(kind, labelled(kind, "first"))
    assert found["recall"] >= 85
    assert found["precision"] >= 90
