"""Which answers are the same; a wrong "same" is what must not be."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.cache.canonical import LONGEST_TEXT
from service.cache.comparing import CUT, Answers, Comparing, Verdict, nearly_equal
from service.cache.ports import Embedded
from service.errors import EmbedderError, JudgeAwayError, JudgeError
from service.model import Comparison
from service.telemetry import JUDGE_FAILURES

pytestmark = pytest.mark.anyio

QUESTION = "How long do refunds take?"
SHORT = "Refunds take 5 to 7 days."
LIGHT = "The refunds take 5 to 7 days."


class Near:
    """An embedder to which two texts are as near as it was told."""

    model, revision = "near", "1"
    dim: int | None = 2

    def __init__(self, cosine: float = 1.0, unfit: str | None = None) -> None:
        self.cosine, self._unfit, self.calls = cosine, unfit, 0

    def unfit(self, text: str) -> str | None:
        return "too_long" if text == self._unfit else None

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if self.cosine > 1:
            raise EmbedderError("away")
        assert len(texts) == 2
        return np.array([[1, 0], [self.cosine, np.sqrt(1 - self.cosine**2)]], np.float32)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        raise NotImplementedError


class Said:
    """A judge that says what it was told to."""

    version = "1"
    away = False

    def __init__(self, *, verdict: bool | JudgeError | None) -> None:
        self.verdict = verdict
        self.asked: list[tuple[str, str, str]] = []

    async def same(self, question: str, first: str, second: str) -> bool | None:
        self.asked.append((question, first, second))
        if isinstance(self.verdict, JudgeError):
            raise self.verdict
        return self.verdict


def answers(cached: Any, fresh: Any) -> Answers:
    return Answers(QUESTION, json.dumps(cached).encode(), json.dumps(fresh).encode())


async def verdict(cached: Any, fresh: Any, how: Comparison, near: Near | None = None) -> Verdict:
    return await Comparing(near or Near(), Said(verdict=None)).same(answers(cached, fresh), how)


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {"id": str(id(message)), "choices": [{"message": message, "finish_reason": "stop"}]}


EQUAL: list[tuple[Any, Any]] = [
    (SHORT, f"\r\n{SHORT} \n"),
    ("One.\n\nTwo.", "One. \r\nTwo."),
    ("Caf\u00e9, 5\u00a0days.", "Cafe\u0301,  5 days."),
    ({"a": 1, "b": [1.0, None]}, {"b": [1, None], "a": 1e0}),
    ('{"a": 1, "b": 2}', '{"b":2,"a":1.0}'),
    ('```json\n{"a": 1}\n```', '{"a": 1}'),
    (completion(SHORT), completion(SHORT)),
    (completion(SHORT), SHORT),
    ([], []),
    (5, 5.0),
]
OTHER: list[tuple[Any, Any]] = [
    (SHORT, SHORT.lower()),
    (SHORT, SHORT.replace("7", "8")),
    ("if a:\n  b\nc", "if a:\n  b\n  c"),
    ({"a": 1}, {"a": True}),
    ({"a": 1}, {"a": "1"}),
    ({"a": None}, {}),
    ([1, 2], [2, 1]),
    ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890124}'),
    ({"a": 0.12345678901234567}, {"a": 0.12345678901234568}),
    ('{"a": 1}', {"a": 1}),
    ("5", 5),
]


@pytest.mark.parametrize("pair", EQUAL)
@pytest.mark.parametrize("how", Comparison)
async def test_equal_answers(pair: tuple[Any, Any], how: Comparison) -> None:
    near = Near()
    assert await verdict(*pair, how, near) is Verdict.SAME
    assert await verdict(*pair[::-1], how, near) is Verdict.SAME
    assert near.calls == 0


@pytest.mark.parametrize("pair", OTHER)
async def test_other_answers(pair: tuple[Any, Any]) -> None:
    assert await verdict(*pair, Comparison.EQUAL) is Verdict.DIFFERENT
    assert await verdict(*pair[::-1], Comparison.EQUAL) is Verdict.DIFFERENT


FAILED = [
    "",
    " \n",
    "I'm sorry, but I can't help with that.",
    "Error: 503 Service Unavailable",
    {"error": {"message": "overloaded"}},
    completion(None, refusal="I can't."),
    completion(SHORT) | {"choices": [{"message": {"content": SHORT}, "finish_reason": "length"}]},
]


@pytest.mark.parametrize("failed", FAILED)
@pytest.mark.parametrize("how", Comparison)
async def test_what_failed_is_never_the_same(failed: Any, how: Comparison) -> None:
    judge = Said(verdict=True)
    comparing = Comparing(Near(), judge)
    assert await comparing.same(answers(failed, SHORT), how) is Verdict.DIFFERENT
    assert await comparing.same(answers(SHORT, failed), how) is Verdict.UNKNOWN
    assert await comparing.same(answers(failed, failed), how) is Verdict.UNKNOWN
    assert judge.asked == []


def called(number: int, arguments: str = "{}") -> dict[str, Any]:
    """As each dialect calls a tool; ids and times are others each time."""
    function = {"name": "f", "arguments": arguments}
    return completion(None, tool_calls=[{"id": f"c{number}", "type": "function", "function": function}]) | {
        "created": number
    }


def output(number: int, arguments: str = "{}") -> dict[str, Any]:
    item = {"id": f"fc{number}", "call_id": f"c{number}", "type": "function_call", "name": "f"}
    thought = {"type": "reasoning", "id": f"rs{number}"}
    return {"object": "response", "id": str(number), "output": [thought, item | {"arguments": arguments}]}


def message(number: int, arguments: str = "{}") -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"t{number}", "name": "f", "input": json.loads(arguments)}
    return {"type": "message", "role": "assistant", "id": str(number), "content": [block]}


@pytest.mark.parametrize("how", Comparison)
@pytest.mark.parametrize("calling", [called, output, message])
async def test_calls_of_tools(calling: Any, how: Comparison) -> None:
    """The same calls have other ids each time; what isn't the same counts as different."""
    assert await verdict(calling(1), calling(2), how) is Verdict.SAME
    for other in (calling(2, '{"id": 1}'), SHORT, {"choices": 1}):
        assert await verdict(calling(1), other, how) is Verdict.UNTOLD
    assert await verdict(calling(1, '{"id": 1}'), calling(2, '{"id": 2}'), how) is Verdict.UNTOLD
    one, another = (calling(1, f'{{"a": 0.1234567890123456{at}}}') for at in (7, 8))
    assert await verdict(one, another, how) is Verdict.UNTOLD


