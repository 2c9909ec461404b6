"""What was counted → figures for people: rates, percentiles, dollars."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct, structs

from service.cache.accounting import Field
from service.cache.histogram import percentile
from service.cache.learning.quality import Quality, Shadowed
from service.cache.prices import NANO

Counts = Annotated[int, Meta(description="How many.")]


class Latency(Struct, frozen=True, kw_only=True):
    """Times, ms, each within 5 %."""

    p50: Annotated[float, Meta(description="Half took no longer, ms.")]
    p90: Annotated[float, Meta(description="Nine of ten took no longer, ms.")]
    p99: Annotated[float, Meta(description="99 of 100 took no longer, ms.")]
    count: Annotated[int, Meta(description="How many were timed.")]


class Stores(Struct, frozen=True, kw_only=True):
    """Stores by what became of them."""

    stored: Annotated[int, Meta(description="Kept, or kept longer.")]
    refused: Annotated[dict[str, int], Meta(description="Refused, by rule.")]
    failed: Annotated[int, Meta(description="Not kept: Redis or the embedder failed.")]


class Keyspace(Struct, frozen=True, kw_only=True):
    """The figures of a keyspace. Each item of a batch is a request."""

    requests: Annotated[int, Meta(description="Lookups answered.")]
    hits: Annotated[dict[str, int], Meta(description="By tier, or kind.")]
    hit_rate: Annotated[float | None, Meta(description="Share of the lookups; null: there were none.")]
    misses: Annotated[dict[str, int], Meta(description="By reason.")]
    rules: Annotated[dict[str, int], Meta(description="Misses by the guard or policy behind them.")]
    stores: Annotated[Stores, Meta(description="Stores.")]
    latency_ms: Annotated[
        dict[str, Latency],
        Meta(description="hit_exact, hit_semantic, miss, …: the time its batch took, for each item."),
    ]
    entries: Annotated[
        int | None,
        Meta(description="How many there are; some may be about to expire. Null: not known by agent_type."),
    ]


class Money(Struct, frozen=True, kw_only=True):
    """What hits saved and embedding cost, USD."""

    saved_usd: Annotated[
        float, Meta(description="`usage.cost_usd` of the answers served, else their tokens by list price.")
    ]
    spent_usd: Annotated[float, Meta(description="Tokens embedded by an API, by list price.")]
    provider_saved_usd: Annotated[
        float,
        Meta(
            description="By the providers' own prompt caches, on what was passed on; writing to them costs."
        ),
    ]
    net_usd: Annotated[float, Meta(description="Saved, here and by the providers, less spent.")]
    unpriced_hits: Annotated[
        int, Meta(description="Hits without usage or without a price; they saved more than is told.")
    ]
    unpriced_tokens: Annotated[
        int, Meta(description="Tokens embedded by a model without a price; more was spent than is told.")
    ]


class Tokens(Struct, frozen=True, kw_only=True):
    """Tokens that hits saved, and that were embedded."""

    saved_input: Annotated[int, Meta(description="Of questions that no LLM had to read.")]
    saved_output: Annotated[int, Meta(description="Of answers that no LLM had to write.")]
    embedded: Annotated[int, Meta(description="That an embeddings API was paid for.")]
    provider_cached: Annotated[
        int, Meta(description="Of questions passed on, that the provider read from its prompt cache.")
    ]


class Entries(Struct, frozen=True, kw_only=True):
    """How many entries there are, as their indexes count; some may be about to expire."""

    responses: Counts
    tools: Counts
    embeddings: Annotated[int | None, Meta(description="Of the tenant; null for one agent_type.")]


class Sampled(Struct, frozen=True, kw_only=True):
    """What was read from some of the entries."""

    number: Annotated[int, Meta(description="Of scopes: seen in the sample. Of bytes: reckoned for all.")]
    sampled: Annotated[bool, Meta(description="Whether there are more entries than were looked at.")]
    sample: Annotated[int, Meta(description="How many entries were looked at.")]


class Stock(Struct, frozen=True, kw_only=True):
    """What lies in Redis now."""

    entries: Annotated[Entries, Meta(description="How many, by keyspace.")]
    scopes: Annotated[Sampled, Meta(description="Scopes of the responses.")]
    bytes: Annotated[
        Sampled, Meta(description="Memory of responses and tool results, without their indexes.")
    ]


class Short(Struct, frozen=True, kw_only=True):
    """An agent_type among others."""

    requests: Annotated[int, Meta(description="Lookups answered.")]
    hits: Annotated[int, Meta(description="Lookups that hit.")]
    stored: Annotated[int, Meta(description="Stores that were kept.")]
    saved_usd: Annotated[float, Meta(description="As in `money`.")]
    spent_usd: Annotated[float, Meta(description="As in `money`.")]


class Stats(Keyspace, frozen=True, kw_only=True):
    """Everything counted since `since`, and what lies there now; first the figures of /v1/cache."""

    since: Annotated[str | None, Meta(description="When counting began, RFC 3339; null: nothing was.")]
    tools: Annotated[Keyspace, Meta(description="/v1/tools.")]
    embeddings: Annotated[Keyspace, Meta(description="Embeddings looked up and kept.")]
    stages_ms: Annotated[
        dict[str, Latency], Meta(description="Time per stage of a lookup, of a batch once, as `explain`.")
    ]
    tokens: Annotated[Tokens, Meta(description="Tokens.")]
    money: Annotated[Money, Meta(description="Money.")]
    prices: Annotated[str, Meta(description="As of when the list prices are.")]
    scopes: Annotated[int | None, Meta(description="Of the answers; at least so many, if sampled.")]
    bytes: Annotated[
        int | None, Meta(description="Memory of answers and tool results, without their indexes.")
    ]
    sampled: Annotated[bool, Meta(description="Whether scopes and bytes come from some of the entries.")]
    agent_types: Annotated[
        dict[str, Short] | None, Meta(description="Of a whole tenant: its agent_types; else null.")
    ]
    quality: Annotated[
        Quality | None, Meta(description="Of one agent_type: how often its answers were wrong; else null.")
    ] = None
    shadow: Annotated[
        Shadowed | None, Meta(description="Of one agent_type: what `shadow` would have served; else null.")
    ] = None
    others: Annotated[
        Short | None,
        Meta(description="Of a whole tenant: what has no agent_type, and agent_types beyond 1,000."),
    ]


def stats(
    total: Mapping[Field, int],
    *,
    since_ms: int | None,
    prices: str,
    stock: Stock | None = None,
    agent_types: Mapping[str, Mapping[Field, int]] | None = None,
    others: Mapping[Field, int] | None = None,
) -> Stats:
    """The figures of what was counted."""
    there = None if stock is None else stock.entries
    return Stats(
        **structs.asdict(_keyspace(total, "responses", None if there is None else there.responses)),
        since=None if since_ms is None else _rfc3339(since_ms),
        tools=_keyspace(total, "tools", None if there is None else there.tools),
        embeddings=_keyspace(total, "embeddings", None if there is None else there.embeddings),
        stages_ms=_latencies((f[1], f[2], n) for f, n in total.items() if f[0] == "stage"),
        tokens=Tokens(
            saved_input=total.get(("tokens", "input"), 0),
            saved_output=total.get(("tokens", "output"), 0),
            embedded=total.get(("tokens", "embedded"), 0),
            provider_cached=total.get(("tokens", "provider_cached"), 0),
        ),
        money=_money(total),
        prices=prices,
        scopes=None if stock is None else stock.scopes.number,
        bytes=None if stock is None else stock.bytes.number,
        sampled=stock is not None and (stock.scopes.sampled or stock.bytes.sampled),
        agent_types=None
        if agent_types is None
        else {name: _short(cell) for name, cell in sorted(agent_types.items())},
        others=None if others is None else _short(others),
    )


def summed(cells: Iterable[Mapping[Field, int]]) -> Counter[Field]:
    """All of them together."""
    total: Counter[Field] = Counter()
    for cell in cells:
        total.update(cell)
    return total


def _keyspace(total: Mapping[Field, int], name: str, entries: int | None = None) -> Keyspace:
    by: dict[str, dict[str, int]] = defaultdict(dict)
    for field, number in total.items():
        if field[0] == name and field[1] != "ms":
            by[field[1]][field[2]] = number
    hits, misses = sum(by["hit"].values()), sum(by["miss"].values())
    return Keyspace(
        requests=hits + misses,
        hits=_sorted(by["hit"]),
        hit_rate=round(hits / (hits + misses), 4) if hits + misses else None,
        misses=_sorted(by["miss"]),
        rules=_sorted(by["rule"]),
        stores=Stores(
            stored=sum(by["stored"].values()),
            refused=_sorted(by["refused"]),
            failed=sum(by["failed"].values()),
        ),
        latency_ms=_latencies((f[2], f[3], n) for f, n in total.items() if f[:2] == (name, "ms")),
        entries=entries,
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _latencies(counted: Iterable[tuple[str, str, int]]) -> dict[str, Latency]:
    """From (what, bucket, how many)."""
    by: dict[str, dict[int, int]] = defaultdict(dict)
    for what, bucket, number in counted:
        by[what][int(bucket)] = number
    return {what: _latency(buckets) for what, buckets in sorted(by.items())}


def _latency(buckets: Mapping[int, int]) -> Latency:
    p50, p90, p99 = (round(percentile(buckets, share) or 0.0, 3) for share in (0.5, 0.9, 0.99))
    return Latency(p50=p50, p90=p90, p99=p99, count=sum(buckets.values()))


def _money(total: Mapping[Field, int]) -> Money:
    saved, spent = total.get(("nano_usd", "saved"), 0), total.get(("nano_usd", "spent"), 0)
    provider_saved = total.get(("nano_usd", "provider_saved"), 0)
    return Money(
        saved_usd=saved / NANO,
        spent_usd=spent / NANO,
        provider_saved_usd=provider_saved / NANO,
        net_usd=(saved + provider_saved - spent) / NANO,
        unpriced_hits=total.get(("unpriced", "hits"), 0),
        unpriced_tokens=total.get(("unpriced", "tokens"), 0),
    )


def _short(cell: Mapping[Field, int]) -> Short:
    responses, money = _keyspace(cell, "responses"), _money(cell)
    return Short(
        requests=responses.requests,
        hits=sum(responses.hits.values()),
        stored=responses.stores.stored,
        saved_usd=money.saved_usd,
        spent_usd=money.spent_usd,
    )


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
