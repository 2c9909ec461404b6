"""What was seen of an entry: how near a question was, and whether the entry's answer fitted it."""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

KEPT = 64
"""Observations of an entry that are kept."""

FAR = 5.0
"""Logits of a score are cut to ± this: what lies beyond says no more."""

VERSION = 1
_ONE = struct.Struct("<HH")
_STEPS, _LEVELS, _UNREAD, _CORRECT = 0xFFFF, 0x7FFE, 0x7FFF, 0x8000
_ENTRY = 8

Row = tuple[float, float, float, float]
"""What the models see of a candidate: 1, similarity, the score's logit, 1 where nobody read it."""


class Observation(NamedTuple):
    """One question that was near to an entry, and answered afresh."""

    similarity: float
    score: float | None  # the verifier's, 0 to 1; None: it didn't read them
    correct: bool  # whether the entry's answer would have been right


def logit(score: float) -> float:
    """Of a score from 0 to 1, cut to ± FAR."""
    if score <= 0 or score >= 1:
        return FAR if score >= 1 else -FAR
    return max(-FAR, min(FAR, math.log(score / (1 - score))))


def row(similarity: float, score: float | None) -> Row:
    """Scaled so that each number is about 1 in size."""
    near = (similarity - 0.85) / 0.1
    return (1.0, near, 0.0, 1.0) if score is None else (1.0, near, logit(score) / 4, 0.0)


def added(kept: Sequence[Observation], one: Observation) -> tuple[Observation, ...]:
    """With the newest; the oldest goes, whatever it says: a choice by its label would bend the fit."""
    return (*kept[-KEPT + 1 :], one)


def encoded(observations: Iterable[Observation]) -> bytes:
    """A version, then 4 bytes each: similarity in steps of 3e-5, the score's logit in steps of 3e-4."""
    return bytes([VERSION]) + b"".join(map(packed, observations))


def decoded(data: bytes) -> tuple[Observation, ...]:
    """None where another version wrote them, or they are cut short."""
    if data[:1] != bytes([VERSION]) or (len(data) - 1) % _ONE.size:
        return ()
    return tuple(unpacked(data[at : at + _ONE.size]) for at in range(1, len(data), _ONE.size))


def packed(one: Observation) -> bytes:
    """4 bytes."""
    near = round((min(1.0, max(-1.0, one.similarity)) + 1) / 2 * _STEPS)
    level = _UNREAD if one.score is None else round((logit(one.score) + FAR) / (2 * FAR) * _LEVELS)
    return _ONE.pack(near, level | _CORRECT if one.correct else level)


def unpacked(data: bytes) -> Observation:
    """From 4 bytes.

    Raises:
        struct.error: they are more or fewer.
    """
    near, rest = _ONE.unpack(data)
    level = rest & ~_CORRECT
    score = None if level == _UNREAD else 1 / (1 + math.exp(FAR - level / _LEVELS * 2 * FAR))
    return Observation(near / _STEPS * 2 - 1, score, bool(rest & _CORRECT))


class Note(NamedTuple):
    """An observation of an agent_type's sample, and whose it is."""

    entry: bytes  # 8
    seen: Observation


def noted(entry_id: str, one: Observation) -> bytes:
    """12 bytes for the sample; the entry by half of its id, which is enough to tell entries apart."""
    return bytes.fromhex(entry_id)[:_ENTRY] + packed(one)


def notes(data: Iterable[bytes]) -> list[Note]:
    """What `noted` wrote; what has another length is left out."""
    length = _ENTRY + _ONE.size
    return [Note(one[:_ENTRY], unpacked(one[_ENTRY:])) for one in data if len(one) == length]
