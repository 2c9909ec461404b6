"""semcached, the service.

The way of a lookup: bytes become a Struct (`api.wire`; decoding validates), the key names the tenant
(`api.auth`), the request gets its digests (`cache.canonical`), and `cache.lookup` decides: record of the id
(`store.responses`), else where a pointer leads (`cache.pointers`), else vector (`embedders`), nearest
ids, their records, guards, hit or miss. `app` and `wiring` put the parts together; `cli` starts them. Imports
point downwards only; `pyproject.toml` says how.
"""
