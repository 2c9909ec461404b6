"""The shipped verifier: a MiniLM-L6 cross-encoder in int8, trained by `bench/verifier` for one question.

Does the answer to the one text fit the other? It reads a pair in both orders, unless the first leaves no
hope; which one is first depends on the texts alone, so the score is symmetric. It doesn't depend on what else
is in the batch.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.cache.wording.language import foreign
from service.embedders.local import tokenizer
from service.errors import StartupError
from service.verifiers.pairs import Encoded, encode, side

WEIGHTS = Path(__file__).with_name("equivalence.onnx")
LONGEST = 192
"""Word pieces of both texts; what is longer nobody trained it for."""

LONGEST_CHARS = 4096
"""Of both texts: longer ones have more pieces, and even counting them takes time from others."""


HOPELESS = 0.0
"""The logit (score 0.5) of the first order below which the second one isn't read."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside the weights; the cut came out of `semcached calibrate`."""

    cut: float


def digest_of(weights: bytes) -> str:
    """What tells these weights from others; a cut and a fitted head are for one version."""
    return hashlib.sha256(weights).hexdigest()[:16]


class CrossEncoder:
    """The model; blocking, one call at a time."""

    def __init__(self, weights: Path = WEIGHTS, threads: int = 1) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as for the embedder
        try:
            import onnxruntime  # noqa: PLC0415 - half a second that a service without a verifier doesn't need
        except ImportError as error:
            raise StartupError(
                f"{error.name} is missing: `pip install semcached-server[local]`, or SEMCACHED_VERIFIER=off"
            ) from None
        self._tokenizer = tokenizer()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # it never gives back what one long batch took
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = weights.read_bytes()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.version = digest_of(content)
        self.cut = msgspec.json.decode(weights.with_suffix(".json").read_bytes(), type=Card).cut

    def run(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """0 to 1 for each pair; None where the two texts are too long, or not English."""
        short = [at for at, pair in enumerate(pairs) if sum(map(len, pair)) <= LONGEST_CHARS]
        short = [at for at in short if not any(map(foreign, pairs[at]))]
        sides = {text: side(self._tokenizer, text) for at in short for text in pairs[at]}
        fitting = [at for at in short if sum(len(sides[text].ids) for text in pairs[at]) <= LONGEST]
        ordered = {at: [sides[text] for text in sorted(pairs[at])] for at in fitting}
        logits = self._logits({at: encode(a, b) for at, (a, b) in ordered.items()})
        hopeful = {at: encode(b, a) for at, (a, b) in ordered.items() if logits[at] > HOPELESS}
        for at, logit in self._logits(hopeful).items():
            logits[at] = (logits[at] + logit) / 2
        return [1 / (1 + math.exp(-logits[at])) if at in logits else None for at in range(len(pairs))]

    def _logits(self, rows: Mapping[int, Encoded]) -> dict[int, float]:
        """By the same keys."""
        if not rows:
            return {}
        found: Any = self._session.run(None, _feed(list(rows.values())))[0]
        return dict(zip(rows, found.tolist(), strict=True))


def _feed(rows: Sequence[Encoded]) -> dict[str, NDArray[np.int64]]:
    """Each [n, longest]."""
    shape = len(rows), max(len(row.ids) for row in rows)
    feed = {name: np.zeros(shape, np.int64) for name in ("ids", "sides", "flags", "mask")}
    for at, row in enumerate(rows):
        length = len(row.ids)
        feed["ids"][at, :length] = row.ids
        feed["sides"][at, :length] = row.sides
        feed["flags"][at, :length] = row.flags
        feed["mask"][at, :length] = 1
    return feed
