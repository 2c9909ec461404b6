"""/reviews while Redis is away, and with keys."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from bench.processes import Served, served
from service.api.auth import Role, create_key, read_keys, revoke_key
from service.settings import Settings
from service.store.embedded import EmbeddedRedis
from tests.browser.chromium import Page
from tests.browser.hits import hits
from tests.browser.kept import outcomes

HERE = "document.querySelector('[aria-current]')?.dataset.id"
SENT = "!document.getElementById('count').textContent.includes('not sent yet')"
SECRET = "a secret of the tests, 1"


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[None]:
    """It takes connections and answers nothing."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def typed(page: Page, keys: str) -> dict[str, str]:
    found = {}
    for key in keys:
        found[page.until(HERE)] = key
        page.press(key)
    return found


def statuses(page: Page) -> list[int]:
    """Of the verdicts that were sent."""
    urls = {one["requestId"]: one["request"]["method"] for one in page.seen("Network.requestWillBeSent")}
    told = page.seen("Network.responseReceived")
    return [one["response"]["status"] for one in told if urls.get(one["requestId"]) == "POST"]


def kept(own: EmbeddedRedis) -> dict[str, bool]:
    with Redis.from_url(own.url, protocol=2) as redis:
        return outcomes(redis, Settings(secret=SECRET))


@pytest.fixture
def shaky(page: Page, own: EmbeddedRedis, tmp_path: Path) -> Iterator[Served]:  # noqa: ARG001 - skips first
    with served(tmp_path / "desk", secret=SECRET, redis_url=own.url, verifier="off") as service:
        yield service


def test_a_503_is_tried_again(page: Page, own: EmbeddedRedis, shaky: Served) -> None:
    """What was typed meanwhile waits behind it, in order."""
    hits(shaky.http, 12)
    page.open(f"http://127.0.0.1:{shaky.port}/reviews")
    said = typed(page, "cwc")
    page.until(SENT)
    with stopped(own):
        said |= typed(page, "cwscw")
        page.until("document.getElementById('trouble_text').textContent.includes('503')")
        assert "4 not sent yet" in page.text("count")
        assert page.text("trouble_text").startswith("4 verdicts are not sent: 503: ")
    said |= typed(page, "cc")
    page.until(SENT)
    assert page.text("trouble_text") == ""
    expected = {name: key == "c" for name, key in said.items() if key != "s"}
    assert kept(own) == expected
    assert statuses(page).count(200) == len(expected) == 9
    assert set(statuses(page)) == {200, 503}


def test_a_reload_loses_nothing(page: Page, own: EmbeddedRedis, shaky: Served) -> None:
    """The reader is asked first, and the verdicts wait in the tab."""
    hits(shaky.http, 4)
    page.open(f"http://127.0.0.1:{shaky.port}/reviews")
    page.until(HERE)
    with stopped(own):
        said = typed(page, "cw")
        page.until("document.getElementById('trouble_text').textContent.includes('503')")
        page.open(f"http://127.0.0.1:{shaky.port}/reviews")
        assert [one["type"] for one in page.seen("Page.javascriptDialogOpening")] == ["beforeunload"]
        page.until("document.getElementById('trouble_text').textContent.includes('not loaded: 503')")
        assert "2 not sent yet" in page.text("count")
    page.until(HERE)
    page.until(SENT)
    assert kept(own) == {name: key == "c" for name, key in said.items()}
    assert page.text("count") == "2 waiting"


def test_keys(page: Page, settings: Settings, tmp_path: Path) -> None:
    """Asked for once, refused where it doesn't do; a verdict outlives a key that is revoked."""
    keys_file = tmp_path / "keys.json"
    keys = {role: create_key(keys_file, "acme", role) for role in (Role.admin, Role.reader)}
    second = create_key(keys_file, "acme", Role.admin)
    guarded = replace(settings, keys_file=keys_file)
    named = {"redis_url": guarded.redis_url or "", "key_prefix": guarded.key_prefix}
    with served(
        tmp_path / "desk", secret=SECRET, verifier="off", keys_file=str(keys_file), **named
    ) as service:
        service.http.headers["Authorization"] = f"Bearer {keys[Role.admin]}"
        hits(service.http, 3)
        page.open(f"http://127.0.0.1:{service.port}/reviews")
        page.until("document.activeElement?.id === 'key'")
        for given, why in (("sk-wrong", "401: "), (keys[Role.reader], "403: "), (keys[Role.admin], "")):
            page.type(given)
            page.press("Enter")
            if why:
                page.until(f"document.getElementById('key_why').textContent.startsWith({why!r})")
                assert page.js("document.activeElement?.id") == "key"
        page.until(HERE)
        assert not page.js("document.getElementById('key_form').checkVisibility()")
        assert page.js("localStorage.length") == 0
        typed(page, "c")
        page.until(SENT)
        revoke_key(keys_file, read_keys(keys_file)[0].id)
        typed(page, "w")
        page.until("document.activeElement?.id === 'key'")
        assert "1 not sent yet" in page.text("count")
        page.type(second)
        page.press("Enter")
        page.until(SENT)
        assert statuses(page) == [200, 401, 200]
        page.open(f"http://127.0.0.1:{service.port}/reviews")
        page.until(HERE)
        assert page.text("count") == "1 waiting"
        page.js("document.getElementById('forget').click()")
        page.until("document.activeElement?.id === 'key'")
        assert keys[Role.admin] not in page.js("JSON.stringify(sessionStorage)")
        assert second not in page.js("JSON.stringify(sessionStorage)")


def test_a_hit_that_is_gone(page: Page, shaky: Served) -> None:
    """It is said that its verdict went nowhere, and the others go on."""
    hits(shaky.http, 2)
    page.open(f"http://127.0.0.1:{shaky.port}/reviews")
    name = page.until(HERE)
    page.js(f"sessionStorage.setItem('semcached.reviews.outbox', '[[\"{'1' * 32}\", \"wrong\"]]')")
    page.open(f"http://127.0.0.1:{shaky.port}/reviews")
    page.until("document.getElementById('refused').textContent.includes('404')")
    assert "1" * 32 in page.text("refused")
    assert typed(page, "c") == {name: "c"}
    page.until(SENT)
    assert statuses(page) == [404, 200]
