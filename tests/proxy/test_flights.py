"""Many who ask the same at once: one call of the provider's, the right answer for all, whoever leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bench.processes import Served, served
from tests.provider.script import Call, Error, Fault, Hold, Script
from tests.provider.server import Provider, until
from tests.proxy.apis import CHAT, RESPONSES, Api
from tests.proxy.conftest import kept

pytestmark = pytest.mark.anyio

CALLERS = {"chat": 500, "responses": 100, "messages": 100}


@asynccontextmanager
async def connected(service: Served) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    base_url = f"http://127.0.0.1:{service.port}"
    async with httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits) as client:
        yield client


async def inside(client: httpx.AsyncClient, number: int) -> None:
    """Until the service has so many requests, and they have looked into the cache."""
    with anyio.fail_after(30):
        while True:
            told = (await client.get("/metrics")).text
            if float(told.partition("\nsemcached_requests_in_flight ")[2].split()[0]) >= number:
                break
            await anyio.sleep(0.05)
    await anyio.sleep(0.5)


@pytest.mark.parametrize("first", [True, False], ids=["a stream first", "a whole answer first"])
async def test_one_call_for_all(
    api: Api,
    service: Served,
    provider: Provider,
    question: str,
    first: bool,  # noqa: FBT001 - a parameter
) -> None:
    hold = Hold(at=1 if first else 0)
    provider.say(Script(fault=Fault(gate=hold)))
    async with connected(service) as client:

        async def ask(streams: bool) -> httpx.Response:  # noqa: FBT001 - see above
            return await client.post(api.path, json=api.asking(question, stream=streams))

        leader = asyncio.create_task(ask(first))
        await until(lambda: hold.waiting == 1)
        others = [asyncio.create_task(ask(number % 2 == 0)) for number in range(CALLERS[api.name] - 1)]
        await inside(client, CALLERS[api.name] // 2)  # the others come while it is told, or after
        hold.release()
        answers = [await leader, *await asyncio.gather(*others)]
    assert provider.calls == 1
    assert {one.status_code for one in answers} == {200}
    assert [one.headers["x-cache"] for one in answers] == ["MISS"] + ["HIT"] * (CALLERS[api.name] - 1)
    assert all(question in one.text.replace('","', "") or _said(one.text, question) for one in answers)
    whole = {one.text for one in answers if one.headers["content-type"].startswith("application/json")}
    assert len(whole) == 1


async def test_two_processes_make_one_call(provider: Provider, tmp_path: Path, question: str) -> None:
    upstreams = {"openai_upstream": provider.url, "anthropic_upstream": provider.root}
    hold = Hold(at=0)
    provider.say(Script(fault=Fault(gate=hold)))
    with served(tmp_path / "one", redis_timeout_s="5", **upstreams) as one:
        url = f"unix://{tmp_path / 'one' / 'redis.sock'}"
        secret = (tmp_path / "one" / "secret").read_text().strip()
        with served(tmp_path / "two", redis_url=url, secret=secret, redis_timeout_s="5", **upstreams) as two:
            async with connected(one) as first, connected(two) as second:
                asking = [
                    asyncio.create_task(
                        client.post(CHAT.path, json=CHAT.asking(question, stream=number % 3 == 0))
                    )
                    for number in range(20)
                    for client in (first, second)
                ]
                await until(lambda: hold.waiting >= 1)
                await anyio.sleep(0.3)
                hold.release()
                answers = await asyncio.gather(*asking)
    assert provider.calls == 1
    assert {one.status_code for one in answers} == {200}


async def test_who_leaves_ends_nothing_for_the_others(
    api: Api, service: Served, provider: Provider, question: str
) -> None:
    hold = Hold(at=3)
    provider.say(Script(text="one two three four five six", fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [
            asyncio.create_task(client.post(api.path, json=api.asking(question, stream=True)))
            for _ in range(10)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, 10)
        for one in asking[:9]:  # the leader among them
            one.cancel()
        await asyncio.gather(*asking[:9], return_exceptions=True)
        await anyio.sleep(0.1)
        hold.release()
        answer = await asking[9]
        assert (answer.status_code, provider.calls, provider.aborted) == (200, 1, 0)
        assert _said(answer.text, "one two three four five six")
        again = await client.post(api.path, json=api.asking(question))
    assert again.headers["x-cache"] == "HIT"


async def test_all_leave_and_the_call_ends(
    service: Served, provider: Provider, http: httpx.Client, question: str
) -> None:
    hold = Hold(at=3)
    provider.say(Script(text="one two three four", fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [
            asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, stream=True)))
            for _ in range(10)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, 10)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: provider.aborted == 1)
    assert kept(http, question) == []


async def test_an_error_is_shared_and_not_kept(
    api: Api, service: Served, provider: Provider, http: httpx.Client, question: str
) -> None:
    hold = Hold(at=0)
    provider.say(Script(error=Error(429, retry_after="3"), fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [
            asyncio.create_task(client.post(api.path, json=api.asking(question, stream=number % 2 == 0)))
            for number in range(20)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, 20)
        hold.release()
        answers = await asyncio.gather(*asking)
    assert {(one.status_code, one.headers["retry-after"], one.headers["x-cache"]) for one in answers} == {
        (429, "3", "MISS")
    }
    assert len({one.content for one in answers}) == 1
    assert answers[0].json()["error"]["message"]
    assert provider.calls == 1
    assert kept(http, question) == []


async def test_what_changes_no_answer_but_is_repeated_is_each_ones_own(
    service: Served, provider: Provider, question: str
) -> None:
    hold = Hold(at=0)
    provider.mode = lambda asked: Script(
        text="Hello.",
        extra={name: asked.body[name] for name in ("user", "metadata")},
        fault=Fault(gate=hold),
    )
    users = [f"user{number}" for number in range(6)]
    async with connected(service) as client:
        asking = [
            asyncio.create_task(
                client.post(
                    RESPONSES.path,
                    json=RESPONSES.asking(question, user=user, metadata={"of": user}, stream=at % 2 == 0),
                )
            )
            for at, user in enumerate(users)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, len(users))
        hold.release()
        answers = [one.text for one in await asyncio.gather(*asking)]
    for user, answer in zip(users, answers, strict=True):
        assert {one for one in users if f'"{one}"' in answer} == {user}
    assert provider.calls == 1


async def test_an_error_is_for_whom_it_is_about(service: Served, provider: Provider, question: str) -> None:
    hold = Hold(at=0)
    provider.mode = lambda asked: Script(
        error=Error(400) if asked.body["user"] == "too long" else None, fault=Fault(gate=hold)
    )
    async with connected(service) as client:
        asking = []
        for user in ("too long", "fine"):
            asking.append(asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, user=user))))
            await until(lambda: hold.waiting == 1)
        await inside(client, 2)
        hold.release()
        answers = await asyncio.gather(*asking)
    assert [one.status_code for one in answers] == [400, 200]


async def test_an_error_about_the_form_is_for_that_form(
    service: Served, provider: Provider, question: str
) -> None:
    hold = Hold(at=0)
    provider.mode = lambda asked: Script(
        error=Error(400, "Your organization must be verified to stream.")
        if asked.body.get("stream")
        else None,
        fault=Fault(gate=hold),
    )
    async with connected(service) as client:
        asking = []
        for streams in (True, False):
            asked = CHAT.asking(question, stream=streams)
            asking.append(asyncio.create_task(client.post(CHAT.path, json=asked)))
            await until(lambda: hold.waiting == 1)
        await inside(client, 2)
        hold.release()
        answers = await asyncio.gather(*asking)
    assert [one.status_code for one in answers] == [400, 200]


async def test_what_is_not_kept_is_not_made_one_after_the_other(
    service: Served, provider: Provider, question: str
) -> None:
    """Requests of one entry that don't join: once the first brought nothing to keep, the others all ask."""
    hold = Hold(at=0)
    provider.say(Script(end="length", fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [
            asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, user=f"u{number}")))
            for number in range(5)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, 5)
        first = hold.waiting
        later = Hold(at=0)
        provider.say(Script(end="length", fault=Fault(gate=later)))
        hold.release()
        await until(lambda: later.waiting == 4)
        later.release()
        answers = await asyncio.gather(*asking)
    assert first == 1
    assert {one.status_code for one in answers} == {200}


