"""Who serves what: the service's own decision on one candidate, its parts alone, and the peers'."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.cache.guards import WORDING, verdicts
from service.cache.policy import DEFAULT
from service.cache.ports import Verifier
from service.cache.question import same_words
from service.settings import Settings
from service.verifiers.crossencoder import CrossEncoder
from service.verifiers.threaded import ThreadedVerifier

THRESHOLD = Settings().threshold
VERIFIER_BATCH = 64
Scores = NDArray[np.float64]
"""One per pair, greater is surer; NaN or -inf: served at no threshold."""


@cache
def shipped_verifier() -> Verifier | None:
    """The verifier that the service ships; None: it ships none."""
    return ThreadedVerifier(CrossEncoder())


class Judged(NamedTuple):
    """What the parts of the decision say of one candidate."""

    similarity: float
    said: dict[str, bool]  # by each guard
    score: float | None  # the verifier's; None: it wasn't asked, or can't say


def judge(similarity: float, cached: str, asked: str, score: float | None) -> Judged:
    """As the lookup does: equal texts need no guard, the same words no verifier."""
    said = {} if cached == asked else verdicts(asked, cached, DEFAULT, every=True)
    return Judged(similarity, said, 1.0 if same_words(cached, asked) else score)


def passed(one: Judged) -> bool:
    """Whether no guard speaks against it."""
    return all(one.said.values())


def serves(one: Judged, verifier: Verifier | None, threshold: float = THRESHOLD) -> bool:
    """The shipped decision: near enough, no guard against it, the verifier for it."""
    if not one.similarity >= threshold or not passed(one):
        return False
    return verifier is None or (one.score is not None and one.score >= verifier.cut)


def verified(
    verifier: Verifier | None, pairs: Sequence[tuple[str, str]], folder: Path | None
) -> list[float | None]:
    """The verifier's scores of (asked, cached), kept on disk by its version."""
    if verifier is None:
        return [None] * len(pairs)
    name = hashlib.sha256(repr((verifier.version, list(pairs))).encode()).hexdigest()[:24]
    file = folder / f"scores-{name}.npy" if folder else None
    if file is not None and file.exists():
        return [None if np.isnan(one) else float(one) for one in np.load(file)]
    found = asyncio.run(_scores(verifier, pairs))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.array([np.nan if one is None else one for one in found]))
    return found


async def _scores(verifier: Verifier, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    by_length = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]) + len(pairs[place][1]))
    found: list[float | None] = [None] * len(pairs)
    for at in tqdm(range(0, len(pairs), VERIFIER_BATCH), desc="verifier", disable=None, leave=False):
        places = by_length[at : at + VERIFIER_BATCH]
        for place, score in zip(places, await verifier.scores([pairs[p] for p in places]), strict=True):
            found[place] = score
    return found


class Decider(NamedTuple):
    """A way to decide, applied to the pairs of a set."""

    name: str
    scores: Scores | None  # for the sweep; None: nothing to sweep
    served: NDArray[np.bool_]  # by default


def redisvl(cosine: Scores) -> Scores:
    """RedisVL SemanticCache: minus the cosine distance; VECTOR_RANGE serves what is within the threshold.

    redisvl 0.28, extensions/cache/llm/semantic.py: `distance_threshold` 0.1, range query, nearest first.
    """
    return -(1 - cosine)


def gptcache(cosine: Scores) -> Scores:
    """GPTCache's SearchDistanceEvaluation: 4 minus the squared L2 distance of unit vectors.

    gptcache 0.1.44: manager/data_manager.py normalises, vector_data/faiss.py is a flat L2 index, which gives
    squares; similarity_evaluation/distance.py has max_distance 4.0; served at (max - min) * 0.8 and above.
    """
    return 4.0 - np.clip(2 - 2 * cosine, 0.0, 4.0)


class Peer(NamedTuple):
    """A peer's decision on our vectors: its arithmetic, its default, and where that was read."""

    name: str
    scores: Callable[[Scores], Scores]
    default: float
    source: str


def _cosine(cosine: Scores) -> Scores:
    return cosine


def _halved(cosine: Scores) -> Scores:
    return (1 + cosine) / 2


PEERS = (
    Peer("GPTCache", gptcache, 4.0 * 0.8, "0.1.44: similarity_threshold 0.8 of the range 0 to 4"),
    Peer("LiteLLM", redisvl, -(1 - 0.8), "1.109: no default; 0.8 is its documentation's, distance 1 - 0.8"),
    Peer("Bifrost", _cosine, 0.8, "plugins/semanticcache: DefaultCacheThreshold 0.8"),
    Peer("Upstash", _halved, 0.9, "semantic-cache 1.0.5: minProximity 0.9 of (1 + cosine) / 2"),
    Peer("LangCache", _cosine, 0.85, "its documentation: 0.85, taken as a cosine"),
    Peer("BetterDB", redisvl, -0.1, "semantic-cache 0.13.0: distance 0.1; without its LLM judge"),
    Peer("RedisVL", redisvl, -0.1, "0.28.0: distance_threshold 0.1"),
)
"""Each is a threshold on the cosine in other words: swept on the same vectors, all draw one line."""


def deciders(judged: Sequence[Judged], verifier: Verifier | None) -> list[Decider]:
    """Everyone's decision on the same pairs and the same vectors."""
    cosine = np.array([one.similarity for one in judged])
    free = np.array([passed(one) for one in judged], bool)
    near = cosine >= THRESHOLD
    guarded = np.where(free, cosine, -np.inf)
    found = [Decider("cosine", cosine, near)]
    if WORDING:
        found.append(Decider("guards", guarded, free))
    whole = guarded
    if verifier is not None:
        score = np.array([np.nan if one.score is None else one.score for one in judged])
        found.append(Decider("verifier", score, score >= verifier.cut))
        whole = np.where(near & free, score, -np.inf)
    found.append(Decider("semcached", whole, np.array([serves(one, verifier) for one in judged], bool)))
    return [*found, *(peer_decider(peer, cosine) for peer in PEERS)]


def peer_decider(peer: Peer, cosine: Scores) -> Decider:
    scores = peer.scores(cosine)
    return Decider(peer.name, scores, scores >= peer.default)


def guards_alone(judged: Sequence[Judged]) -> Mapping[str, NDArray[np.bool_]]:
    """Which pairs each guard rejects."""
    return {name: np.array([not one.said.get(name, True) for one in judged], bool) for name in WORDING}
