"""Deleting old checkpoints: a run does not end for what cannot be deleted."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import INCOMPLETE

_DELETED = ".deleted-"


@final
class Deletion:
    """Deletes folders inside of `parent`.

    A folder loses its name before its first file goes, so that half of one is never taken for a checkpoint. Network
    file systems keep a folder in which somebody reads a file: what stays is tried again each time, and said once a run.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._fault: str | None = None
        self._has_told = False

    def put_away(self, folder: Path) -> None:
        """Take its name from a folder, which `delete_rest` deletes; an OSError is the caller's."""
        os.replace(folder, self._parent / f"{_DELETED}{folder.name}-{secrets.token_hex(4)}")

    def delete(self, folder: Path) -> None:
        """Delete a folder, or note why it is still there under its name."""
        try:
            self.put_away(folder)
        except OSError as error:
            self._note(folder, error)
        self.delete_rest()

    def delete_incomplete(self, is_own: Callable[[Path], bool] = lambda path: False) -> None:
        """Delete what writers that were killed have left half-written, and what has been put away.

        Only for the owner of the folder's lock: whoever else wrote there is gone, whatever its machine was called.

        Args:
            is_own: whether a path belongs to a write of this run that is going on.
        """
        for path in self._parent.glob(f"{INCOMPLETE}*"):
            if not is_own(path):
                self.delete(path)
        self.delete_rest()

    def delete_rest(self) -> None:
        """Delete what has been put away, by this run or by one before."""
        for path in self._parent.glob(f"{_DELETED}*"):
            try:
                # The link to the newest checkpoint may be half-written too.
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
                else:
                    shutil.rmtree(path)
            except OSError as error:
                self._note(path, error)

    def fault_to_tell(self) -> str | None:
        """What could not be deleted first, and why, the first time this is called after it happened; otherwise None."""
        if self._fault is None or self._has_told:
            return None
        self._has_told = True
        return self._fault

    def _note(self, folder: Path, error: OSError) -> None:
        if self._fault is None:
            self._fault = f"{folder} cannot be deleted ({error.strerror or error})"
