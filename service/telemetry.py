"""Counters and histograms. Labels are words of ours; never a user's text, never a tenant's name."""

from prometheus_client import Counter, Histogram

LOOKUPS = Counter("semcached_lookups", "Lookups answered.", ["outcome", "detail"])
STORES = Counter("semcached_stores", "Stores answered.", ["outcome"])
LATENCY = Histogram(
    "semcached_request_seconds",
    "Time from the handler's start, body not yet read, to its answer.",
    ["call"],
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2.5),
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
RECORDS_REFUSED = Counter(
    "semcached_records_refused", "Records read and not believed: form, MAC or id.", ["why"]
)
