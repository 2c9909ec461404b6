"""One program per contender. `harness` needs numpy only: most of these run in the peers' environment."""
