"""How often is the cache right? Pairs, filled caches and streams of public sets, beside the peers.

`python -m bench.quality --help`; docs/quality.md says how to read the figures.
"""
