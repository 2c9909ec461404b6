"""Arguments of a tool call: key order and number forms don't matter, types do."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache.arguments import canonical
from service.cache.side_effects import by_name
from service.errors import InvalidInputError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def of(text: str, *ignored: str) -> bytes:
    return canonical(msgspec.Raw(text.encode()), ignored)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":2}', '{ "b" : 2, "a" : 1 }'),
        ('{"a":100}', '{"a":1e2}'),
        ('{"a":100}', '{"a":100.0}'),
        ('{"a":0.5}', '{"a":5E-1}'),
        ('{"a":0}', '{"a":-0.0}'),
        ('{"a":12345678901234567890}', '{"a":12345678901234567890.0}'),
        ('{"a":[{"x":1.0,"y":2}]}', '{"a":[{"y":2,"x":1}]}'),
        ('{"a":"\\u00e9"}', '{"a":"é"}'),
    ],
)
def test_forms_of_the_same(one: str, other: str) -> None:
    assert of(one) == of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1}', '{"a":"1"}'),
        ('{"a":1}', '{"a":true}'),
        ('{"a":null}', "{}"),
        ('{"a":null}', '{"a":"null"}'),
        ('{"a":1}', '{"a":-1}'),
        ('{"a":1}', '{"a":10}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"a":0.12345678901234567890123456789012}', '{"a":0.12345678901234567890123456789011}'),
        ('{"a":1e400}', '{"a":1e401}'),
        ('{"a":[1,2]}', '{"a":[2,1]}'),
        ('{"a":[1,2]}', '{"a":[12]}'),
        ('{"a":"x "}', '{"a":"x"}'),
        ('{"a":{"b":1}}', '{"a.b":1}'),
        ('{"a":"1e0"}', '{"a":1}'),
    ],
)
def test_what_differs(one: str, other: str) -> None:
    assert of(one) != of(other)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_any_order_and_any_float_form(arguments: dict[str, Any], random: Any) -> None:
    names = list(arguments)
    random.shuffle(names)
    shuffled = {name: arguments[name] for name in names}
    assert of(json.dumps(arguments)) == of(json.dumps(shuffled, indent=1, ensure_ascii=False))


@given(JSON, JSON)
def test_equal_only_what_json_calls_equal(one: Any, other: Any) -> None:
    def plain(value: Any) -> Any:  # types apart, numbers by value
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return (type(value).__name__, value)
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    same = of(json.dumps({"a": one})) == of(json.dumps({"a": other}))
    assert same == (plain(one) == plain(other))


def test_ignored_names_are_those_at_the_top() -> None:
    assert of('{"a":1,"id":2}', "id") == of('{"a":1}')
    assert of('{"a":{"id":2}}', "id") != of('{"a":{"id":3}}', "id")


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "{", '{"a":nul}', '{"a":"\\ud800"}'])
def test_no_object_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match="arguments"):
        of(text)


@pytest.mark.parametrize(
    "tool",
    """ReserveRestaurant BookAppointment TransferMoney MakePayment book_flight update_reservation_flights
    send_certificate github__create_issue slack_post_message jira.deleteIssue think AddAlarm PlayMedia
    ScheduleVisit ShareLocation runSQL""".split(),  # noqa: SIM905 - read as text
)
def test_names_that_change_something(tool: str) -> None:
    assert by_name(tool)


@pytest.mark.parametrize(
    "tool",
    """get_weather search_direct_flight SearchHotel FindMovies list_all_airports calculate order_status
    book_search share_price weather LookupMusic CheckBalance get_created_items schedule_lookup t""".split(),  # noqa: SIM905 - read as text
)
def test_names_that_only_read(tool: str) -> None:
    assert not by_name(tool)