async def test_a_client_that_leaves_at_once_leaves_no_lease_behind(
    service: Served, provider: Provider, question: str
) -> None:
    """At all points of the lookup; a lease would keep the next one waiting for up to 30 s."""
    async with connected(service) as client:
        for number in range(60):
            asked = CHAT.asking(f"{question} {number}")
            asking = asyncio.create_task(client.post(CHAT.path, json=asked))
            await anyio.sleep(number / 2000)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            again = await client.post(CHAT.path, json=asked, timeout=10)
            assert again.status_code == 200
    assert provider.inside == 0


async def test_a_long_stream_waits_for_nobody_who_wants_it_whole(
    service: Served, provider: Provider, question: str
) -> None:
    hold = Hold(at=1)
    provider.say(Script(text=question + (" " + "long" * 25_000) * 40, fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, stream=True)))]
        await until(lambda: hold.waiting == 1)
        asking.append(asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question), timeout=20)))
        await inside(client, 2)
        hold.release()
        streamed, whole = await asyncio.gather(*asking)
    assert len(streamed.content) > 4_000_000 < len(whole.content)
    assert provider.calls == 2


async def test_what_failed_is_counted_as_no_hit(service: Served, provider: Provider, question: str) -> None:
    agent = {"X-Semcached-Agent-Type": question[-20:]}
    hold = Hold(at=0)
    scripts = [
        (Script(error=Error(500), fault=Fault(gate=hold)), {}),
        (Script(text="one two", fault=Fault(gate=hold, cut=300, framing="chunked")), {"stream": True}),
        (Script(fault=Fault(gate=hold)), {}),
    ]
    async with connected(service) as client:
        for at, (script, form) in enumerate(scripts):
            hold._open.clear()
            provider.say(script)
            asking = [
                asyncio.create_task(
                    client.post(CHAT.path, json=CHAT.asking(f"{question} {at}", **form), headers=agent)
                )
                for _ in range(5)
            ]
            await until(lambda: hold.waiting == 1)
            await inside(client, 5)
            hold.release()
            await asyncio.gather(*asking, return_exceptions=True)
        told = (await client.get("/v1/stats", params={"agent_type": question[-20:]})).json()
    assert (told["hits"], sum(told["misses"].values()), told["requests"]) == ({"memory": 4}, 11, 15)
    assert told["stores"]["stored"] == 1
    assert provider.calls == 3


