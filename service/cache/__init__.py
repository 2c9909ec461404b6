"""The decisions, pure: no Redis, no HTTP, no provider."""
