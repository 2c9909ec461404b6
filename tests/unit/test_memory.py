"""What this process may serve from its memory, by a clock of the test's own."""

import msgspec
import pytest

from service.api.auth import operator
from service.cache.digests import Keyring
from service.cache.memory import LONGEST_S, MOST_READING, OVERHEAD, Memory
from service.cache.ports import Reading
from service.cache.recent import Recent
from service.model import Record
from tests.helpers import record

KEYS = Keyring(b"a secret of the tests, 1")
ACME, OTHER = KEYS.of(operator("acme")), KEYS.of(operator("other"))
MOST = 10 * (OVERHEAD + 1000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reads:
    """Notes what it is asked for; the test brings it."""

    def __init__(self) -> None:
        self.wanted: list[Reading] = []
        self.woken = 0
        self.is_connected = True

    def wake(self) -> None:
        self.woken += 1

    def read(self, wanted: Reading) -> bool:
        self.wanted.append(wanted)
        return self.is_connected


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def memory(clock: Clock, reads: Reads) -> Memory:
    made = Memory(MOST, clock)
    made.coherence = reads
    made.confirm(clock.now)
    return made


def named(entry_id: str) -> Record:
    return msgspec.structs.replace(record(), entry_id=entry_id)


def wanted(memory: Memory, reads: Reads, entry_id: str) -> Reading:
    memory.hit(ACME, entry_id)
    memory.hit(ACME, entry_id)
    return reads.wanted[-1]


def kept(memory: Memory, reads: Reads, entry_id: str, size: int = 1000) -> None:
    memory.keep(wanted(memory, reads, entry_id), named(entry_id), 7, size)


def test_the_second_hit_is_read_and_kept(memory: Memory, reads: Reads) -> None:
    memory.hit(ACME, "a")
    assert reads.wanted == []
    memory.hit(ACME, "a")
    memory.hit(ACME, "a")
    assert reads.wanted == [Reading(ACME, "a")]
    assert memory.get(ACME.tenant, "a") is None
    memory.keep(reads.wanted[0], named("a"), 7, 1000)
    found = memory.get(ACME.tenant, "a")
    assert found is not None
    assert (found.record, found.number) == (named("a"), 7)
    memory.hit(ACME, "a")
    assert len(reads.wanted) == 1


def test_nothing_older_than_the_bound_is_served(memory: Memory, reads: Reads, clock: Clock) -> None:
    assert LONGEST_S == 0.1  # the contract's
    kept(memory, reads, "a")
    clock.now += LONGEST_S / 2
    assert memory.get(ACME.tenant, "a")
    assert reads.woken == 0
    clock.now += LONGEST_S / 2 + 0.001
    assert memory.get(ACME.tenant, "a") is None
    assert reads.woken == 1
    memory.confirm(clock.now - LONGEST_S - 0.001)  # an answer that took long says nothing of now
    assert memory.get(ACME.tenant, "a") is None
    memory.confirm(clock.now - 0.09)
    assert memory.get(ACME.tenant, "a")
    memory.confirm(clock.now - 0.095)  # an earlier one takes nothing back
    clock.now += 0.009
    assert memory.get(ACME.tenant, "a")


def test_what_changed_is_gone_and_what_is_lost_is_all_gone(memory: Memory, reads: Reads) -> None:
    for name in "abc":
        kept(memory, reads, name)
    memory.changed(["a", "unknown"])
    assert [memory.get(ACME.tenant, name) is None for name in "abc"] == [True, False, False]
    memory.forget(["b"])
    assert [memory.get(ACME.tenant, name) is None for name in "abc"] == [True, True, False]
    memory.lapse()
    assert (memory.entries, memory.bytes) == (0, 0)
    assert memory.get(ACME.tenant, "c") is None


def test_what_is_forgotten_while_it_is_read_is_not_kept(memory: Memory, reads: Reads) -> None:
    first = wanted(memory, reads, "a")
    memory.forget(["a"])
    memory.keep(first, named("a"), 7, 1000)
    assert memory.get(ACME.tenant, "a") is None
    memory.forget(["a"])
    first = wanted(memory, reads, "a")
    memory.forget(["a"])
    second = wanted(memory, reads, "a")
    memory.keep(first, named("a"), 7, 1000)
    assert memory.get(ACME.tenant, "a") is None
    memory.keep(second, named("a"), 8, 1000)
    assert memory.get(ACME.tenant, "a")
    other = wanted(memory, reads, "b")
    memory.lapse()
    memory.keep(other, named("b"), 7, 1000)
    assert memory.entries == 0


def test_what_changes_while_it_is_read_is_not_kept(memory: Memory, reads: Reads) -> None:
    """Redis serves others within an exchange: nobody knows which came first."""
    first = wanted(memory, reads, "a")
    memory.changed(["a"])
    memory.keep(first, named("a"), 7, 1000)
    assert memory.get(ACME.tenant, "a") is None


def test_without_a_memory_nothing_is_remembered() -> None:
    memory = Memory(0)
    memory.doubt(ACME.tenant)
    assert not memory._doubted


def test_doubt_ends_with_a_later_confirmation(memory: Memory, reads: Reads, clock: Clock) -> None:
    kept(memory, reads, "a")
    sent_before = clock.now
    clock.now += 0.01
    memory.doubt(ACME.tenant)
    memory.doubt(OTHER.tenant)
    assert memory.get(ACME.tenant, "a") is None
    memory.confirm(sent_before + 0.005)
    memory.confirm(clock.now)  # sent at the same moment: nobody knows which came first
    assert memory.get(ACME.tenant, "a") is None
    clock.now += 0.01
    memory.confirm(clock.now)
    assert memory.get(ACME.tenant, "a")


def test_a_tenant_gets_his_own(memory: Memory, reads: Reads) -> None:
    kept(memory, reads, "a")
    assert memory.get(OTHER.tenant, "a") is None
    memory.doubt(OTHER.tenant)
    assert memory.get(ACME.tenant, "a")


def test_the_bytes_are_bounded_and_the_least_recently_used_go(memory: Memory, reads: Reads) -> None:
    names = [str(n) for n in range(10)]
    for name in names:
        kept(memory, reads, name)
    assert (memory.entries, memory.bytes) == (10, MOST)
    assert memory.get(ACME.tenant, "0")
    kept(memory, reads, "new")
    assert [name for name in names if memory.get(ACME.tenant, name) is None] == ["1"]
    kept(memory, reads, "large", size=MOST - OVERHEAD)
    assert (memory.entries, memory.bytes) == (1, MOST)
    kept(memory, reads, "too large", size=MOST)
    assert memory.get(ACME.tenant, "large")
    assert memory.get(ACME.tenant, "too large") is None


def test_what_isnt_there_can_be_asked_for_again(memory: Memory, reads: Reads) -> None:
    memory.keep(wanted(memory, reads, "a"), None, 0, 0)
    assert memory.entries == 0
    kept(memory, reads, "a")
    reads.is_connected = False
    memory.hit(ACME, "b")
    memory.hit(ACME, "b")
    memory.hit(ACME, "b")
    assert [one.entry_id for one in reads.wanted].count("b") == 2


def test_what_is_being_read_is_bounded(memory: Memory, reads: Reads) -> None:
    for n in range(MOST_READING + 5):
        wanted(memory, reads, str(n))
    assert len(reads.wanted) == MOST_READING


def test_off_it_keeps_nothing() -> None:
    off = Memory(0)
    off.hit(ACME, "a")
    off.hit(ACME, "a")
    assert off.get(ACME.tenant, "a") is None
    assert not off.is_on


def test_the_oldest_are_forgotten() -> None:
    recent = Recent(3)
    for name in "aabc":
        recent.add(name)
    assert [name in recent for name in "abcd"] == [True, True, True, False]
    for name in "adefg":
        recent.add(name)
    assert [name in recent for name in "abcg"] == [True, False, False, True]
    recent.discard("a")
    assert "a" not in recent
