"""The wish that a run stops: it may reach any of its processes, and all of them act on it at the same moment."""

from collections.abc import Callable
from typing import final

from cascaded_dllm.errors import CascadeError
from cascaded_dllm.train.group import Group

_REASON = "the run was asked to stop; the same command goes on, and measures what was left"


class AbandonedError(CascadeError):
    """A measurement was left unfinished because the run is to stop; the code that began it catches this."""


@final
class StopWish:
    """Whether a run is to stop.

    Args:
        should_stop: whether this process was asked to.
        group: the processes of the run.

    Attributes:
        is_known: whether all processes know of the wish; the same in all of them.
    """

    def __init__(self, should_stop: Callable[[], bool], group: Group) -> None:
        self._should_stop, self._group = should_stop, group
        self._is_asked = self.is_known = False

    def ask(self) -> None:
        """Let all processes know if any of them was asked to stop; all must call this at the same moment."""
        self.is_known = self.is_known or self._group.any(self._is_made())

    def raise_if_wished(self) -> None:
        """End work that all processes do together, if the run is to stop.

        Raises:
            AbandonedError: it is to stop; every process raises it.
        """
        self.ask()
        if self.is_known:
            raise AbandonedError(_REASON)

    def raise_if_asked(self) -> None:
        """End work that this process does alone while the others wait for the next `ask`, if it was asked to stop.

        Raises:
            AbandonedError: this process was asked to stop.
        """
        if self._is_made():
            raise AbandonedError(_REASON)

    def _is_made(self) -> bool:
        self._is_asked = self._is_asked or self._should_stop()
        return self._is_asked
