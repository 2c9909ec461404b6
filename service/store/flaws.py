"""Flaws of Redis and of its search module that could hurt us, and the releases that mend them."""

import re
from typing import NamedTuple

Version = tuple[int, int, int]
_ADVISORY = "https://github.com/redis/redis/security/advisories/"
_RELEASES_MAY_2026 = "https://github.com/redis/docs/pull/3292"


class Flaw(NamedTuple):
    """`ranges` are half open: the first release that has it, the first of its line that has not."""

    name: str
    what: str
    ranges: tuple[tuple[Version, Version], ...]
    source: str


# From 7.2, the oldest that a maintained search module runs on.
REDIS = (
    Flaw(
        "CVE-2025-32023, CVE-2025-48367",
        "HyperLogLog commands write out of bounds; an unauthenticated client starves others",
        (((7, 2, 0), (7, 2, 10)), ((7, 4, 0), (7, 4, 5)), ((8, 0, 0), (8, 0, 3))),
        _ADVISORY + "GHSA-rp2m-q4j6-gr43",
    ),
    Flaw(
        "CVE-2025-49844, CVE-2025-46817",
        "a Lua script may execute code",
        (((7, 2, 0), (7, 2, 11)), ((7, 4, 0), (7, 4, 6)), ((8, 0, 0), (8, 0, 4)), ((8, 2, 0), (8, 2, 2))),
        _ADVISORY + "GHSA-4789-qfc9-5f9q",
    ),
    Flaw(
        "CVE-2025-62507",
        "XACKDEL overflows the stack",
        (((8, 2, 0), (8, 2, 3)),),
        "https://raw.githubusercontent.com/redis/redis/8.2/00-RELEASENOTES",
    ),
    Flaw(
        "CVE-2026-23479, CVE-2026-25243, CVE-2026-23631",
        "blocking commands, RESTORE and Lua scripts may execute code",
        (((7, 2, 0), (7, 4, 9)), ((8, 0, 0), (8, 2, 6)), ((8, 4, 0), (8, 4, 3)), ((8, 6, 0), (8, 6, 3))),
        _RELEASES_MAY_2026,
    ),
    Flaw(
        "CVE-2026-81934",
        "where TLS is on, anybody who can connect may execute code",
        (
            ((8, 2, 0), (8, 2, 9)),
            ((8, 4, 0), (8, 4, 6)),
            ((8, 6, 0), (8, 6, 6)),
            ((8, 8, 0), (8, 8, 2)),
            ((8, 10, 0), (8, 10, 1)),
        ),
        "https://redis.io/blog/security-advisory-cve-2026-81934/",
    ),
)
SEARCH = (
    Flaw(
        "CVE-2024-51737",
        "a large LIMIT or KNN may execute code",
        (((0, 0, 0), (2, 6, 24)), ((2, 8, 0), (2, 8, 21)), ((2, 10, 0), (2, 10, 10))),
        "https://nvd.nist.gov/vuln/detail/cve-2024-51737",
    ),
    Flaw(
        "RediSearch#5517, #5532",
        "crashes under some 100 mixed requests a second",
        (((2, 6, 24), (2, 6, 26)), ((2, 8, 21), (2, 8, 23)), ((2, 10, 10), (2, 10, 12))),
        "https://github.com/RediSearch/RediSearch/issues/5517",
    ),
    Flaw(
        "RediSearch#8708",
        "may crash when many keys get an end, as each of our entries does",
        (((8, 2, 0), (8, 6, 3)),),
        "https://github.com/RediSearch/RediSearch/issues/8708",
    ),
)


def version_of(text: str) -> Version | None:
    """The version in a text as `8.2.3`, `2.10.5`; else from a module's number, 21005 for 2.10.5."""
    if found := re.search(r"(\d+)\.(\d+)\.(\d+)", text):
        major, minor, patch = map(int, found.groups())
        return major, minor, patch
    if text.isdigit():
        return int(text) // 10_000, int(text) // 100 % 100, int(text) % 100
    return None


def flaws_of(version: Version, known: tuple[Flaw, ...]) -> list[Flaw]:
    """Those that a version has."""
    return [flaw for flaw in known if any(first <= version < mended for first, mended in flaw.ranges)]


def first_without(version: Version, known: tuple[Flaw, ...]) -> Version:
    """The next release that has none of them, so that an upgrade doesn't lead into another."""
    while ends := [mended for flaw in known for first, mended in flaw.ranges if first <= version < mended]:
        version = max(ends)
    return version