async def test_what_only_looks_like_a_providers_answer_is_compared_as_a_whole() -> None:
    for one in ({"choices": [{"name": "x"}]}, {"type": "message", "content": [{"x": 1}]}):
        assert await verdict(one | {"answer": 1}, one | {"answer": 2}, Comparison.EQUAL) is Verdict.DIFFERENT
        assert await verdict(one | {"answer": 1}, one | {"answer": 1}, Comparison.EQUAL) is Verdict.SAME


SIMILAR = [
    (SHORT, LIGHT),
    (SHORT, "Please: refunds take 5 to 7 days!"),
    ("You can cancel it in the app.", "You can simply cancel it in the app"),
    ("- red\n- green", "* red\n* green"),
    ("Don't do that.", "Do not do that."),
    ("Es ist sicher.", "Es ist sicher!"),
]
APART = [
    (SHORT, "Refunds take 5 to 8 days."),
    (SHORT, "Refunds take 5 to 7 weeks."),
    (SHORT, "Refunds do not take 5 to 7 days."),
    (SHORT, "Refunds take almost 5 to 7 days."),
    (SHORT, "International refunds take 5 to 7 days, usually."),
    (SHORT, "Refunds from Paypal take 5 to 7 days."),
    ("Yes.", "No."),
    ("Yes, it is.", "No, it is not."),
    ("It is safe.", "It is unsafe."),
    ("You may return it.", "You must return it."),
    ("You can return it.", "You can return it unless it was worn."),
    ("It is open.", "It was open."),
    ("Take the IC 6 from Bern to Basel.", "Take the IC 6 from Basel to Bern."),
    ("Ann pays Bob.", "Bob pays Ann."),
    ("It costs $5.", "It costs \u20ac5."),
    ("a < b", "a > b"),
    ("It takes 5 mW.", "It takes 5 MW."),
    ("The plant has power.", "The plant has low power."),
    ("Paris", "Lyon"),
    ("Good \U0001f44d", "Good \U0001f44e"),
    ("The refund is 5 euros.", "The refund is 5 euros, 6 euros."),
    ("Ask in the US office.", "Ask in the office."),
    ("The desk is here.", "The desk is located elsewhere."),
    ("Es ist sicher.", "Es ist nicht sicher."),
    ("C'est possible.", "Ce n'est pas possible."),
    ("Es posible.", "No es posible."),
    ("\u9000\u6b3e\u9700\u8981\u4e94\u5929", "\u9000\u6b3e\u4e0d\u9700\u8981\u4e94\u5929"),
    ("Das Licht ist an.", "Das Licht ist."),
]


