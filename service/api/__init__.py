"""HTTP and nothing else: decode, authenticate, call, encode."""
