"""Corpora for the benches of speed: many tenants of very different size, real texts, real neighbourhoods.

    python -m bench.corpus --size 100000 --data ../shared/data --cache .bench

Three sizes in use, 10 k, 100 k and 1 M: a smaller one is the beginning of each larger one. Other benches call
`made` for the entries, and `filled` to have them in a Redis as the service would have stored them.
"""

from bench.corpus.entries import Corpus, made
from bench.corpus.filling import SECRET, Filled, api_key, filled, write_keys
from bench.corpus.queries import Query, queries

__all__ = ["SECRET", "Corpus", "Filled", "Query", "api_key", "filled", "made", "queries", "write_keys"]
