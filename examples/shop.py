"""The shop behind the agent's tools: some data, a clock, and a count of what was asked of it."""

import re
import time
from collections import Counter
from typing import Any

ORDERS: dict[int, dict[str, Any]] = {
    1041: {"customer": "ann", "item": "walking boots", "tracking": "NO-77120"},
    1042: {"customer": "ben", "item": "gas stove", "tracking": "NO-77121"},
    1043: {"customer": "dan", "item": "two-person tent", "tracking": "NO-77188"},
}
PARCELS = {
    "NO-77120": {"place": "delivered, left with a neighbour", "day": "Tuesday"},
    "NO-77121": {"place": "in the sorting centre of Leeds", "day": "Friday"},
    "NO-77188": {"place": "out for delivery", "day": "today"},
}
HANDBOOK = {
    "Shipping": "We ship to Norway, Sweden, Denmark and the UK. It takes 3 to 5 days and costs 6 pounds.",
    "Returns": "Return an item within 30 days, unused. To send it back costs nothing: use our label.",
    "Payment": "Pay by card or bank transfer: we accept both. A return is paid back within 5 days.",
    "Warranty": "Tents, stoves and boots have a warranty of 3 years. A repair takes two weeks.",
}
COMMON = {"a", "and", "are", "can", "do", "for", "in", "is", "it", "of", "the", "to", "we", "what", "you"}

ran: Counter[str] = Counter()
takes_s = 0.0
"""What each of these takes, s."""


def order(customer: str, number: int) -> dict[str, Any]:
    """Raises LookupError: the customer has no such order."""
    _asked("get_order")
    found = ORDERS.get(number)
    if found is None or found["customer"] != customer:
        raise LookupError(f"you have no order {number}")
    return {"number": number, "item": found["item"], "tracking": found["tracking"]}


def parcel(tracking: str) -> dict[str, Any]:
    """Raises LookupError: there is no such parcel."""
    _asked("track_parcel")
    return {"parcel": tracking, **PARCELS[tracking]}


def documents(query: str) -> list[dict[str, Any]]:
    """The two pages of the handbook that share most words with the query, the best first."""
    _asked("search_docs")
    wanted = _words(query)
    best = sorted(HANDBOOK.items(), key=lambda page: -len(wanted & _words(" ".join(page))))
    return [{"title": title, "text": text} for title, text in best[:2]]


def open_return(customer: str, number: int) -> dict[str, Any]:
    """Writes. A second time it is the same return, as with any tool that a model may call twice.

    Raises:
        LookupError: the customer has no such order.
    """
    _asked("create_return")
    if ORDERS.get(number, {}).get("customer") != customer:
        raise LookupError(f"you have no order {number}")
    return {"return": f"R-{number}", "label": f"https://fellfjord.example/labels/R-{number}"}


def _asked(tool: str) -> None:
    ran[tool] += 1
    time.sleep(takes_s)  # as the shop's own API would


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z]+", text.lower())} - COMMON
