"""A switch for a user's tests: all caching off."""

from types import TracebackType

_testing = False


class _Restored:
    """What `set_testing` answers: as a context manager it puts back what was before."""

    def __init__(self, *, before: bool) -> None:
        self._before = before

    def __enter__(self) -> None:
        """It is set already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As before."""
        _set(on=self._before)


def set_testing(on: bool = True) -> _Restored:  # noqa: FBT001, FBT002 - read aloud: set_testing(False)
    """Switch caching off (on: True) or on again, in the whole process, for all threads and loops.

    Decorated functions then run as if they weren't decorated, and nothing is asked or stored, nor by the
    LangChain cache. Clients still do what they are told. `with set_testing():` ends with the block.
    """
    before = is_testing()
    _set(on=on)
    return _Restored(before=before)


def is_testing() -> bool:
    """Whether caching is off."""
    return _testing


def _set(*, on: bool) -> None:
    global _testing  # noqa: PLW0603 - the switch of the process
    _testing = on
