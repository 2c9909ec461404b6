"""Make docs/reviews.png anew: `python -m tests.browser.picture docs/reviews.png`. Some 20 seconds."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from bench.processes import served
from tests.browser.chromium import Page, browser
from tests.browser.hits import ok, queued, sample

WIDTH, HEIGHT = 1200, 800
ASKED: list[tuple[str, str, str, Any]] = [
    (
        "support",
        "How do I reset my password?",
        "How can I reset my password?",
        {
            "answer": "Open Settings, then Security, and choose Reset password. We send you a link.",
            "link_valid_for": "30 minutes",
            "steps": ["Settings", "Security", "Reset password"],
            "see_also": ["two-factor authentication", "signing out everywhere"],
        },
    ),
    (
        "support",
        "How do I change the email address of my account?",
        "How can I change my account's email address?",
        "Settings, Account, Email address. The new address must be confirmed before it is used.",
    ),
    (
        "billing",
        "Where can I find my invoices?",
        "Where do I find my invoices?",
        "Billing, Invoices. Each can be downloaded as a PDF.",
    ),
    (
        "billing",
        "How do I cancel my subscription?",
        "How can I cancel my subscription?",
        "Billing, Plan, Cancel. It runs until the end of the month that is paid.",
    ),
    (
        "support",
        "How do I export my data?",
        "How can I export my data?",
        "Settings, Privacy, Export. It takes up to an hour; we send a link.",
    ),
    (
        "support",
        "How do I enable two-factor authentication?",
        "How can I enable two-factor authentication?",
        "Settings, Security, Two-factor authentication: scan the code with an app.",
    ),
    (
        "shop",
        "Where can I track my order?",
        "Where do I track my order?",
        "Orders, then Track. The parcel service updates it twice a day.",
    ),
    (
        "shop",
        "How do I return an item?",
        "How can I return an item?",
        "Orders, Return an item. You have 30 days, and the label is free.",
    ),
]
JUDGED = ["How can I export my data?", "Where do I track my order?"]
SHOWN = "How can I reset my password?"


def main(target: Path) -> None:
    """Fill a service of its own, judge a little, and write the PNG."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "data") as service,
        browser(Path(folder) / "browser") as page,
    ):
        _fill(service.http)
        _show(page, f"http://127.0.0.1:{service.port}/reviews")
        target.write_bytes(page.picture())


def _fill(http: httpx.Client) -> None:
    found = []
    for agent_type, stored, asked, response in ASKED:
        sample(http, agent_type)
        entry = {"agent_type": agent_type, "prompt": stored, "response": response}
        ok(http.post("/v1/cache/store", json=entry))
        answer = ok(http.post("/v1/cache/lookup", json={"agent_type": agent_type, "prompt": asked})).json()
        if answer["outcome"] == "hit":  # another model may see some of them otherwise
            found.append(answer["lookup_id"])
    queued(http, found)


def _show(page: Page, url: str) -> None:
    page.call(
        "Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False
    )
    page.open(url)
    for text in (*JUDGED, SHOWN):
        row = (
            "[...document.querySelectorAll('nav button')]"
            f".find((one) => one.querySelector('.question').textContent === {text!r})"
        )
        page.until("document.querySelector('nav button') !== null")
        if page.js(f"Boolean({row})"):
            page.js(f"{row}.click()")
            if text != SHOWN:
                page.press("c")
    page.until("!document.getElementById('count').textContent.includes('not sent')")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
