"""What customers say."""

from typing import NamedTuple


class Conversation(NamedTuple):
    """Of one customer, one message after the other; and the same again in other words."""

    customer: str
    says: list[str]
    reworded: list[str]


CONVERSATIONS = [
    Conversation(
        "ann",
        [
            "Where is my order 1041?",
            "What does it cost to send something back?",
            "Then please open a return for order 1041.",
        ],
        [
            "Can you tell me where my order 1041 is?",
            "How much do I pay to send something back?",
            "OK, please create a return for order 1041.",
        ],
    ),
    Conversation("ben", ["Do you ship to Norway?"], ["Can you ship to Norway?"]),
    Conversation("cleo", ["What are your opening hours?"], ["What are the opening hours of your shop?"]),
    Conversation(
        "dan",
        ["What are your opening hours?", "Where is order 1043?"],
        ["When are you open?", "Where is my order 1043 now?"],
    ),
    Conversation("eva", ["How can I reach you by phone?"], ["How do I reach you by phone?"]),
    Conversation(
        "fay",
        ["Do you ship to Norway?", "Which payments do you accept?"],
        ["Do you deliver to Norway?", "What can I pay with?"],
    ),
    Conversation(
        "gus",
        ["How do I subscribe to your newsletter?"],
        ["How can I subscribe to your newsletter?"],
    ),
    Conversation(
        "hal",
        ["How do I subscribe to your newsletter?"],
        ["How do I unsubscribe from your newsletter?"],  # looks alike, and needs another answer
    ),
    Conversation("ben", ["Where is my order 1042?"], ["Where's my order 1042?"]),
]
