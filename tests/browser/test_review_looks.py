"""/reviews on a narrow screen, in the dark, for who hears it; and with texts that want to be more."""

from pathlib import Path

import pytest

from bench.processes import Served
from tests.browser.chromium import Page
from tests.browser.hits import hit, hits, ok, queued, sample

CONTRAST = Path(__file__).with_name("looks.js").read_text("utf-8")
LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 4
SCRIPTS = [
    "<script>window.owned = 1</script>",
    '<img src=x onerror="window.owned = 2">',
    '"><svg onload="window.owned = 3">',
    "<iframe srcdoc='<script>parent.owned = 4</script>'></iframe>",
    "<a href='javascript:window.owned=5' autofocus onfocus='window.owned=6'>x</a>",
]
TEXTS = (
    "[...document.querySelectorAll('#asked, #stored, #answer, #note, #kind')].map((one) => one.textContent)"
)
HERE = "document.querySelector('[aria-current]')?.dataset.id"


def start(page: Page, service: Served) -> None:
    page.open(f"http://127.0.0.1:{service.port}/reviews")
    page.until(HERE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_texts_are_texts(page: Page, desk: Served, script: str) -> None:
    """A question, an answer, a note and the agent_type's name, each with a script in it."""
    sample(desk.http, script)
    fields = {"agent_type": script, "prompt": f"How do I {script}?", "asked": f"How can I {script}?"}
    found = hit(desk.http, 1, **fields, response={"text": script, "list": [script]})
    queued(desk.http, [found])
    ok(desk.http.post("/v1/feedback", json={"lookup_id": found, "correct": False, "note": script}))
    start(page, desk)
    asked, stored, note, answer, kind = page.js(TEXTS)
    assert (asked, stored) == (fields["asked"], fields["prompt"])
    assert (note, kind) == (script, script)
    assert script.replace('"', '\\"') in answer
    page.press("k")
    page.press("c")
    page.until("!document.getElementById('count').textContent.includes('not sent yet')")
    assert page.js("window.owned") is None
    assert page.js("document.querySelectorAll('main script, main img, svg, iframe, a').length") == 0
    assert page.seen("Log.entryAdded") == []
    urls = {one["request"]["url"].split("?")[0] for one in page.seen("Network.requestWillBeSent")}
    assert all(url.startswith((f"http://127.0.0.1:{desk.port}/", "data:,")) for url in urls)


def test_what_the_policy_forbids(page: Page, desk: Served) -> None:
    """Even where a script had found its way in."""
    page.open(f"http://127.0.0.1:{desk.port}/reviews")
    page.until("document.getElementById('end').checkVisibility()")
    tried = "try {{ {} }} catch (error) {{ error.name }}"
    for done in (f"innerHTML = {SCRIPTS[1]!r}", "setAttribute('onclick', 'window.owned = 1')"):
        assert page.js(tried.format(f"document.body.{done}")) == "TypeError"
    refused = (
        "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective))"
    )
    call = "fetch('http://127.0.0.1:9/').catch(() => null)"
    assert page.js(f"new Promise((done) => {{ {refused}; {call}; }})") == "connect-src"


def test_a_narrow_screen(page: Page, desk: Served) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    hits(desk.http, 3, asked=f"How can I {LONG}?", response={LONG: [LONG, {"text": LONG * 50}]})
    start(page, desk)
    assert page.js("innerWidth") == 360
    assert page.js("document.documentElement.scrollWidth") == 360
    assert page.js("document.getElementById('answer').clientHeight <= innerHeight * 0.3 + 1")
    for name in ("correct", "wrong", "skip", "undo"):
        box = page.js(f"document.getElementById({name!r}).getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= 360
        assert box["bottom"] <= 740  # beside the thumb, however long the answer is


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read(page: Page, desk: Served, scheme: str) -> None:
    """With a row of each state."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    hits(desk.http, 5)
    start(page, desk)
    for key in "cws":
        page.press(key)
    page.until("!document.getElementById('count').textContent.includes('not sent yet')")
    found = page.js(CONTRAST)
    assert found["read"] > 30
    assert found["faint"] == []
    ground = page.js("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(15, 19, 24)") is (scheme == "dark")


def test_who_hears_it(page: Page, desk: Served) -> None:
    """Controls have names, what happens is said, and Tab goes through them all."""
    hits(desk.http, 2)
    start(page, desk)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "checkbox", "region", "navigation"}
    controls = [one for one in nodes if one.get("role", {}).get("value") in roles]
    assert len(controls) >= 10
    assert [one for one in controls if not one["name"].get("value")] == []
    page.press("c")
    assert page.text("said").startswith("Judged correct. Now: How can I reset")
    assert page.js("document.getElementById('said').getAttribute('aria-live')") == "polite"
    reached = set()
    for _ in range(20):
        page.press("Tab")
        reached.add(page.js("document.activeElement?.id || document.activeElement.dataset.id"))
    assert {"agent_type", "ask_help", "answer", "correct", "wrong", "skip", "undo"} <= reached
