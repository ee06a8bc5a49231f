"""Errors of the operating system as errors of this package, and what a user can do about them."""

import contextlib
import errno
import os
from collections.abc import Iterator

from cascaded_dllm.errors import OutputError


@contextlib.contextmanager
def write_errors(fault: str, remedy: str) -> Iterator[None]:
    """Turns every OSError inside the block into an OutputError.

    Args:
        fault: what failed, for example "<path> cannot be written".
        remedy: what the user can do.

    Raises:
        OutputError: an operation on a file failed.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{fault} ({error.strerror or error}); {remedy_for(error, remedy)}") from error


def remedy_for(error: Exception, otherwise: str) -> str:
    """What the user can do about an error: a limit of the process has a remedy of its own, whatever is at work."""
    if is_short_of_processes(error):
        return "raise the limit of processes and threads (ulimit -u, or that of the container), or use fewer workers"
    match getattr(error, "errno", None):
        case errno.EMFILE | errno.ENFILE:
            return "raise the limit of open files (ulimit -n), or use fewer processes"
        case errno.EFBIG:
            return "raise the limit of the size of files (ulimit -f), or name a folder on another file system"
        case errno.ENAMETOOLONG:
            return "choose a shorter name; while it is written, it is longer by some 60 characters"
        case _:
            return otherwise


def is_short_of_processes(error: Exception) -> bool:
    """Whether an error says that the system gives this user no further process or thread; libraries only say so."""
    return any(text in str(error) for text in (os.strerror(errno.EAGAIN), "can't start new thread"))
