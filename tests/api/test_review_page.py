"""GET /reviews: what is served, and to whom. tests/browser uses it."""

import re
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from service.api import review_page

pytestmark = pytest.mark.anyio

Http = AsyncTestClient[Litestar]
FOLDER = Path(review_page.__file__).with_name("reviewing")


async def test_the_page_needs_no_key_and_its_calls_do(guarded: Http) -> None:
    for path in ("/reviews", "/reviews/", *(f"/reviews/{one.name}" for one in FOLDER.iterdir())):
        answer = await guarded.get(path)
        assert answer.status_code == 200
        for name, value in review_page.HEADERS.items():
            assert answer.headers[name] == value
    assert (await guarded.get("/v1/reviews")).status_code == 401
    assert (await guarded.post(f"/v1/reviews/{'1' * 32}", json={"verdict": "wrong"})).status_code == 401


@pytest.mark.parametrize("path", ["/reviews/none.js", "/reviews/../app.py", "/reviews/%2e%2e/app.py"])
async def test_nothing_else_is_served(client: Http, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_nothing_is_inline_and_nothing_from_elsewhere(client: Http) -> None:
    """As the policy says; scripts import each other only."""
    page = (await client.get("/reviews")).text
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page) == [""]
    loaded = [one for one in re.findall(r'(?:src|href)="(.*?)"', page) if one != "data:,"]
    assert loaded == ["/reviews/page.css", "/reviews/page.js"]
    imported = {
        name
        for file in FOLDER.glob("*.js")
        for name in re.findall(r'from "\./(.*?)"', file.read_text("utf-8"))
    }
    assert imported | {"page.js"} == {one.name for one in FOLDER.glob("*.js")}


def test_texts_are_never_read_as_html() -> None:
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser|createContextualFragment"
    )
    for file in FOLDER.glob("*.js"):
        assert not re.search(sinks, file.read_text("utf-8")), file.name
