"""Where the service is, and who asks."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from semcached.errors import ConfigurationError

URL, KEY = "SEMCACHED_URL", "SEMCACHED_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8080"


class Settings(NamedTuple):
    """What a client works by; times in seconds."""

    url: str
    api_key: str | None
    timeout_s: float
    connect_timeout_s: float
    retries: int

    def __repr__(self) -> str:
        """Without the key."""
        return f"Settings({self.url!r})"

    @property
    def is_local(self) -> bool:
        """Whether no proxy of the environment's has a part in it."""
        host = urlsplit(self.url).hostname or ""
        return host in {"localhost", "::1"} or host.startswith("127.")

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}


def settings(
    url: str | None, api_key: str | None, timeout_s: float, connect_timeout_s: float, retries: int
) -> Settings:
    """What is given, else what the environment says. Blanks around it don't count: files end in one.

    Raises:
        ConfigurationError: the address, the key or a number can't be used.
    """
    url = ((url or os.environ.get(URL) or "").strip() or DEFAULT_URL).rstrip("/")
    api_key = (api_key or os.environ.get(KEY) or "").strip() or None
    if url.endswith("/v1"):
        raise ConfigurationError(f"{URL}: leave out the /v1 at its end, which every call brings along")
    if not _is_address(url):
        raise ConfigurationError(f"{URL}: must be http://host… or https://host…, without a password or query")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ConfigurationError(f"{KEY}: must be ASCII without spaces")
    if not (timeout_s > 0 and connect_timeout_s > 0 and retries >= 0):
        raise ConfigurationError("timeouts must be above 0, retries 0 or more")
    return Settings(url, api_key, timeout_s, connect_timeout_s, retries)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain and port_fits
