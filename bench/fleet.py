"""Services over one Redis that an operator replaces by others, one after the other, while they are asked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from bench.serving import Asked
from bench.steady import Steady

Start = Callable[[int], AbstractContextManager[Asked]]
"""Starts one with that model, by its number."""


class Fleet:
    """Those that run."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._running: list[tuple[ExitStack, Asked, int]] = []

    @property
    def services(self) -> Sequence[tuple[Asked, int]]:
        """Each with the number of its model."""
        return [(service, model) for _, service, model in self._running]

    def add(self, model: int) -> Asked:
        """One more."""
        stack = ExitStack()
        service = stack.enter_context(self._start(model))
        self._running.append((stack, service, model))
        return service

    def replace(self, load: Steady, model: int) -> None:
        """Each: its successor starts and is asked too, then it is asked no more, and stopped."""
        for _ in self.services:
            self.add(model)
            load.ask(self.services)
            stack, _, _ = self._running.pop(0)
            load.ask(self.services)
            stack.close()

    def end(self) -> None:
        """All."""
        while self._running:
            self._running.pop()[0].close()


@contextmanager
def fleet(start: Start) -> Iterator[Fleet]:
    """None runs yet; none is left running."""
    found = Fleet(start)
    try:
        yield found
    finally:
        found.end()
