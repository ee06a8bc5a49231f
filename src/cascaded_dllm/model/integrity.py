"""Whether checkpoints are complete: every file has the checksum that was recorded when it was written."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path

from cascaded_dllm.atomic import file_sha256
from cascaded_dllm.errors import CheckpointError

CHECKSUMS = "checksums.json"
"""Written last into every checkpoint and every bundle of stages: file name -> SHA-256."""

STEP_PREFIX = "step_"
"""A checkpoint is called `step_<n>` after n optimizer steps."""

_OF_PROCESS = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing about the file that could not be read."""


def numbered(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, by rising step.

    Temporary folders and copies have other names and are never listed.
    """
    if not checkpoints.is_dir():
        return []
    found = [
        (path.name.removeprefix(STEP_PREFIX), path) for path in checkpoints.glob(f"{STEP_PREFIX}*") if path.is_dir()
    ]
    return sorted((int(step), path) for step, path in found if step.isdecimal())


def checkpoint_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None.

    Raises:
        CheckpointError: this process may not, or cannot now, read a file that may be whole. Whoever took the checkpoint
            for damaged would begin with an earlier one and delete it.
    """
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _require_of_file(error, folder / CHECKSUMS)
        return f"{CHECKSUMS} cannot be read ({type(error).__name__})"
    if not isinstance(sums, dict) or not sums:
        return f"{CHECKSUMS} lists no files"
    for name, expected in sums.items():
        try:
            found = file_sha256(folder / name)
        except (FileNotFoundError, IsADirectoryError):
            return f"{name} is missing"
        except OSError as error:
            _require_of_file(error, folder / name)
            return f"{name} cannot be read ({error.strerror or type(error).__name__})"
        if found != expected:
            return f"{name} does not have its recorded checksum"
    return None


def _require_of_file(error: Exception, path: Path) -> None:
    """Checks that an error is a fault of the file that was read.

    Raises:
        CheckpointError: it is one of the process: its rights, its open files, its memory.
    """
    if isinstance(error, OSError) and error.errno in _OF_PROCESS:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}), and may be whole; see to the rights to read it, to the limit "
            "of open files (ulimit -n) and to the memory, and give the command again"
        ) from error


def write_checksums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Writes the checksums of all files in `folder` and below it.

    Args:
        folder: a folder that has all its other files.
        known: checksums that need not be computed, by file name.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = {name: (known or {}).get(name) or file_sha256(folder / name) for name in names}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def listed_files(folder: Path) -> list[str]:
    """Files whose checksums are recorded; none if the record cannot be read."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(sums) if isinstance(sums, dict) else []


def missing_files(folder: Path) -> list[str]:
    """Files that have a recorded checksum and are missing; `CHECKSUMS` itself if it lists none or cannot be read."""
    names = listed_files(folder)
    return [name for name in names if not (folder / name).is_file()] if names else [CHECKSUMS]


def newest_complete(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint, and what is wrong with each newer one."""
    while True:
        faults: list[str] = []
        has_missed = False
        for _, folder in reversed(numbered(checkpoints)):
            found = checkpoint_fault(folder)
            if found is None:
                return folder, faults
            # A run that is going on may delete an old checkpoint after it was listed; that is not a fault.
            if folder.is_dir():
                faults.append(f"{folder}: {found}")
            else:
                has_missed = True
        # It deletes one only when it has completed a newer one, which was not listed.
        if not has_missed:
            return None, faults
