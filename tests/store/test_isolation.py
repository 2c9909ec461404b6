"""Odd names as agent_type, model, attribute value and tenant: each finds its own entry by the semantic tier
alone, none finds another's, though all vectors are equal. With raw names in place of digests it fails.
"""

import logging
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.api.auth import Keys, Role, create_key, operator
from service.cache.digests import DigestKey, TenantKeys
from service.model import Hit, Miss, Stored
from service.wiring import Parts
from tests.helpers import accepted, asked, vector

log = logging.getLogger(__name__)

pytestmark = pytest.mark.anyio

PIECES = [
    *"{}|'\"*@$:,-_\\()[]~ \t\r\n\v\f\0aZ9",
    "$p",
    "w'a*'",
    "\u00e9",
    "e\u0301",
    "\u200b",
    "\u05d0",
    "\U0001f34e",
    "ß",
    "İ",
]
VECTOR = vector(7)
BATCH = 200


def odd_names(count: int) -> list[str]:
    """Different names; next to many a name stand its twins."""
    dice = random.Random(2026)  # noqa: S311 - the same names each time
    long = "x" * 490
    names = dict.fromkeys(
        ["acme", "acme|evil", "acme\\|evil", "*", "{}", "{*}", "w'a*'", '"acme"', "$p", "-acme"]
    )
    while len(names) < count:
        name = "".join(dice.choices(PIECES, k=dice.randint(1, 6)))
        kind = dice.randrange(6)
        twins = [
            [name.lower(), name.upper()],
            [unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)],
            [f" {name}", f"{name} ", f"\t{name}\n"],
            [f"{name}\0", f"{name}\0b"],
            [f"{long}{name}"],
            [f"{name},{name}", f"{name}|{name}"],
        ][kind]
        names |= dict.fromkeys([name, *twins])
    return [name for name in names if 1 <= len(name.encode()) <= 512][:count]


NAMES = odd_names(4000)
FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "agent_type": lambda name: {"agent_type": name},
    "model": lambda name: {"model": name},
    "attribute": lambda name: {"attributes": {"k": name}},
}


async def store_all(parts: Parts, keys: TenantKeys, fields: Sequence[dict[str, Any]]) -> None:
    """Each entry answers with its own number."""
    for at in range(0, len(fields), BATCH):
        page = [
            accepted(keys, parts, response=str(at + n), prompt="same", embedding=VECTOR, **one)
            for n, one in enumerate(fields[at : at + BATCH])
        ]
        stored = await parts.store.answer(page, keys)
        assert all(isinstance(one, Stored) for one in stored)


async def find_all(parts: Parts, keys: TenantKeys, fields: Sequence[dict[str, Any]]) -> list[Hit | Miss]:
    answers: list[Hit | Miss] = []
    for at in range(0, len(fields), BATCH):
        page = [
            asked(keys, parts, prompt="other words", tiers=["semantic"], embedding=VECTOR, **one)
            for one in fields[at : at + BATCH]
        ]
        answers += await parts.lookup.answer(page, keys)
    return answers


def own(answers: Sequence[Hit | Miss]) -> int:
    """How many were answered with their own number."""
    wanted = (str(n).encode() for n in range(len(answers)))
    return sum(isinstance(a, Hit) and bytes(a.response) == n for a, n in zip(answers, wanted, strict=True))


def test_the_names_are_odd_enough() -> None:
    assert len(set(NAMES)) == 4000
    for piece in PIECES:
        assert any(piece in name for name in NAMES)
    assert sum(len(name.encode()) > 400 for name in NAMES) > 100


@pytest.mark.parametrize("field", FIELDS)
async def test_every_name_finds_its_own(parts: Parts, field: str) -> None:
    keys = parts.keyring.of(operator("acme"))
    fields = [FIELDS[field](name) for name in NAMES]
    await store_all(parts, keys, fields)
    answers = await find_all(parts, keys, fields)
    log.info("%s: %s of %s found their own entry", field, own(answers), len(fields))
    assert own(answers) == 4000
    strangers = await find_all(parts, keys, [FIELDS[field](f"never stored {n}") for n in range(100)])
    assert all(isinstance(answer, Miss) and answer.reason == "empty" for answer in strangers)


async def test_tenants_with_keys_find_only_their_own(parts: Parts, tmp_path: Path) -> None:
    names = NAMES[:400]
    file = tmp_path / "keys.json"
    made = [create_key(file, name, Role.writer) for name in names]
    known = Keys(file)
    tenants = [parts.keyring.of(known.authenticate(f"Bearer {key}").tenant) for key in made]
    assert len({keys.tenant for keys in tenants}) == 400
    for n, keys in enumerate(tenants):
        one = accepted(keys, parts, response=str(n), prompt="same", embedding=VECTOR)
        assert isinstance((await parts.store.answer([one], keys))[0], Stored)
    found = [(await find_all(parts, keys, [{}]))[0] for keys in tenants]
    log.info("tenants: %s of %s found their own entry", own(found), len(tenants))
    assert own(found) == 400


async def test_raw_names_instead_of_digests_fail(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: tags hold the names themselves. Entries get lost, and strangers' come near."""
    digest = DigestKey.digest

    def raw(self: DigestKey, kind: str, data: bytes) -> str:
        if kind == "agent_type":
            return data.decode()
        if kind == "scope":  # the scope's agent_type
            return str(msgspec.json.decode(data)[1])
        return digest(self, kind, data)

    monkeypatch.setattr(DigestKey, "digest", raw)
    keys = parts.keyring.of(operator("acme"))
    names = NAMES[:1000]
    fields = [FIELDS["agent_type"](name) for name in names]
    await store_all(parts, keys, fields)
    found = leaked = 0
    ids = [accepted(keys, parts, prompt="same", **one).query.identities[0].entry_id for one in fields]
    for n, one in enumerate(fields):
        question = asked(keys, parts, prompt="other", tiers=["semantic"], embedding=VECTOR, **one)
        (answer,) = await parts.lookup.answer([question], keys)
        found += isinstance(answer, Hit) and answer.entry_id == ids[n]
        leaked += any(candidate != ids[n] for candidate in question.judged)
    log.info("raw names: %s of %s found, %s met another's entry", found, len(names), leaked)
    assert found < 900
    assert leaked > 50
