"""/reviews, judged by keyboard in a real browser, against a real service and Redis."""

import random
from collections.abc import Sequence

from redis import Redis

from bench.processes import Served
from service.settings import Settings
from tests.browser.chromium import Page
from tests.browser.hits import hits
from tests.browser.kept import outcomes, waiting

HERE = "document.querySelector('[aria-current]')?.dataset.id"
SENT = "!document.getElementById('count').textContent.includes('not sent yet')"
POSTS = "Network.requestWillBeSent"


def start(page: Page, service: Served) -> None:
    page.open(f"http://127.0.0.1:{service.port}/reviews")
    page.until(HERE)


def sent(page: Page) -> int:
    return sum(one["request"]["method"] == "POST" for one in page.seen(POSTS))


def typed(page: Page, keys: Sequence[str]) -> dict[str, str]:
    """Type; what was typed for which hit."""
    found: dict[str, str] = {}
    for key in keys:
        found[page.until(HERE)] = key
        page.press(key)
    return found


def test_fifty_reviews(page: Page, desk: Served, redis: Redis, settings: Settings) -> None:
    """What is kept is what was typed; what was skipped or not reached waits."""
    made = set(hits(desk.http, 56))
    start(page, desk)
    keys = ["c"] * 26 + ["w"] * 14 + ["s"] * 10
    random.Random(1).shuffle(keys)  # noqa: S311 - no secret
    said = typed(page, keys)
    assert len(said) == 50
    page.until(SENT)
    judged = {name: key == "c" for name, key in said.items() if key != "s"}
    assert outcomes(redis, settings) == judged
    assert waiting(redis, settings) == made - judged.keys()
    assert sent(page) == 40
    assert page.text("count") == "16 waiting · 10 skipped"
    typed(page, "cccccc")
    page.until("document.getElementById('end').checkVisibility()")
    assert page.text("end_text") == "Nothing is left but what you skipped."
    page.until(SENT)
    assert waiting(redis, settings) == {name for name, key in said.items() if key == "s"}


def test_on_second_thoughts(page: Page, desk: Served, redis: Redis, settings: Settings) -> None:
    hits(desk.http, 4)
    start(page, desk)
    first, second = typed(page, "cw")
    page.until(SENT)
    page.press("u")
    assert page.js(HERE) == second
    page.press("u")
    assert page.js(HERE) == first
    page.press("w")
    page.press("s")
    page.until(SENT)
    assert outcomes(redis, settings) == {first: False, second: False}
    assert len(waiting(redis, settings)) == 2


def test_moving(page: Page, desk: Served) -> None:
    made = hits(desk.http, 3)
    start(page, desk)
    rows = page.js("[...document.querySelectorAll('nav button')].map((one) => one.dataset.id)")
    assert sorted(rows) == sorted(made)
    seen = []
    for key in ("j", "ArrowDown", "j", "k", "ArrowUp", "k"):
        page.press(key)
        seen.append(rows.index(page.js(HERE)))
    assert seen == [1, 2, 2, 1, 0, 0]
    page.press("c", modifiers=2)  # copies
    page.press("c", repeat=True)  # held down
    page.press("?")
    assert page.js("document.getElementById('help').open")
    page.press("c")
    page.press("Escape")
    page.until("!document.getElementById('help').open")
    page.js("document.getElementById('agent_type').focus()")
    page.type("cws")
    assert page.js("document.getElementById('agent_type').value") == "cws"
    assert page.js(HERE) == rows[0]
    assert sent(page) == 0
    page.press("Enter")
    page.until("document.getElementById('end').checkVisibility()")
    assert page.text("end_text") == "Nothing is left to judge."


def test_one_in_flight_is_not_sent_again(page: Page, desk: Served, redis: Redis, settings: Settings) -> None:
    """What is said of it meanwhile follows it, and only if it differs."""
    hits(desk.http, 2)
    start(page, desk)
    page.call("Fetch.enable", patterns=[{"urlPattern": "*/v1/reviews/*"}])
    (name,) = typed(page, "c")
    page.wait(lambda: page.seen("Fetch.requestPaused"), "a request")
    for key in "ucuwuc":
        page.press(key)
    page.js("new Promise((done) => setTimeout(done, 200))")
    assert len(page.seen("Fetch.requestPaused")) == 1
    page.call("Fetch.disable")
    page.until(SENT)
    assert sent(page) == 1
    assert outcomes(redis, settings) == {name: True}


def test_words_that_differ(page: Page, desk: Served) -> None:
    hits(desk.http, 1, asked="How can I reset the password of account 0?")
    start(page, desk)
    marked = "[...document.querySelectorAll('#{} mark')].map((one) => one.textContent)"
    assert page.js(marked.format("asked")) == ["can"]
    assert page.js(marked.format("stored")) == ["do"]
    assert page.text("asked") == "How can I reset the password of account 0?"
    assert page.text("similarity") == "0.980"
    assert page.text("verifier") == "not asked"
