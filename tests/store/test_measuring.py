"""The index' gauges: measuring a large index holds up everybody, so it is done seldom."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import pytest

from service.api.auth import operator
from service.app import MEASURE_REST, MEASURE_S, _Attachment
from service.settings import Settings
from service.telemetry import INDEX_DOCUMENTS
from service.wiring import Loaded, Parts, opened
from tests.helpers import keep, vector

pytestmark = pytest.mark.anyio

TOOK_S = 0.05


@pytest.fixture
async def parts(settings: Settings, models: Loaded) -> AsyncIterator[Parts]:
    async with opened(settings, settings.redis_url or "", models) as parts:
        await parts.attach(lambda _: None)
        yield parts


async def test_what_took_long_is_not_measured_again_soon(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[None] = []
    measure = parts.responses.measure

    async def slow() -> Any:
        await measure()
        measured.append(None)
        await asyncio.sleep(TOOK_S)

    monkeypatch.setattr(parts.responses, "measure", slow)
    keys = parts.keyring.of(operator("acme"))
    await keep(parts, keys, prompt="p", embedding=vector(1))
    attachment = _Attachment(parts)
    for _ in range(3):
        await attachment.measure()
    assert len(measured) == 1
    assert INDEX_DOCUMENTS._value.get() == 1
    assert attachment._measure_at >= perf_counter() + max(MEASURE_S, MEASURE_REST * TOOK_S) - 1
