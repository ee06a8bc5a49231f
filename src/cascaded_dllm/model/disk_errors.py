"""What libraries say of a disk that fails, as the error of the system that it was."""

import contextlib
import os
import re
from collections.abc import Iterator

from safetensors import SafetensorError


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns what safetensors and torch say of a disk that is full, or fails otherwise, into what it was.

    Raises:
        OSError: the disk failed.
    """
    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise
    except RuntimeError as error:
        # Raised while the archive is closed, after the write has failed.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
