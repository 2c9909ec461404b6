"""A request to a provider's API: what the cache is asked for it, and what goes upstream."""

from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from service.cache.dialects.dialect import Body, Dialect, Reading
from service.model import LookupRequest, QueryFields, StoreRequest, Tier, Usage
from service.providers.upstream import Sent
from service.proxy.account import Account
from service.proxy.options import Options

LARGEST = 1024 * 1024
"""Bytes of a request, or of an answer, that are cached at most."""

_encode = msgspec.json.Encoder().encode
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Call(NamedTuple):
    """A request on its way."""

    method: str
    path: str  # as it came, with its query string
    body: bytes
    account: Account
    options: Options
    reading: Reading
    dialect: Dialect | None = None  # None: it is passed on, and that is all
    asked: Body | None = None  # the body, decoded, where it may be answered

    def sent(self, body: bytes | None = None) -> Sent:
        """As it goes upstream; `body` where it isn't the one that came."""
        url = self.account.base + self.path.removeprefix("/v1")
        return Sent(self.method, url, self.account.headers, self.body if body is None else body)

    @property
    def asks_usage(self) -> bool:
        """Whether we ask for the chunk with the usage, and the client doesn't."""
        return self.reading.streams and not self.reading.usage_wanted


def lookup_request(call: Call) -> LookupRequest | None:
    """What the cache is asked; None: nothing.

    Raises:
        msgspec.ValidationError: the request is none that the cache takes.
    """
    fields = _fields(call)
    wanted, tiers = call.options.tiers, call.reading.tiers
    both: list[Tier] = [tier for tier in tiers if wanted is None or tier in wanted]
    if fields is None or not both:
        return None
    return msgspec.convert(fields | {"tiers": both, "threshold": call.options.threshold}, LookupRequest)


def store_request(call: Call, answer: bytes, usage: Usage, lookup_id: str) -> StoreRequest:
    """What the cache is given."""
    options = call.options
    return StoreRequest(
        response=msgspec.Raw(answer),
        ttl_s=options.ttl_s,
        sources=options.sources,
        tags=options.tags,
        usage=usage,
        lookup_id=lookup_id,
        **structs.asdict(msgspec.convert(_fields(call), QueryFields)),
    )


def _fields(call: Call) -> dict[str, Any] | None:
    """Of a lookup and a store alike."""
    fields = call.reading.fields
    if fields is None:
        return None
    # The temperature, too: the semantic tier serves across temperatures, providers' clients don't expect it.
    params = {**(fields.get("params") or {}), "provider": call.account.namespace}
    params["temperature"] = fields.get("temperature")
    query = call.path.partition("?")[2]
    params |= {"query": query} if query else {}
    options = call.options
    return {**fields, "params": params, "agent_type": options.agent_type, "attributes": options.attributes}


def with_usage(body: bytes) -> bytes:
    """A chat's stream is asked for its usage; everything else byte for byte as it came."""
    fields = _raws(body)
    asked = msgspec.json.decode(fields.get("stream_options", b"null"))
    if not isinstance(asked, dict | None):  # the provider says what is wrong with it
        return body
    asked = asked or {}
    fields["stream_options"] = msgspec.Raw(_encode(asked | {"include_usage": True}))
    return _encode(fields)
