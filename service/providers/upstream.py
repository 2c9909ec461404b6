"""A provider's API, called with what a client sent. Nothing is read, repeated or added here."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple

import httpx2

from service.errors import UpstreamError, UpstreamTimeoutError

CONNECT_S = 10.0
WRITE_S = 60.0

Headers = Sequence[tuple[str, str]]


class Sent(NamedTuple):
    """A request as it goes out."""

    method: str
    url: str
    headers: Headers
    content: bytes


class Answer:
    """What comes back."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = [(_text(name).lower(), _text(value)) for name, value in response.headers.raw]
        # Although asked not to: what it says can't be read here, and is handed on as it is.
        self.is_coded = response.headers.get("content-encoding", "identity").lower() not in {"", "identity"}
        # Else it ends with the connection, and nobody knows whether that was its end.
        self.is_framed = bool({"content-length", "transfer-encoding"} & {name for name, _ in self.headers})
        self.media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            UpstreamError: it broke off, or nothing more came in time.
        """
        with _told():
            async for piece in self._response.aiter_raw():
                yield piece


class Upstream:
    """The connections to the providers."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def sent(self, request: Sent) -> AsyncIterator[Answer]:
        """The answer, its body not read yet.

        Raises:
            UpstreamError: there is none.
        """
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
        with _told():
            out = self._client.build_request(
                request.method, request.url, headers=headers, content=request.content
            )
            response = await self._client.send(out, stream=True)
        try:
            yield Answer(response)
        finally:
            await response.aclose()


def _text(raw: bytes) -> str:
    """A header's bytes, which come back the same."""
    return raw.decode("latin-1")


class _told:  # noqa: N801 - a context manager
    """httpx2's errors become ours; their texts name no header."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, httpx2.TimeoutException):
            raise UpstreamTimeoutError("the provider did not answer in time") from None
        if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError):
            raise UpstreamError("the provider broke the connection off") from None
        if isinstance(error, httpx2.RequestError | httpx2.InvalidURL):
            raise UpstreamError(f"the provider can't be reached: {type(error).__name__}") from None


@asynccontextmanager
async def upstream(read_s: float) -> AsyncIterator[Upstream]:
    """Its connections are closed at the end.

    Args:
        read_s: longest time without a byte of an answer.
    """
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs each request
    timeout = httpx2.Timeout(read_s, connect=CONNECT_S, write=WRITE_S, pool=None)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)
    # What a provider sets for one client is no other's.
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    async with httpx2.AsyncClient(timeout=timeout, limits=limits, cookies=jar) as client:
        client.headers.clear()
        yield Upstream(client)
