"""The wish that a run stops, which may come to any of its processes and which all of them grant at the same moment."""

from collections.abc import Callable
from typing import final

from cascaded_dllm.errors import CascadeError
from cascaded_dllm.train.group import Group

_REASON = "the run was asked to stop; the same command goes on, and measures what was left"


class AbandonedError(CascadeError):
    """A measurement was left unfinished, since the run is to stop; whoever had it made catches this."""


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
        """Let all processes know if any was asked; all of them call this at the same moment."""
        self.is_known = self.is_known or self._group.any(self._is_made())

    def go_on(self) -> None:
        """Nothing, unless the run is to stop, in the middle of work that all processes do together.

        Raises:
            AbandonedError: it is; in all processes.
        """
        self.ask()
        if self.is_known:
            raise AbandonedError(_REASON)

    def go_on_alone(self) -> None:
        """The same in work that this process does while the others wait for the next `ask`.

        Raises:
            AbandonedError: this process was asked to stop.
        """
        if self._is_made():
            raise AbandonedError(_REASON)

    def _is_made(self) -> bool:
        self._is_asked = self._is_asked or self._should_stop()
        return self._is_asked
