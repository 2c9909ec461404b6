"""Programs to copy from; tests/examples runs them."""
