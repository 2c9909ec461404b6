"""Every call against a real service, sync and async: the results are typed, the errors a tree."""

import asyncio
import pickle
from pathlib import Path

import pytest

import semcached
from bench.processes import command, free_port, served
from semcached import (
    AsyncClient,
    Client,
    ConfigurationError,
    DeadlineError,
    Failed,
    FieldError,
    ForbiddenError,
    Hit,
    InvalidRequestError,
    Miss,
    NotFoundError,
    Policy,
    Refused,
    SemcachedError,
    Stored,
    ToolHit,
    ToolMiss,
    ToolPolicy,
    TransportError,
    UnauthenticatedError,
    UnreachableError,
    Usage,
)

pytestmark = pytest.mark.anyio


def test_lookup_and_store(client: Client, agent: str) -> None:
    miss = client.lookup(agent_type=agent, prompt="What is a lease?", explain=True)
    assert isinstance(miss, Miss)
    assert miss.reason == "empty"
    assert miss.decision is not None
    assert miss.decision.tiers == ["exact", "semantic"]
    kept = client.store(
        agent_type=agent,
        prompt="What is a lease?",
        response={"text": "A turn."},
        metadata={"by": "test"},
        sources=["doc:1"],
        usage=Usage(cost_usd=0.5),
        lookup_id=miss.lookup_id,
    )
    assert isinstance(kept, Stored)
    hit = client.lookup(agent_type=agent, prompt="What is a lease?")
    assert isinstance(hit, Hit)
    assert (hit.response, hit.metadata, hit.sources) == ({"text": "A turn."}, {"by": "test"}, ["doc:1"])
    assert (hit.tier, hit.entry_id) == ("exact", kept.entry_id)
    entry = client.entry(kept.entry_id)
    assert (entry.prompt, entry.usage) == ("What is a lease?", Usage(cost_usd=0.5))
    assert [one.entry_id for one in client.entries(agent_type=agent, limit=1).items] == [kept.entry_id]
    assert client.stats(agent).hits == {"exact": 1}
    client.delete_entry(kept.entry_id)
    with pytest.raises(NotFoundError):
        client.entry(kept.entry_id)
    with pytest.raises(NotFoundError):
        client.delete_entry(kept.entry_id)


def test_an_answer_that_a_rule_keeps_out(client: Client, agent: str) -> None:
    refused = client.store(agent_type=agent, prompt="q", response="Error: it failed")
    assert refused == Refused(reason="error")


def test_batches_answer_item_by_item(client: Client, agent: str) -> None:
    kept = client.store_batch(
        [
            {"agent_type": agent, "prompt": "one", "response": 1},
            {"agent_type": agent, "prompt": "two", "response": "Error: it failed"},
            {"agent_type": agent, "prompt": "three", "response": 3, "ttl_s": 0},
        ]
    )
    assert isinstance(kept[0], Stored)
    assert kept[1] == Refused(reason="error")
    assert isinstance(kept[2], Failed)
    assert kept[2].error.errors[0].field == "ttl_s"
    found = client.lookup_batch(
        [
            {"agent_type": agent, "prompt": "one"},
            {"agent_type": agent, "prompt": "none", "tiers": ["exact"]},
            {"agent_type": "", "prompt": "one"},
        ]
    )
    assert [type(one) for one in found] == [Hit, Miss, Failed]


def test_tools(client: Client, agent: str) -> None:
    asked = {"agent_type": agent, "tool": "get_weather", "arguments": {"city": "Paris"}}
    miss = client.lookup_tool(agent_type=agent, tool="get_weather", arguments={"city": "Paris"}, wait_s=1)
    assert isinstance(miss, ToolMiss)
    assert miss.lease
    kept = client.store_tool(
        agent_type=agent,
        tool="get_weather",
        arguments={"city": "Paris"},
        result=[1, None],
        ttl_s=None,
        lookup_id=miss.lookup_id,
    )
    assert isinstance(kept, Stored)
    assert kept.expires_in_s is None
    hit = client.lookup_tool(agent_type=agent, tool="get_weather", arguments={"city": "Paris"})
    assert isinstance(hit, ToolHit)
    assert hit.result == [1, None]
    policy = ToolPolicy(tool=agent, ttl_s=None, ignore_arguments=["id"])
    put = client.put_tool_policy(policy)
    assert (put.ttl_s, put.cacheable, put.ignore_arguments) == (None, True, ["id"])
    assert put in client.tool_policies()
    assert asked["tool"] == "get_weather"


