"""The last ids that came."""


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
