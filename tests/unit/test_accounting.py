"""Buckets, prices, and what is counted for a hit."""

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cache import prices
from service.cache.histogram import LAST, LEAST_MS, RATIO, bucket_of, middle_ms, percentile
from service.cache.prices import NANO
from service.embedders.answers import tokens_of
from service.embedders.local import MODEL
from service.errors import SettingsError
from service.model import Usage

TIMES = st.floats(LEAST_MS, 90_000, allow_nan=False)


def counted(times: list[float]) -> dict[int, int]:
    buckets: dict[int, int] = {}
    for ms in times:
        buckets[bucket_of(ms)] = buckets.get(bucket_of(ms), 0) + 1
    return buckets


@given(st.lists(TIMES, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentiles_are_within_five_percent_of_the_exact_ones(times: list[float], share: float) -> None:
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    found = percentile(counted(times), share)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact


@given(st.lists(TIMES, max_size=50), st.lists(TIMES, max_size=50))
def test_buckets_add_up(some: list[float], others: list[float]) -> None:
    one, two = counted(some), counted(others)
    both = {bucket: one.get(bucket, 0) + two.get(bucket, 0) for bucket in {*one, *two}}
    assert both == counted(some + others)


@given(st.floats(0, 1e12, allow_nan=False))
def test_every_time_has_a_bucket(ms: float) -> None:
    assert 0 <= bucket_of(ms) <= LAST


def test_the_last_bucket_begins_where_it_is_said_to() -> None:
    assert LEAST_MS * RATIO ** (LAST - 1) < 100_000 < LEAST_MS * RATIO ** (LAST + 1)
    assert middle_ms(0) == pytest.approx(LEAST_MS * RATIO**0.5)
    assert percentile({}, 0.5) is None


SHIPPED = prices.load()


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-11-20", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gpt-5-chat-latest", "gpt-5-chat"),
        ("gpt-4o-of-nobody", None),
        ("gpt-4o-4", None),
        ("claude-opus", None),
        ("", None),
    ],
)
def test_models_are_found_by_name_and_date(model: str, same_as: str | None) -> None:
    assert SHIPPED.of(model) is (None if same_as is None else SHIPPED.file.models[same_as])


def test_every_shipped_price_is_of_a_model_once() -> None:
    for model, price in SHIPPED.file.models.items():
        assert (price.output == 0) == (model.startswith("text-embedding") or model == MODEL), model
        assert (price.input > 0) == (model != MODEL), model  # ours runs here
    assert "litellm" in SHIPPED.file.as_of


@pytest.mark.parametrize(
    ("usage", "model", "usd"),
    [
        (Usage(cost_usd=0.25, input_tokens=10**6), "gpt-4o", 0.25),
        (Usage(cost_usd=0.0, input_tokens=10**6), "gpt-4o", 0.0),
        (Usage(input_tokens=10**6), "gpt-4o", 2.5),
        (Usage(output_tokens=10**6), "gpt-4o", 10.0),
        (Usage(input_tokens=10**6), None, None),
        (Usage(latency_ms=3.0), "gpt-4o", None),
        (Usage(input_tokens=1), "another", None),
        (Usage(input_tokens=2**53), "gpt-4o", 1e6),
    ],
)
def test_what_an_answer_cost(usage: Usage, model: str | None, usd: float | None) -> None:
    assert SHIPPED.saved(usage, model) == (None if usd is None else round(usd * NANO))


def test_a_token_of_the_cheapest_model_is_worth_something() -> None:
    assert SHIPPED.spent("text-embedding-3-small", 1) == 20


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "No such file"),
        ("no json", "malformed"),
        ('{"as_of": "1", "source": "s"}', "models"),
        ('{"as_of": "1", "source": "s", "models": {"m": {"input": -1}}}', "input"),
        ('{"as_of": "1", "source": "s", "models": {"m": {"input": 1, "in": 1}}}', "in"),
    ],
)
def test_a_wrong_price_file_is_one_clear_line(tmp_path: Path, text: str | None, named: str) -> None:
    path = tmp_path / "prices.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=f"SEMCACHED_PRICES.*{named}"):
        prices.load(path)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        (None, 0),
        ({}, 0),
        ({"prompt_tokens": -1}, 0),
        ({"prompt_tokens": "7"}, 0),
        ({"prompt_tokens": 1e300}, 0),
        ([], 0),
    ],
)
def test_tokens_are_believed_where_they_are_a_number(usage: object, tokens: int) -> None:
    assert tokens_of(msgspec.Raw(msgspec.json.encode(usage))) == tokens
    assert tokens_of(msgspec.Raw(b"rubbish")) == 0
