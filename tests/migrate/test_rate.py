"""`migrate up --texts-per-s`: how the embedder is asked."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service import migrate
from service.cache.digests import TenantKeys
from service.cache.ports import Embedded, Embedder
from service.wiring import Parts
from tests.helpers import keep
from tests.migrate.test_models import QUESTIONS, hand, keys, others
from tests.migrate.test_moving import QUIET

pytestmark = pytest.mark.anyio

__all__ = ["hand", "keys", "others"]  # fixtures


class Counted:
    """An embedder that notes how many texts each call has."""

    def __init__(self, inner: Embedder) -> None:
        self._inner, self.calls = inner, list[int]()
        self.model, self.revision, self.dim = inner.model, inner.revision, inner.dim

    def unfit(self, text: str) -> str | None:
        return self._inner.unfit(text)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(len(texts))
        return await self._inner.embed(texts)

    async def raw(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        return await self._inner.raw(texts, bulk=bulk)


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
