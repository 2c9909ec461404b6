"""Everything that speaks Redis, and (with `migrate`) the only place that does."""
