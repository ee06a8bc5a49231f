"""Errors of a failing disk that libraries wrap, turned back into the OSError behind them."""

import contextlib
import os
import re
from collections.abc import Iterator

from safetensors import SafetensorError


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns the errors of safetensors and torch for a full or failing disk back into the OSError behind them.

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
        # torch.save raises it when it closes the archive after a failed write.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
