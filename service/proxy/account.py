"""Whose key goes to the provider, and so whose answers a request may meet."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from service.settings import KEY_PREFIX, Settings

Provider = Literal["openai", "anthropic"]
Headers = Sequence[tuple[str, str]]
"""Names in lower case."""

CREDENTIALS: dict[Provider, frozenset[str]] = {
    "openai": frozenset({"authorization", "api-key"}),
    "anthropic": frozenset({"authorization", "x-api-key"}),
}
"""Headers that a provider knows its customers by."""

_ALL = frozenset().union(*CREDENTIALS.values())
_ACCOUNT = frozenset({"openai-organization", "openai-project"})
"""Headers that choose among a customer's accounts: the client's to set with a key of its own only."""
NEUTRAL = re.compile(
    r"accept|accept-(charset|language)|user-agent|content-(type|language)|origin|referer|priority|dnt|from"
    r"|cache-control|pragma|idempotency-key|x-(client-)?request-id|x-correlation-id|x-stainless-.*|sec-.*|x-app"
    r"|x-forwarded-(for|proto|host|port|prefix|server|ssl|scheme)|x-real-ip|true-client-ip|x-envoy-.*|cdn-loop"
    r"|cf-(ray|connecting-ip(v6)?|ipcountry|visitor|worker|ew-via)|x-amzn-trace-id|x-amz-cf-id"
    r"|x-cloud-trace-context|traceparent|tracestate|baggage|sentry-trace|x-b3-.*|b3|uber-trace-id|x-datadog-.*"
    r"|newrelic|x-ot-.*|anthropic-dangerous-direct-browser-access"
)
"""Headers that don't change an answer; all others do, known or not."""
_READ: dict[Provider, frozenset[str]] = {
    "openai": frozenset(),
    "anthropic": frozenset({"anthropic-version", "anthropic-beta"}),
}
"""Headers that a dialect reads itself."""
_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"}
    | {"trailer", "transfer-encoding", "upgrade"}
)
_OURS = frozenset({"host", "content-length", "accept-encoding", "expect", "cookie", "forwarded", "via"})
_BACK = frozenset({"content-length", "set-cookie", "date", "server", "alt-svc", "via"})


class Account(NamedTuple):
    """A customer of a provider's."""

    provider: Provider
    headers: Headers  # that go upstream
    base: str  # of the provider's API, with its `/v1`
    namespace: dict[str, Any]  # in the key of its answers
    own: bool  # whether the client brought the key


def account(headers: Headers, tenant_header: str | None, provider: Provider, settings: Settings) -> Account:
    """The provider's key that a request brought, else the one of the settings.

    Args:
        headers: the request's.
        tenant_header: which of them has the tenant's key, that must not go further; None: nobody needs one.
        provider: whose API is called.
        settings: with the providers' addresses and keys.
    """
    base, managed = _upstream(provider, settings)
    secret = next((value for name, value in headers if name == tenant_header), None)
    brought = [
        (name, value)
        for name, value in headers
        if name in CREDENTIALS[provider] and name != tenant_header and not _is_ours(value, secret)
    ]
    own = bool(brought) and not (managed and tenant_header is None)
    if managed and not own:
        given = [_credential(provider, managed)]
        namespace: dict[str, Any] = {"account": "managed"}
    else:
        given, namespace = brought, {"account": _digest(brought)}
    gone = _HOP | _OURS | _ALL | _named(headers) | (frozenset() if own else _ACCOUNT)
    onward = [
        (name, value) for name, value in headers if name not in gone and not name.startswith("x-semcached-")
    ]
    chosen = [
        (name, value)
        for name, value in onward
        if NEUTRAL.fullmatch(name) is None and name not in _READ[provider]
    ]
    out = [*onward, *given, ("accept-encoding", "identity")]
    return Account(provider, out, base, namespace | {"upstream": base, "headers": _digest(chosen)}, own)


def joined(headers: Headers) -> dict[str, str]:
    """By name; one that comes several times is a list with commas (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def returned(headers: Headers) -> list[tuple[str, str]]:
    """The headers of a provider's answer that its client gets."""
    gone = _HOP | _BACK | _named(headers)
    return [(name, value) for name, value in headers if name not in gone]


def _upstream(provider: Provider, settings: Settings) -> tuple[str, str | None]:
    if provider == "openai":
        return settings.openai_upstream.rstrip("/"), settings.openai_upstream_key
    return settings.anthropic_upstream.rstrip("/") + "/v1", settings.anthropic_upstream_key


def _credential(provider: Provider, key: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {key}") if provider == "openai" else ("x-api-key", key)


def _digest(headers: Headers) -> str | None:
    """The scope, of which it becomes a part, is digested again, under the secret."""
    return hashlib.sha256(msgspec.json.encode(sorted(headers))).hexdigest() if headers else None


def _named(headers: Headers) -> frozenset[str]:
    """The headers that `Connection` names (RFC 9110, 7.6.1)."""
    lists: Iterable[str] = (value for name, value in headers if name == "connection")
    return frozenset(name.strip().lower() for one in lists for name in one.split(","))


def _is_ours(value: str, secret: str | None) -> bool:
    """Whether a header has the tenant's key once more, with or without its scheme, or another key of ours."""
    return _bare(value).startswith(KEY_PREFIX) or (secret is not None and _bare(value) == _bare(secret))


def _bare(value: str) -> str:
    scheme, _, key = value.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else value.strip()
