"""The providers' APIs as the cache sees them: requests to keys, streams to answers and back. Pure."""
