"""The progress of a sampling run: batches.jsonl has a line for every batch that is completely on the disk."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascaded_dllm.errors import DataError
from cascaded_dllm.os_errors import write_errors

SAMPLES_FILE = "samples.jsonl"
BATCHES_FILE = "batches.jsonl"
"""Exists only while texts are missing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run has done so far, from its beginning and over all resumptions.

    Attributes:
        num_finished: number of finished texts.
        num_bytes: bytes that they take in samples.jsonl.
        calls_per_stage: network calls of each stage, summed over the texts; empty before the first batch.
        token_forwards: positions that went through a network.
        seconds: time of drawing.
        devices: devices that it ran on, in the order of first use.
    """

    num_finished: int = 0
    num_bytes: int = 0
    calls_per_stage: tuple[int, ...] = ()
    token_forwards: int = 0
    seconds: float = 0.0
    devices: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Progress":
        """The progress of the run in `folder`; a last line without a line break does not count.

        Raises:
            DataError: batches.jsonl is missing or damaged, or samples.jsonl is shorter than it says.
        """
        path, samples = folder / BATCHES_FILE, folder / SAMPLES_FILE
        if not path.is_file():
            raise DataError(f"{path} is missing, and nothing else says which texts are complete; sample anew")
        found = cls()
        for line in whole_lines(path.read_bytes()):
            found = found.with_batch(path, parsed_object(path, line))
        size = samples.stat().st_size if samples.exists() else 0
        if size < found.num_bytes:
            raise DataError(
                f"{samples} has {size} bytes of {found.num_bytes} that were written: texts were lost; restore the "
                "file, or sample into a new folder"
            )
        return found

    @classmethod
    def take_up(cls, folder: Path) -> "Progress":
        """The progress of the run in `folder`, after cutting off everything that is not finished.

        Raises:
            DataError: as in `read`.
            OutputError: the folder cannot be written.
        """
        progress = cls.read(folder)
        batches = folder / BATCHES_FILE
        for path, size in (
            (folder / SAMPLES_FILE, progress.num_bytes),
            (batches, sum(map(len, whole_lines(batches.read_bytes())))),
        ):
            with write_errors(
                f"{path} cannot be written", "make sure that you may write to it, and give the command again"
            ):
                os.truncate(path, size)
        return progress

    def with_batch(self, path: Path, batch: Mapping[str, Any]) -> "Progress":
        """The progress with one more batch.

        Args:
            path: the file that `batch` was read from, for the error.
            batch: a line of batches.jsonl.

        Raises:
            DataError: an entry of the line is missing or wrong.
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
            raise DataError(f"{path} is damaged ({error!r}); restore it, or sample into a new folder") from error


def whole_lines(content: bytes) -> Sequence[bytes]:
    """The lines that end with a line break, and so were written completely."""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def parsed_object(path: Path, content: bytes) -> dict[str, Any]:
    """The JSON object in `content`, which was read from the file `path`.

    Raises:
        DataError: `content` is something else.
    """
    try:
        found = json.loads(content)
        if isinstance(found, dict):
            return found
        reason = f"there is a {type(found).__name__}"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    raise DataError(f"{path} is damaged ({reason}); restore it, or sample into a new folder")
