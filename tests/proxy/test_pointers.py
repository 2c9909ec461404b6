"""A question in other words, asked again through the proxy."""

import re
import time

import httpx

from tests.provider.server import Provider
from tests.proxy.apis import CHAT


def followed(http: httpx.Client) -> float:
    """How many pointers were served."""
    found = re.search(r'semcached_pointers_total\{outcome="served"\} (\S+)', http.get("/metrics").text)
    assert found is not None
    return float(found[1])


def test_the_second_time_a_pointer_leads_to_the_answer(provider: Provider, http: httpx.Client) -> None:
    first = http.post(CHAT.path, json=CHAT.asking("How do I return the order of last week?"))
    assert first.headers["x-cache"] == "MISS"
    reworded, before = CHAT.asking("how do I return the order of last week"), followed(http)
    ends = time.monotonic() + 10
    while followed(http) == before:
        assert time.monotonic() < ends
        again = http.post(CHAT.path, json=reworded)
        assert again.headers["x-cache"] == "HIT"
        assert again.json()["choices"] == first.json()["choices"]
    assert provider.calls == 1
