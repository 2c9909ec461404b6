"""Where an entry's documents lie: in the space of each live generation, as its partition says."""

from typing import Any

from service.errors import LayoutError, StoreUnavailableError
from service.model import Generation, Live
from service.store.client import Command, value_of
from service.store.keys import Keys
from service.store.live import decoded, said


class Spaces:
    """What this process was told; a write asks behind itself whether that still holds."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._told: dict[int, bytes | None] = {}
        self._live: dict[int, Live] = {}

    def of(self, partition: int, followed: Generation) -> list[Generation]:
        """One generation of each space, first the one that is followed."""
        live = self._live.get(partition)
        found = {followed.space: followed}
        for one in () if live is None else live.generations:
            found.setdefault(one.space, one)
        return list(found.values())

    def documents(self, partition: int, followed: Generation, entry_id: str) -> list[str]:
        """The keys of an entry's documents, first that of the followed generation."""
        return [self._keys.document(partition, one, entry_id) for one in self.of(partition, followed)]

    def asked(self, partition: int) -> Command:
        """What `hear` takes the reply of."""
        return said(self._keys, partition)

    def told(self, partition: int) -> bytes | None:
        """What a partition said last, to the byte."""
        return self._told.get(partition)

    def hear(self, partition: int, reply: Any) -> bytes | None:
        """What a partition says, to the byte; noted.

        Raises:
            StoreUnavailableError: it is an error, or a later version wrote it.
        """
        raw: bytes | None = value_of(reply)
        if raw == self._told.get(partition):
            return raw
        try:
            live = decoded(raw)
        except LayoutError as error:
            raise StoreUnavailableError(str(error)) from None
        self._told[partition] = raw
        self._live.pop(partition, None)
        if live is not None:
            self._live[partition] = live
        return raw

    def number(self, partitions: int) -> int:
        """What each partition's number is at least."""
        return min(
            (self._live[one].number if one in self._live else 0 for one in range(partitions)), default=0
        )

    def raw(self) -> list[tuple[int, bytes]]:
        """What partitions said, to the byte, where several generations are live."""
        told = [(one, self._told[one]) for one, live in self._live.items() if len(live.generations) > 1]
        return [(partition, raw) for partition, raw in told if raw is not None]

    @property
    def live(self) -> list[Live]:
        """What the partitions said, as far as they said anything."""
        return list(self._live.values())
