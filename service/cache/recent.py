"""What came lately: ids, and how often something was so."""


class Recent:
    """Remembers the last ids, between `most` and twice as many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._young or name in self._old

    def add(self, name: str) -> None:
        """One more, which is the last now."""
        if len(self._young) >= self._most:
            self._old, self._young = self._young, set()
        self._young.add(name)

    def discard(self, name: str) -> None:
        """As if it had never come."""
        self._young.discard(name)
        self._old.discard(name)


class Share:
    """How often something was so, of about the last WEIGHT times: an exponentially weighted mean."""

    WEIGHT = 32

    def __init__(self) -> None:
        self.value = 0.0

    def note(self, was_so: bool) -> None:  # noqa: FBT001 - what it is about
        """One more time."""
        self.value += (was_so - self.value) / self.WEIGHT