@pytest.mark.parametrize("pair", SIMILAR)
async def test_similar_answers(pair: tuple[str, str]) -> None:
    assert await verdict(*pair, Comparison.SIMILAR) is Verdict.SAME
    assert await verdict(*pair[::-1], Comparison.SIMILAR) is Verdict.SAME
    assert await verdict(*pair, Comparison.SIMILAR, Near(CUT - 0.01)) is Verdict.DIFFERENT
    assert await verdict(*pair, Comparison.EQUAL) is Verdict.DIFFERENT


@pytest.mark.parametrize("pair", APART)
async def test_answers_with_something_else_in_them(pair: tuple[str, str]) -> None:
    near = Near()
    assert await verdict(*pair, Comparison.SIMILAR, near) is Verdict.DIFFERENT
    assert await verdict(*pair[::-1], Comparison.SIMILAR, near) is Verdict.DIFFERENT
    assert near.calls == 0


@pytest.mark.parametrize(
    "pair",
    [
        ({"a": SHORT}, {"a": LIGHT}),
        (f'{{"a": "{SHORT}"}}', f'{{"a": "{LIGHT}"}}'),
        (SHORT, {"a": SHORT}),
        ("```\nrun it\n```", "```\nrun the\n```"),
        (SHORT, "It is."),
        (SHORT, "\U0001f44d"),
        (SHORT, "too long for the model"),
        ("one " * 400, "two " * 400),
        ("x" * (LONGEST_TEXT + 1), "y"),
    ],
)
async def test_what_is_no_readable_prose_counts_as_different(pair: tuple[Any, Any]) -> None:
    near = Near(unfit="too long for the model")
    assert await verdict(*pair, Comparison.SIMILAR, near) is Verdict.UNTOLD
    assert await verdict(*pair[::-1], Comparison.SIMILAR, near) is Verdict.UNTOLD


async def test_without_an_embedder_it_counts_as_different() -> None:
    assert await verdict(SHORT, LIGHT, Comparison.SIMILAR, Near(2)) is Verdict.UNTOLD


@given(st.text(), st.text())
def test_the_order_does_not_matter(one: str, other: str) -> None:
    assert nearly_equal(one, other) == nearly_equal(other, one)


@pytest.mark.parametrize(
    ("said", "verdict"), [(True, Verdict.SAME), (False, Verdict.DIFFERENT), (None, Verdict.UNTOLD)]
)
async def test_a_judge_is_asked(*, said: bool | None, verdict: Verdict) -> None:
    judge = Said(verdict=said)
    comparing = Comparing(Near(), judge)
    assert await comparing.same(answers(SHORT, "A week."), Comparison.JUDGE) is verdict
    assert await comparing.same(answers({"a": 1}, completion("A week.")), Comparison.JUDGE) is verdict
    assert judge.asked == [(QUESTION, SHORT, "A week."), (QUESTION, '{"a":1e0}', "A week.")]


async def test_a_judge_that_fails_says_that_they_differ() -> None:
    comparing = Comparing(Near(), Said(verdict=JudgeError("too long")))
    assert await comparing.same(answers(SHORT, "A week."), Comparison.JUDGE) is Verdict.UNTOLD


@pytest.mark.parametrize("fresh", [SHORT, "A week."])
async def test_without_a_judge_nothing_is_said_of_equal_answers_either(fresh: str) -> None:
    """Else only those would be heard of, and all seem right."""
    away = Said(verdict=True)
    away.away = True
    for judge in (None, away):
        comparing = Comparing(Near(), judge)
        assert await comparing.same(answers(SHORT, fresh), Comparison.JUDGE) is Verdict.UNKNOWN
    assert away.asked == []
    gone = Comparing(Near(), Said(verdict=JudgeAwayError("just now")))
    assert await gone.same(answers(SHORT, "A week."), Comparison.JUDGE) is Verdict.UNKNOWN


async def test_no_judge_is_counted() -> None:
    none = JUDGE_FAILURES.labels("none")._value.get()
    assert await Comparing(Near(), None).same(answers(SHORT, SHORT), Comparison.JUDGE) is Verdict.UNKNOWN
    assert JUDGE_FAILURES.labels("none")._value.get() == none + 1
