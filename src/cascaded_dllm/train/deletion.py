"""Deleting old checkpoints; a run goes on if one of them cannot be deleted."""

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
    """Deletes folders inside `parent`.

    A folder is renamed before its first file is deleted, so that a part of one is never taken for a checkpoint. Network
    file systems keep a folder in which somebody is reading a file. Such a folder is tried again with every deletion,
    and reported once in a run.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._fault: str | None = None
        self._has_told = False

    def mark_deleted(self, folder: Path) -> None:
        """Rename a folder so that `delete_rest` deletes it; an OSError is passed on to the caller."""
        os.replace(folder, self._parent / f"{_DELETED}{folder.name}-{secrets.token_hex(4)}")

    def delete(self, folder: Path) -> None:
        """Delete a folder, or note why it cannot be deleted."""
        try:
            self.mark_deleted(folder)
        except OSError as error:
            self._note(folder, error)
        self.delete_rest()

    def delete_incomplete(self, is_own: Callable[[Path], bool] = lambda path: False) -> None:
        """Delete the half-written files and folders of killed writers, and everything that is marked as deleted.

        Only for the owner of the folder's lock, since every other writer, on whatever machine, has ended.

        Args:
            is_own: whether a path belongs to a write of this run that is going on.
        """
        for path in self._parent.glob(f"{INCOMPLETE}*"):
            if not is_own(path):
                self.delete(path)
        self.delete_rest()

    def delete_rest(self) -> None:
        """Delete everything that is marked as deleted, by this run or by an earlier one."""
        for path in self._parent.glob(f"{_DELETED}*"):
            try:
                # A half-written link to the newest checkpoint is not a folder.
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
                else:
                    shutil.rmtree(path)
            except OSError as error:
                self._note(path, error)

    def fault_to_tell(self) -> str | None:
        """The first path that could not be deleted, and why; None if there is none or it has already been returned."""
        if self._fault is None or self._has_told:
            return None
        self._has_told = True
        return self._fault

    def _note(self, folder: Path, error: OSError) -> None:
        if self._fault is None:
            self._fault = f"{folder} cannot be deleted ({error.strerror or error})"
