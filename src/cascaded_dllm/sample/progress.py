"""How far a sampling run is: batches.jsonl has a line for every batch that is wholly on the disk."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm.atomic import write_errors
from cascaded_dllm.errors import DataError

SAMPLES_FILE = "samples.jsonl"
BATCHES_FILE = "batches.jsonl"
"""Only while texts are missing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run has done so far, over all the times that it went on.

    Attributes:
        num_finished: texts.
        num_bytes: of samples.jsonl that they take.
        calls_per_stage: network calls of all texts; empty before the first.
        token_forwards: positions that went through a network.
        seconds: that drawing took.
        devices: where.
    """

    num_finished: int = 0
    num_bytes: int = 0
    calls_per_stage: tuple[int, ...] = ()
    token_forwards: int = 0
    seconds: float = 0.0
    devices: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Progress":
        """What is finished of the run in `folder`; a last line that was broken off is none.

        Raises:
            DataError: the record is missing or damaged, or longer than the texts.
        """
        path, samples = folder / BATCHES_FILE, folder / SAMPLES_FILE
        if not path.is_file():
            raise DataError(f"{path} is missing, and without it nothing tells which texts are whole; sample anew")
        found = cls()
        for line in whole_lines(path.read_bytes()):
            found = found.with_batch(path, parsed_object(path, line))
        size = samples.stat().st_size if samples.exists() else 0
        if size < found.num_bytes:
            raise DataError(
                f"{samples} has {size} bytes of {found.num_bytes} that were written: texts were lost; bring the file "
                "back, or sample into a new folder"
            )
        return found

    @classmethod
    def take_up(cls, folder: Path) -> "Progress":
        """What is finished, once everything that is not has been cut off; `read` says what may be wrong.

        Raises:
            OutputExistsError: the folder cannot be written.
        """
        progress = cls.read(folder)
        batches = folder / BATCHES_FILE
        for path, size in (
            (folder / SAMPLES_FILE, progress.num_bytes),
            (batches, sum(map(len, whole_lines(batches.read_bytes())))),
        ):
            with write_errors(f"{path} cannot be written", "see that it is yours to write, and give the command again"):
                os.truncate(path, size)
        return progress

    def with_batch(self, path: Path, batch: Mapping[str, Any]) -> "Progress":
        """The progress with one more batch, as a line of the file `path` tells it.

        Raises:
            DataError: it is none.
        """
        try:
            calls = batch["calls_per_stage"]
            return Progress(
                self.num_finished + batch["num_finished"],
                self.num_bytes + batch["num_bytes"],
                tuple(map(sum, zip(self.calls_per_stage or [0] * len(calls), calls, strict=True))),
                self.token_forwards + batch["token_forwards"],
                self.seconds + batch["seconds"],
                tuple(dict.fromkeys((*self.devices, *batch["devices"]))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error!r}); bring it back, or sample into a new folder") from error


def whole_lines(content: bytes) -> Sequence[bytes]:
    """The lines that were written to their end."""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def parsed_object(path: Path, content: bytes) -> dict[str, Any]:
    """An object of JSON in the file `path`.

    Raises:
        DataError: there is something else.
    """
    try:
        found = json.loads(content)
        if isinstance(found, dict):
            return found
        reason = f"there is a {type(found).__name__}"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    raise DataError(f"{path} is damaged ({reason}); bring it back, or sample into a new folder")
