"""/reviews: a page that judges hits by /v1/reviews, from files of our own; it holds no data itself."""

from pathlib import Path

from litestar.response.base import ASGIResponse
from litestar.router import Router
from litestar.static_files import create_static_files_router

PATH = "/reviews"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Of what an answer says nothing is ever run or fetched, and nobody frames the page."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # scripts of two versions don't fit each other
}


async def _guarded(response: ASGIResponse) -> ASGIResponse:
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


def files() -> Router:
    """The page with its scripts and styles."""
    folder = Path(__file__).with_name("reviewing")
    return create_static_files_router(
        path=PATH,
        directories=[folder],
        html_mode=True,
        name="review_page",
        after_request=_guarded,  # type: ignore[arg-type] # a file's response is of this kind
    )
