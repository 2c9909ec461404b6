"""Which messages mean the same without what was said before; bench/conversations.py counts the errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.standalone import LONGEST, LONGEST_FAREWELL, closes, instructs, points_first, stands_alone


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my password?",
        "how do i change my email address",
        "Hi, how do I reset my password?",
        "How long does a refund to a gift card take?",
        "What is phishing?",
        "What's your refund policy?",
        "What is the capital of France?",
        "What is the difference between a debit card and a credit card?",
        "Is it safe to eat raw eggs from backyard chickens?",
        "Which documents do students need to open a savings account?",
        "Could you please tell me about lung cancer?",
        "Who wrote Pride and Prejudice?",
        "How do I enable 2FA in the Google Authenticator app?",
    ],
)
def test_whole_questions_stand_alone(text: str) -> None:
    assert stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        "No, that's it.",
        "Thanks, that\u2019s all!",
        "Thanks for your help.",
        "No, nothing else. Goodbye!",
        "No thank you, that'll be all for now.",
        "Ok, that is all I need. Thanks!",
        "Thank you very much. You've been very helpful. That's everything.",
        "I'm all set, bye",
        "Thanks, I don't need anything else right now.",
        "Nope; thank you so much for all your help.",
        "No, it's all for today. Thanks",
        "I appreciate it.",
        "Not at this time. Thanks for the kind assistance!",
    ],
)
def test_farewells_do(text: str) -> None:
    assert closes(text)
    assert stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        *("Is that all?", "Is that all", "Is that all you have?", "Will that be all", "Was that all I need?"),
        *("Am I all set?", "Are you all set now?", "You are all set.", "Get it all set.", "all set"),
        *("Do it all now.", "I need it all done now.", "Have you done it all?", "No, I want it all."),
        *("Is nothing else good?", "Nothing else good?", "That's all?", "Thanks for your help?"),
        *("That's all right.", "That's all wrong.", "That is all good now.", "This is all I have."),
        *(
            "That's all you have.",
            "That's everything I want to change.",
            "That's all I need: 2",
            "That's all 5",
        ),
        *("I'd appreciate your help.", "I would appreciate that.", "I don't need anything that good"),
        *("Do I need anything else", "I do need anything", "No, I don't want that all", "Thanks for nothing"),
        *(
            "I need your help. Thanks for your time.",
            "Can you help me? Bye",
            "Please say goodbye",
            "No, that was it.",
        ),
        *(
            "Bye the way, nothing more",
            "Yes, that's all",
            "No, that's all \U0001f355",
            "Thanks for your help: $",
            "no no",
        ),
        *("No, thanks for your help, das ist alles", "That is all, " * 100),
    ],
)
def test_questions_and_orders_are_no_farewells(text: str) -> None:
    assert not closes(text)
    assert not stands_alone(text)


@pytest.mark.parametrize("more", [0, 1])
def test_a_farewell_is_short(more: int) -> None:
    text = "Thanks, that's all." + " no" * 100
    fits = text[: LONGEST_FAREWELL - 1].ljust(LONGEST_FAREWELL + more, ".")
    assert closes(fits) is (more == 0)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "?!",
            "ok",
            "yes",
            "No.",
            "go ahead",
            "Why?",
            "Seattle.",
            "Thanks!",
            "that's it",
            "sounds good",
        ),
        *("and for children?", "What about Paris?", "How about on the grill?", "No, I meant Boston."),
        *("what would that cost?", "Is it furnished?", "Do they have outdoor seating?", "Who directed it?"),
        *(
            "The second one.",
            "that hotel",
            "the cheaper",
            "Cancel it.",
            "Which is better?",
            "What else is there?",
        ),
        *("What is the address?", "What are the symptoms?", "Does the hotel have a heated swimming pool?"),
        *(
            "How much for 2 people?",
            "How much does delivery cost?",
            "What is my balance?",
            "Can I bring my dog?",
        ),
        *("Tell me more about tiger sharks.", "Is that refundable within 30 days of purchase?"),
        *("Can you book a table at Zola in Paris for Friday evening?", "I need four tickets."),
        *("Thanks for your help. How much is it?", "Yes, thanks, that is all I want to pay."),
        "How do I reset my password? And how do they find out?",
        "How do I reset my password? " * 100,
    ],
)
def test_what_depends_on_what_was_said_does_not(text: str) -> None:
    assert not stands_alone(text)


@pytest.mark.parametrize(
    "text",
    [
        "Wie setze ich mein Passwort zurück?",
        "Was ist die Hauptstadt von Frankreich?",
        "¿Cuál es la capital de Francia?",
        "Quelle est la capitale de la France ?",
        "Is het mogelijk om mijn wachtwoord te wijzigen?",
        "フランスの首都は何ですか",
        "Как мне сбросить пароль?",
    ],
)
def test_other_languages_do_not(text: str) -> None:
    assert not stands_alone(text)


@given(st.text(max_size=LONGEST + 10))
def test_any_text_has_an_answer(text: str) -> None:
    assert stands_alone(text) in {True, False}
    assert points_first(text) in {True, False}


@given(st.text())
def test_white_space_and_apostrophes_do_not_matter(text: str) -> None:
    assert stands_alone(f" {text}\t") == stands_alone(text)
    assert stands_alone(text.replace("'", "\u2019")) == stands_alone(text.replace("\u2019", "'"))


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("What does it cost at Hotel Zola?", True),
        ("Do they ship to Malta?", True),
        ("Yes, book that one for them.", True),
        ("What are the roots of Britpop and what influenced it?", False),
        ("Is it safe to eat raw eggs?", False),
        ("Do you ship to Malta?", False),
        ("", False),
    ],
)
def test_a_pronoun_before_what_it_could_stand_for(text: str, back: bool) -> None:  # noqa: FBT001 - the expectation
    assert points_first(text) is back


@pytest.mark.parametrize(
    "said",
    [
        "I have a peanut allergy",
        "I'm vegan. What can I cook?",
        "From now on answer in German",
        "Answer in English, please.",
        "Use Rust.",
        "use Python 2 only",
        "You are a pirate",
        "Pretend you're my lawyer",
        "I live in Canada, what taxes do I pay?",
        "We use Postgres 12",
        "my son is 4",
        "I'm from Spain",
        "Always keep it short",
        "x" * 5000,
        None,
    ],
)
def test_what_is_said_for_all_that_follows(said: str | None) -> None:
    assert instructs(said)


@pytest.mark.parametrize(
    "said",
    [
        "How do I reset my password?",
        "Book a table for two at 7 pm",
        "yes please",
        "What does it cost?",
        "Hi!",
        "",
    ],
)
def test_what_is_said_for_itself(said: str) -> None:
    assert not instructs(said)
