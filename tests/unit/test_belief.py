"""Which rewritings are believed; equal ones are served without another look."""

import pytest

from service.cache.standalone import stands_alone
from service.model import Message
from service.providers.gate import ProviderError
from service.rewriters.belief import MOST_CHARS, believed

BEFORE = ("A hotel in Paris for 2, on 5 May.", "Hotel Zola has rooms.\nShall I book one?")


def made(said: str | None, asked: str, before: tuple[str, ...] = BEFORE) -> str:
    messages = [Message(role="user", content=text) for text in (*before, asked)]
    return believed(said, messages, asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("yes", "Book a room at Hotel Zola in Paris."),
        ("and what does it cost?", "What does a room at Hotel Zola in Paris cost?"),
        ("and the 6th?", "Does Hotel Zola have rooms on the 6th?"),
        ("How do I reset my password?", "How do I reset my password?"),
        ("How do I reset my password", '"How can I reset my password?"'),
        ("I can't find it", "I can't find Hotel Zola in Paris."),
        ("Could you provide it for her?", "Could you provide the Hotel Zola for Paris?"),
        ("and its roots?", "What are Hotel Zola's roots and what influenced it?"),
        ("yes", "Book 2 rooms for 5 May."),
    ],
)
def test_what_is_believed(asked: str, said: str) -> None:
    assert made(said, asked) == said.strip('"')


def test_in_other_languages() -> None:
    german = ("Ein Hotel in Paris.", "Das Hotel Zola hat Zimmer.")
    line = "Was kostet ein Zimmer im Hotel Zola in Paris?"
    assert made(line, "und was kostet das?", german) == line
    chinese = ("巴黎的酒店", "巴黎有左拉酒店")
    assert made("巴黎的左拉酒店多少钱?", "多少钱?", chinese) == "巴黎的左拉酒店多少钱?"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("yes please", "Yes, please."),
        ("yes please", "Yes. Please!"),
        ("what does it cost", "What does it cost?"),
        ("what does it cost", "  WHAT DOES IT COST "),
        ("what does it cost", "What will it cost?"),
        *(
            (text, text)
            for text in ("Paris", "the 5th", "How much?", "2", "premium", "Tuesday", "und das?", "多少钱")
        ),
        ("Paris", "In Paris."),
        ("premium", "The premium plan"),
    ],
)
def test_one_that_says_no_more_has_to_stand_alone(asked: str, said: str) -> None:
    assert not stands_alone(said)
    with pytest.raises(ProviderError, match="as it was"):
        made(said, asked)


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m sorry, I can\u2019t help with booking hotels in Paris.",
        "Please provide the conversation so that I can rewrite the message.",
        "Could you clarify which hotel in Paris you mean?",
        "Which hotel do you mean, Zola?",
        "What would you like to know about Hotel Zola in Paris?",
        "Sure, Hotel Zola in Paris.",
        "Here is the rewritten message: book Hotel Zola in Paris.",
        "There is no conversation about a hotel.",
    ],
)
def test_one_that_declines_or_asks_back_is_refused(said: str) -> None:
    with pytest.raises(ProviderError, match="declined"):
        made(said, "yes")


@pytest.mark.parametrize(
    "said",
    [
        "The message is unclear without further context.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Yes, go ahead.",
        "Order two large pizzas with olives.",
        "Book room 41 on 7 June, 2031.",
    ],
)
def test_one_that_tells_what_nobody_said_is_refused(said: str) -> None:
    with pytest.raises(ProviderError, match="nobody said"):
        made(said, "yes")


def test_what_a_tool_was_called_with_and_answered_was_said() -> None:
    called = Message(
        role="assistant", tool_calls=[{"function": {"arguments": '{"name": "Adlon", "beds": 3}'}}]
    )
    answered = Message(role="tool", content=[{"type": "text", "text": "Unter den Linden, Berlin"}])
    asked = Message(role="user", content="yes")
    for line, told in {"3 beds in the Adlon": called, "Unter den Linden, Berlin": answered}.items():
        assert believed(line, [told, asked], "yes") == line
        with pytest.raises(ProviderError, match="nobody said"):
            believed(line, [asked], "yes")


def test_one_that_points_back_first_is_refused() -> None:
    with pytest.raises(ProviderError, match="refers"):
        made("What does it cost at Hotel Zola?", "and what does it cost?")


@pytest.mark.parametrize(
    "said", [None, "", ' "" ', "Hotel Zola\nin Paris", "Hotel Zola\u2028in Paris", "Zola " * MOST_CHARS]
)
def test_it_is_one_line(said: str | None) -> None:
    with pytest.raises(ProviderError, match="single line"):
        made(said, "yes")