async def test_what_cannot_be_told_in_the_others_form_is_asked_again(
    service: Served, provider: Provider, http: httpx.Client, question: str
) -> None:
    """An answer that was cut short is passed on; nobody makes a stream of it, or takes it out of one."""
    hold = Hold(at=1)
    provider.say(Script(text="one two three", end="length", fault=Fault(gate=hold)))
    async with connected(service) as client:
        asking = [asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, stream=True)))]
        await until(lambda: hold.waiting == 1)
        asking += [
            asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, stream=streams)))
            for streams in (True, False)
        ]
        await inside(client, 3)
        hold.release()
        streamed, along, whole = await asyncio.gather(*asking)
    assert provider.calls == 2
    assert streamed.text == along.text
    assert whole.json()["choices"][0]["finish_reason"] == "length"
    assert kept(http, question) == []


async def test_calls_of_tools_are_shared_as_well(
    api: Api, service: Served, provider: Provider, question: str
) -> None:
    hold = Hold(at=0)
    provider.say(Script(calls=(Call("weather", {"city": "Bern"}),), fault=Fault(gate=hold)))
    asked = api.asking(question, **api.tools())
    async with connected(service) as client:
        asking = [
            asyncio.create_task(client.post(api.path, json=asked | {"stream": number % 2 == 0}))
            for number in range(10)
        ]
        await until(lambda: hold.waiting == 1)
        await inside(client, 10)
        hold.release()
        answers = await asyncio.gather(*asking)
    assert provider.calls == 1
    assert all("weather" in one.text and "Bern" in one.text for one in answers)


async def test_a_service_that_ends_breaks_no_answer_off_as_if_it_were_whole(
    provider: Provider, tmp_path: Path, question: str
) -> None:
    hold = Hold(at=5)
    provider.say(Script(text="one two three four five six seven", fault=Fault(gate=hold)))
    with served(tmp_path, openai_upstream=provider.url) as service:
        async with connected(service) as client:
            asking = asyncio.create_task(client.post(CHAT.path, json=CHAT.asking(question, stream=True)))
            await until(lambda: hold.waiting == 1)
            service.process.kill()
            with pytest.raises(httpx.TransportError):
                await asking


def _said(stream: str, text: str) -> bool:
    """Whether the deltas of a stream, joined, have a text."""
    return text in "".join(
        _delta(json.loads(line[6:])) for line in stream.splitlines() if line[:7] == "data: {"
    )


def _delta(told: dict[str, Any]) -> str:
    delta = told["choices"][0]["delta"] if told.get("choices") else told.get("delta")
    if isinstance(delta, dict):
        delta = delta.get("content") or delta.get("text")
    return delta or ""
