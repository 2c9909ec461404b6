"""What a predicate means for one entry; patterns; templates."""

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.invalidation import (
    Keyspace,
    Newer,
    Predicate,
    Subject,
    Where,
    matches,
    predicate,
    question,
)
from service.cache.patterns import compiled, quoted
from service.cache.rules import Rule, check_rule, filled
from service.cache.tickets import Ticket
from service.errors import InvalidInputError
from tests.helpers import vector

AT = 1_000_000
MODEL = ("m", "r", 384)
VECTOR = np.frombuffer(base64.b64decode(vector(1)), "<f4")
ENTRY = Subject(
    keyspace=Keyspace.RESPONSES,
    entry_id="id",
    agent_type="a",
    model="m",
    sources=["s", "t"],
    tags=["t"],
    attributes={"k": "v", "l": "w"},
    text="What is it?",
    vector=VECTOR,
    embedding=MODEL,
)


def test_a_predicate_without_criteria_matches_everything_where_it_looks() -> None:
    for keyspace in Keyspace:
        assert matches(Predicate(at=AT), Subject(keyspace), AT)
        assert not matches(Predicate(at=AT, keyspaces=()), Subject(keyspace), AT)


@pytest.mark.parametrize(
    ("where", "matched"),
    [
        (Where(entry_id="id", agent_type="a", model="m", source="t", tag="t"), True),
        (Where(attributes={"k": "v"}), True),
        (Where(attributes={"k": "v", "l": "v"}), False),
        (Where(agent_type="A"), False),
        (Where(prompt_version="1"), False),
        (Where(prompt_regex="is [a-z]+\\?$"), True),
        (Where(tool="t"), False),
        (Where(source="s", tag="s"), False),
    ],
)
def test_all_criteria_must_hold(where: Where, *, matched: bool) -> None:
    assert matches(predicate(where, list(Keyspace), AT), ENTRY, AT) is matched


def test_a_criterion_that_a_keyspace_lacks_matches_nothing_there() -> None:
    tool = Subject(Keyspace.TOOLS, "id", agent_type="a", tool="t", sources=["s"], tags=["t"], model="m")
    embedding = Subject(Keyspace.EMBEDDINGS, "id", agent_type="a", model="m")
    for where, of_tool, of_embedding in [
        (Where(agent_type="a"), True, False),
        (Where(tool="t", source="s"), True, False),
        (Where(model="m"), False, True),
        (Where(tag="t"), False, False),
        (Where(older_than_s=0), True, True),
        (Where(entry_id="id"), True, False),
    ]:
        one = predicate(where, list(Keyspace), AT)
        assert (matches(one, tool, AT), matches(one, embedding, AT)) == (of_tool, of_embedding)


def test_age_counts_from_the_invalidation() -> None:
    one = predicate(Where(older_than_s=1.5), [Keyspace.RESPONSES], AT)
    assert matches(one, ENTRY, AT - 1500)
    assert not matches(one, ENTRY, AT - 1499)


def test_similarity() -> None:
    one = Predicate(at=AT, vector=VECTOR.tobytes(), threshold=0.99, embedding=MODEL)
    assert matches(one, ENTRY, AT)
    assert not matches(one, ENTRY._replace(vector=-VECTOR), AT)
    assert not matches(one, ENTRY._replace(vector=None), AT)
    assert matches(one, ENTRY._replace(vector=-VECTOR, embedding=("other", "r", 384)), AT)


@given(
    st.builds(Where, source=st.none() | st.text(), attributes=st.none() | st.just({"k": "v"})), st.binary()
)
def test_a_predicate_comes_back_from_the_log_as_it_was(where: Where, raw: bytes) -> None:
    one = msgspec.structs.replace(predicate(where, list(Keyspace), AT), vector=raw, embedding=MODEL)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Predicate) == one


def test_what_cannot_be_read_refuses() -> None:
    assert not Newer([]).refuses(ENTRY, Ticket(0, AT))
    assert Newer([], unknown=True).refuses(ENTRY, Ticket(0, AT))
    old = predicate(Where(older_than_s=10), list(Keyspace), AT)
    assert Newer([old]).refuses(ENTRY, Ticket(0, AT - 10_000))
    assert not Newer([old]).refuses(ENTRY, Ticket(0, AT))


def test_the_question_of_a_conversation() -> None:
    said = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    ]
    assert question("plain", msgspec.json.encode(said)) == "plain"
    assert question(None, msgspec.json.encode(said)) == "x"
    assert question(None, msgspec.json.encode([{"role": "user", "content": [{"type": "image"}]}])) is None
    assert question(None, None) is None


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_a_quoted_text_is_found_as_it_is(text: str, around: str) -> None:
    assert compiled("p", quoted(text)).matches(around + text + around)


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(a)\1", "a{1001}", "x" * 513, "((a{100}){100}){100}"])
def test_patterns_that_cannot_be_bounded_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^where\.prompt_regex: "):
        compiled("where.prompt_regex", pattern)


def test_templates() -> None:
    where = Where(source="{a}:{{{b}}}", attributes={"{a}": "{b}"}, prompt_regex="^{a}{{2}}", older_than_s=1)
    check_rule(where)
    made = filled(Rule("r", "e", where), {"a": 7, "b": "x.y", "price": 9.99, "more": [None]})
    assert made == Where(source="7:{x.y}", attributes={"{a}": "x.y"}, prompt_regex="^7{2}", older_than_s=1)
    quoting = filled(Rule("r", "e", Where(prompt_regex="{b}")), {"b": ".*"})
    assert not compiled("p", quoting.prompt_regex or "").matches("anything")
    with pytest.raises(InvalidInputError, match=r"^data\.a: is required by the rule 'r'"):
        filled(Rule("r", "e", where), {"b": "x"})
    values: list[object] = [1.5, True, None, [], {}]
    for value in values:
        with pytest.raises(InvalidInputError, match=r"^data\.f: "):
            filled(Rule("r", "e", Where(source="{f}")), {"f": value})
    with pytest.raises(InvalidInputError, match="8192 bytes"):
        check_rule(Where(attributes={str(at): "x" * 500 for at in range(20)}))
