import pytest

from service.store.flaws import REDIS, SEARCH, Flaw, Version, first_without, flaws_of, version_of


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8.2.3", (8, 2, 3)),
        ("2.10.5", (2, 10, 5)),
        ("21005", (2, 10, 5)),
        ("80401", (8, 4, 1)),
        ("", None),
        ("99.99", None),
    ],
)
def test_versions_as_redis_and_its_modules_tell_them(text: str, version: Version | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("version", "known", "names"),
    [
        ((8, 2, 1), REDIS, ["2025-49844", "2025-62507", "2026-23479", "2026-81934"]),
        ((8, 2, 3), REDIS, ["2026-23479", "2026-81934"]),
        ((8, 2, 9), REDIS, []),
        ((8, 6, 3), REDIS, ["2026-81934"]),
        ((8, 8, 1), REDIS, ["2026-81934"]),
        ((7, 4, 5), REDIS, ["2025-49844", "2026-23479"]),
        ((7, 4, 9), REDIS, []),
        ((2, 10, 5), SEARCH, ["2024-51737"]),
        ((2, 10, 10), SEARCH, ["5517"]),
        ((2, 10, 11), SEARCH, ["5517"]),
        ((2, 10, 12), SEARCH, []),
        ((2, 8, 20), SEARCH, ["2024-51737"]),
        ((8, 4, 2), SEARCH, ["8708"]),
        ((8, 6, 3), SEARCH, []),
    ],
)
def test_flaws_of_a_version(version: Version, known: tuple[Flaw, ...], names: list[str]) -> None:
    found = flaws_of(version, known)
    assert len(found) == len(names)
    assert all(name in flaw.name for name, flaw in zip(names, found, strict=True))


@pytest.mark.parametrize("known", [REDIS, SEARCH])
def test_an_upgrade_leads_out_of_every_flaw(known: tuple[Flaw, ...]) -> None:
    for flaw in known:
        assert flaw.source.startswith("https://")
        for first, mended in flaw.ranges:
            assert first < mended
            assert flaws_of(first_without(first, known), known) == []
    assert first_without((2, 10, 5), SEARCH) == (2, 10, 12)  # 2.10.10 mends one and has another
