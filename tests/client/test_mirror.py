"""The client's Structs against the service's: no field is missing, and one more does no harm."""

import msgspec
import pytest

from semcached import model
from service import model as ours
from service.api import entries, feedback, invalidation
from service.cache import figures, rules
from service.cache.learning import quality

PAIRS = [
    (model.Hit, ours.Hit),
    (model.Miss, ours.Miss),
    (model.Nearest, ours.Nearest),
    (model.Decision, ours.Decision),
    (model.JudgedCandidate, ours.JudgedCandidate),
    (model.ToolHit, ours.ToolHit),
    (model.ToolMiss, ours.ToolMiss),
    (model.ToolPolicy, ours.ToolPolicy),
    (model.Policy, ours.Policy),
    (model.Admission, ours.Admission),
    (model.TtlRule, ours.TtlRule),
    (model.Usage, ours.Usage),
    (model.Entry, entries.Entry),
    (model.Entries, entries.Entries),
    (model.Invalidated, invalidation.Invalidated),
    (model.Recorded, feedback.Recorded),
    (model.Quality, quality.Quality),
    (model.Shadowed, quality.Shadowed),
    (model.Fired, invalidation.Fired),
    (model.Rule, rules.Rule),
    (model.Stats, figures.Stats),
    (model.Counted, figures.Keyspace),
    (model.Stores, figures.Stores),
    (model.Money, figures.Money),
    (model.Tokens, figures.Tokens),
    (model.Latency, figures.Latency),
    (model.Short, figures.Short),
]


@pytest.mark.parametrize(("client", "service"), PAIRS, ids=lambda kind: kind.__name__)
def test_the_fields_are_the_services(client: type[msgspec.Struct], service: type[msgspec.Struct]) -> None:
    assert set(client.__struct_fields__) == set(service.__struct_fields__)
    assert client.__struct_config__.tag == service.__struct_config__.tag


@pytest.mark.parametrize(
    ("client", "service"), [PAIRS[at] for at in (7, 8, 9)], ids=lambda kind: kind.__name__
)
def test_what_a_policy_leaves_open_is_the_services_default(
    client: type[msgspec.Struct], service: type[msgspec.Struct]
) -> None:
    """What has its default isn't sent: so the defaults must be the same."""
    given = {"tool": "t"} if client is model.ToolPolicy else {}
    sent = msgspec.json.decode(msgspec.json.encode(client(**given)))
    assert sent == given
    theirs = msgspec.json.decode(msgspec.json.encode(service(**given)))
    for name in set(theirs) - {"admission"}:  # which is compared by itself
        mine = msgspec.json.encode(getattr(client(**given), name))
        assert msgspec.json.decode(mine) == theirs[name], name


def test_a_newer_services_field_is_passed_over() -> None:
    hit = {
        "outcome": "hit",
        "lookup_id": "1",
        "tier": "memory",
        "entry_id": "e",
        "response": "r",
        "similarity": 1,
        "threshold": 0.9,
        "age_s": 1,
        "colour": "red",
    }
    assert msgspec.json.decode(msgspec.json.encode(hit), type=model.Hit | model.Miss).response == "r"
