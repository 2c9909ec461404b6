"""`migrate up --texts-per-s`: how the embedder is asked."""

import pytest

from service import migrate
from service.cache.digests import TenantKeys
from service.wiring import Parts
from tests.helpers import keep
from tests.migrate.test_models import QUESTIONS, Counted, hand, keys, others
from tests.migrate.test_moving import QUIET

pytestmark = pytest.mark.anyio

__all__ = ["hand", "keys", "others"]  # fixtures


@pytest.mark.parametrize(("per_s", "most"), [(None, len(QUESTIONS)), (4.0, 4)])
async def test_calls_of_no_more_than_a_second(
    *, parts: Parts, hand: Parts, keys: TenantKeys, per_s: float | None, most: int
) -> None:
    for question in QUESTIONS:
        await keep(parts, keys, prompt=question)
        await keep(parts, keys, prompt=question, system="another scope")
    assert hand.target.embedder is not None
    counted = Counted(hand.target.embedder)
    await migrate.up(hand.target._replace(embedder=counted), QUIET._replace(texts_per_s=per_s))
    assert sum(counted.calls) >= len(QUESTIONS)
    assert max(counted.calls) <= most
