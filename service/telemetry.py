"""Counters, gauges and histograms.

Labels are words of ours, and those tenants' names that SEMCACHED_METRIC_TENANTS lists; never a user's text.
"""

import contextlib
import os
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

REQUESTS = Counter("semcached_requests", "Requests answered.", ["call", "status"])
LOOKUPS = Counter(
    "semcached_lookups", "Lookups answered: hits by tier, misses by reason.", ["tenant", "outcome", "detail"]
)
STORES = Counter("semcached_stores", "Stores answered.", ["tenant", "outcome"])
TOOL_LOOKUPS = Counter("semcached_tool_lookups", "Lookups of tool results.", ["tenant", "outcome", "detail"])
TOOL_STORES = Counter("semcached_tool_stores", "Stores of tool results.", ["tenant", "outcome"])
LATENCY = Histogram(
    "semcached_request_seconds",
    "Time from a request's headers to its answer, the body's way included.",
    ["call"],
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2.5),
)
EMBEDDINGS = Counter(
    "semcached_embeddings",
    "Texts whose vectors were wanted: kept (hit), or not (miss).",
    ["tenant", "outcome"],
)
EMBEDDED = Counter("semcached_embedded_texts", "Texts run through the embedder.")
EMBED_BATCH = Histogram(
    "semcached_embed_batch_size", "Texts per run of the model.", buckets=(1, 2, 4, 8, 16, 32)
)
EMBED_SECONDS = Histogram(
    "semcached_embed_seconds",
    "Time of a run of the local model, or of a request to the embeddings API.",
    ["embedder"],
    buckets=(0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2.5, 5, 10),
)
EMBED_FAILURES = Counter("semcached_embed_failures", "Calls of the embedder that failed.", ["why"])
VERIFIED = Counter("semcached_verified_pairs", "Pairs of texts run through the verifier.")
VERIFY_SECONDS = Histogram(
    "semcached_verify_seconds",
    "Time of a run of the verifier.",
    buckets=(0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1),
)
VERIFY_FAILURES = Counter("semcached_verify_failures", "Calls of the verifier that failed.", ["why"])
GUARDED = Counter("semcached_guarded", "Misses because a guard rejected the nearest entry.", ["guard"])
REWRITTEN = Counter("semcached_rewritten", "Messages rewritten to stand alone: made, or cached.", ["how"])
REWRITE_SECONDS = Histogram(
    "semcached_rewrite_seconds",
    "Time of a request to the rewriter.",
    buckets=(0.06, 0.12, 0.25, 0.5, 1, 2.5, 5, 10),
)
REWRITE_FAILURES = Counter("semcached_rewrite_failures", "Messages that were not rewritten.", ["why"])
JUDGED = Counter("semcached_judged", "Pairs of answers judged: same, different, unsure.", ["verdict"])
JUDGE_SECONDS = Histogram(
    "semcached_judge_seconds",
    "Time of a request to the judge.",
    buckets=(0.06, 0.12, 0.25, 0.5, 1, 2.5, 5, 10),
)
JUDGE_FAILURES = Counter("semcached_judge_failures", "Pairs of answers that were not judged.", ["why"])
LEASES = Counter("semcached_leases", "Lookups that took a lease, or waited for one in vain.", ["how"])
UPSTREAM = Counter(
    "semcached_upstream_calls",
    "Requests passed on to a provider, by the status it answered; `error`: it didn't.",
    ["provider", "status"],
)
SHARED = Counter("semcached_shared_calls", "Requests that read another's upstream call along.", ["provider"])
RECORDS_REFUSED = Counter(
    "semcached_records_refused", "Records read and not believed: form, MAC or id.", ["why"]
)
POINTERS = Counter(
    "semcached_pointers",
    "Pointers of earlier semantic hits that were believed: served, or why they led to nothing.",
    ["outcome"],
)
EVICTED = Counter("semcached_evicted", "Entries evicted because there were more than a policy's max_entries.")
POLICIES = Gauge("semcached_policies", "Policies in force.", multiprocess_mode="livemostrecent")
POLICIES_REFUSED = Counter(
    "semcached_policies_refused", "Policies read and not believed: form, MAC, id or fields.", ["why"]
)
TOKENS_SAVED = Counter(
    "semcached_tokens_saved", "Tokens of the answers that hits served: input, output.", ["tenant", "kind"]
)
MONEY_SAVED = Counter("semcached_usd_saved", "What those answers cost when they were made, USD.", ["tenant"])
MONEY_SPENT = Counter("semcached_usd_spent", "Tokens embedded by an API, by list price, USD.", ["tenant"])
FALSE_HITS = Gauge(
    "semcached_false_hit_rate",
    "Wrong answers among those served in the last days, of SEMCACHED_METRIC_TENANTS: rate, low, high.",
    ["tenant", "agent_type", "end"],
    multiprocess_mode="mostrecent",
)
COMPARED = Counter(
    "semcached_compared", "Fresh answers held against cached ones, by what came out.", ["verdict"]
)
DECISIONS_DROPPED = Counter(
    "semcached_decisions_dropped", "Decisions that were not kept: too many, or Redis away."
)
STATS_FAILURES = Counter("semcached_stats_failures", "Times that counts could not be written to Redis.")
STATS_WAITING = Gauge(
    "semcached_stats_waiting",
    "Agent_types with counts that Redis doesn't have yet.",
    multiprocess_mode="livesum",
)
INVALIDATED = Counter("semcached_invalidated_entries", "Entries deleted by invalidations.", ["keyspace"])
REDIS_SECONDS = Histogram(
    "semcached_redis_seconds",
    "Time of a round trip to Redis, the wait for a connection included.",
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2.5),
)
REDIS_FAILURES = Counter(
    "semcached_redis_failures",
    "Round trips without an answer: busy, timeout, connection, refused, unwell, unbound.",
    ["why"],
)
MEMORY_BYTES = Gauge(
    "semcached_memory_bytes",
    "What the records kept in the processes take, bytes.",
    multiprocess_mode="livesum",
)
MEMORY_ENTRIES = Gauge(
    "semcached_memory_entries", "Records kept in the processes.", multiprocess_mode="livesum"
)
MEMORY_INVALIDATIONS = Counter(
    "semcached_memory_invalidations", "Keys that Redis said had changed since they were read to be kept."
)
MEMORY_CONFIRMED = Gauge(
    "semcached_memory_confirmed",
    "Workers that may serve from memory now: Redis tells them of changes. None while nobody asks.",
    multiprocess_mode="livesum",
)
BREAKER_OPEN = Gauge(
    "semcached_breaker_open",
    "1 while nobody waits for Redis because it is away.",
    multiprocess_mode="livemax",
)
IN_FLIGHT = Gauge("semcached_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum")
TURNED_AWAY = Counter("semcached_turned_away", "Requests answered 429: in_flight, bodies, rate.", ["why"])
INDEX_FAILURES = Gauge(
    "semcached_index_failures",
    "Documents that RediSearch could not index.",
    multiprocess_mode="livemostrecent",
)
INDEX_DOCUMENTS = Gauge(
    "semcached_index_documents", "Documents in the index.", multiprocess_mode="livemostrecent"
)


# Series that exist from the start: else Prometheus doesn't see the first event.
for _counter, _labels in (
    (RECORDS_REFUSED, ("form", "mac", "id")),
    (
        POINTERS,
        ("served", "gone", "expired", "replaced", "threshold", "verifier", "unread", "model", "words"),
    ),
    (POLICIES_REFUSED, ("form", "mac", "id", "fields")),
    (REDIS_FAILURES, ("busy", "timeout", "connection", "refused", "unwell", "unbound")),
    (TURNED_AWAY, ("in_flight", "bodies", "rate")),
    (INVALIDATED, ("responses", "tools", "embeddings")),
    (VERIFY_FAILURES, ("busy", "slow", "model")),
    (REWRITE_FAILURES, ("none",)),
    (SHARED, ("openai", "anthropic")),
):
    for _label in _labels:
        _counter.labels(_label)


def forget_the_dead(folder: Path) -> None:
    """What workers that are gone said of themselves is no longer so; what they counted still counts."""
    for pid in {path.stem.rsplit("_", 1)[1] for path in folder.glob("gauge_live*.db")}:
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            if not _lives(int(pid)):
                mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call] # in prometheus_client


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: the number was given anew
        return False
    return True