def test_policies_rules_and_events(client: Client, agent: str) -> None:
    policy = client.put_policy(agent, Policy(threshold=0.97, ttl_s=None, tiers=["exact"]))
    assert client.policy(agent) == policy
    assert (policy.threshold, policy.ttl_s, list(policy.tiers)) == (0.97, None, ["exact"])
    assert client.rules() == []
    rule = client.put_rule(agent, event=agent, where={"source": "p:{id}"})
    assert rule in client.rules()
    client.store(agent_type=agent, prompt="q", response="r", sources=["p:7"])
    found = client.invalidate({"agent_type": agent}, dry_run=True)
    assert (found.matched, found.deleted) == (1, 0)
    fired = client.event(agent, {"id": 7})
    assert (fired.rules, fired.deleted) == ([agent], 1)
    client.delete_rule(agent)
    assert rule not in client.rules()
    assert client.invalidate({"agent_type": agent}, keyspaces=["responses"]).matched == 0


@pytest.mark.parametrize("name", ["..", ".", "a?b", "a%2Fb", "ä b", "#"])
def test_names_reach_the_service_as_they_are(client: Client, agent: str, name: str) -> None:
    assert client.put_rule(name, event=agent, where={"source": "x"}).name == name
    client.delete_rule(name)
    with pytest.raises(NotFoundError):
        client.delete_entry(name)


def test_embeddings(client: Client, agent: str) -> None:
    vectors = client.embed(["a text", "another"])
    assert [one.index for one in vectors.data] == [0, 1]
    assert len(vectors.data[0].embedding) == 384
    assert client.store_embeddings([{"text": "t", "embedding": [0.5, 0.25]}], model=agent) == 1
    assert client.lookup_embeddings(["t", "u"], model=agent) == [[0.5, 0.25], None]
    with pytest.raises(NotFoundError, match="is not served here"):
        client.embed(["a text"], model="other")


def test_health(client: Client) -> None:
    assert client.health().ready


def test_clear_needs_the_name(client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.clear(confirm="acme")
    assert caught.value.errors == (
        FieldError("confirm", "must be the name of the key's tenant, as in ?confirm=acme"),
    )


async def test_async(url: str, agent: str) -> None:
    async with AsyncClient(url, timeout_s=30) as client:
        assert isinstance(await client.lookup(agent_type=agent, prompt="q"), Miss)
        assert isinstance(await client.store(agent_type=agent, prompt="q", response="r"), Stored)
        hits = await asyncio.gather(*(client.lookup(agent_type=agent, prompt="q") for _ in range(20)))
        assert {type(one) for one in hits} == {Hit}
        assert (await client.health()).ready
        assert (await client.entries(agent_type=agent)).items[0].response == "r"
        with pytest.raises(NotFoundError):
            await client.entry("0" * 32)
    with pytest.raises(SemcachedError, match="closed"):
        await client.health()


def test_both_clients_have_the_same_calls() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(AsyncClient) - {"aclose"} == names(Client) - {"close"}


def test_what_is_wrong_is_named(client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.lookup(agent_type="a", prompt="q", threshold=2)
    assert caught.value.status == 400
    assert caught.value.errors[0].field == "threshold"
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert (type(again), str(again), again.errors) == (
        InvalidRequestError,
        str(caught.value),
        caught.value.errors,
    )


def test_keys_and_roles(tmp_path: Path) -> None:
    key = command(tmp_path, "keys", "create", "--tenant", "acme", "--role", "reader").stdout.strip()
    with served(tmp_path, verifier="off") as service:
        url = f"http://127.0.0.1:{service.port}"
        with Client(url) as nobody, pytest.raises(UnauthenticatedError):
            nobody.lookup(agent_type="a", prompt="q")
        with Client(url, key) as reader:
            assert isinstance(reader.lookup(agent_type="a", prompt="q"), Miss)
            with pytest.raises(ForbiddenError):
                reader.store(agent_type="a", prompt="q", response="r")
            assert key not in repr(reader)


def test_nobody_there() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(UnreachableError) as caught:
            client.health()
        assert isinstance(caught.value, TransportError)
    assert issubclass(DeadlineError, TimeoutError)


@pytest.mark.parametrize(
    ("url", "key"),
    [("localhost:8080", None), ("http://a:b@host", None), ("http://", None), ("http://h", "a key")],
)
def test_a_wrong_setting_is_named(url: str, key: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"SEMCACHED_(URL|API_KEY)"):
        Client(url, key)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SEMCACHED_URL", url)
    with semcached.Client() as client:
        assert client.health().ready
    monkeypatch.setenv("SEMCACHED_URL", "")
    assert "127.0.0.1:8080" in repr(semcached.Client())
