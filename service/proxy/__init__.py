"""Between an agent and its provider: what is passed on, shared, kept and told again."""
