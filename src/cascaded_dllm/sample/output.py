"""A sampling run on disk, which has every batch as soon as it is drawn, however the process ends.

samples.jsonl grows by whole batches, and batches.jsonl says how many bytes belong to each of them. A batch that was
half written when the process was killed lies beyond them, and is cut off when the run continues. The files for readers
are made from samples.jsonl, whole or not at all, and batches.jsonl is removed when all texts are there.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.atomic import complete_folder, require_creatable, write_json, write_text
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.os_errors import write_errors
from cascaded_dllm.run_lock import LOCK_FILE, run_lock
from cascaded_dllm.sample.progress import BATCHES_FILE, SAMPLES_FILE, Progress, parsed_object, whole_lines
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.sample.settings import SETTINGS_FILE, RunSettings, SampleSettings
from cascaded_dllm.text.listing import listing

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, slots=True)
class StoredSamples:
    """Texts as they lie on disk.

    Attributes:
        ids: for each stage, the ids of all texts, (number of texts, length of the stage).
        texts: for each stage, all texts.
    """

    ids: tuple[Int[Tensor, "B _"], ...]
    texts: tuple[list[str], ...]


def require_writable(output_dir: Path) -> None:
    """Checks, before hours of work, that a run can make its folder in `output_dir`, and leaves nothing there.

    Raises:
        OutputError: it cannot, or `output_dir` is a file.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise OutputError(f"{output_dir} is a file; name a folder for the samples with --output-dir")
    remedy = "use --output-dir to name a folder that you may write to"
    require_creatable(output_dir, f"{output_dir} cannot be written", remedy)


@dataclass(frozen=True, slots=True)
class SampleRun:
    """The folder of one sampling run.

    Attributes:
        folder: folder of the run.
        settings: settings that the run began with.
    """

    folder: Path
    settings: RunSettings

    @classmethod
    def begin(cls, output_dir: Path, settings: RunSettings) -> "SampleRun":
        """A new folder in `output_dir`, called sample_cascade_steps_<n>_len_<L>_<time>, that holds the settings.

        If the stages do not share one time grid, it is calls_<n> instead of steps_<n>; see `Drawing.amount_of_work`.
        Further runs that begin in the same second get a number at the end of the name.

        Raises:
            OutputError: the folder cannot be written.
        """
        lengths = settings.texts.stage_lengths
        work = settings.texts.drawing.amount_of_work(lengths)
        name = f"sample_cascade_{work}_len_{lengths[-1]}_{time.strftime('%Y%m%d_%H%M%S')}"
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        folders = (output_dir / candidate for candidate in candidates)
        return cls(next(folder for folder in folders if not folder.exists() and _made(folder, settings)), settings)

    @classmethod
    def open(cls, folder: Path) -> "SampleRun":
        """The run in `folder`; raises a ConfigError or a DataError as `RunSettings.read` does."""
        return cls(folder, RunSettings.read(folder))

    def lock(self, go_on: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """A block inside which no other process writes to the run; raises an OutputError if one already does.

        Args:
            go_on: called now and then while it is unclear whether the owner of a lock is alive, see `run_lock`.
        """
        return run_lock(self.folder, other="sample into a new folder", go_on=go_on)

    def is_complete(self) -> bool:
        """Whether all texts and all files are there."""
        return self.summary().get("complete") is True

    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty before it is first written.

        Raises:
            DataError: it is damaged.
        """
        path = self.folder / SUMMARY_FILE
        if not path.exists():
            return {}
        return parsed_object(path, path.read_bytes())

    def change_summary(self, **values: Any) -> None:
        """Adds values that were found later to summary.json, whole or not at all."""
        write_json(self.folder / SUMMARY_FILE, self.summary() | values)

    def progress(self) -> Progress:
        """The progress of the run; see `Progress.read`."""
        return Progress.read(self.folder)

    def append(self, first: int, samples: CascadeSamples, *, seconds: float, device: str) -> None:
        """Puts a batch on the disk: first its texts, then its line in batches.jsonl.

        Args:
            first: number of its first text; the others follow.

        Raises:
            OutputError: a file cannot be written; the batches before it are kept.
        """
        size = len(samples.texts[0])
        lines = (
            json.dumps(_record(first + i, i, samples, self.settings.texts), ensure_ascii=False) for i in range(size)
        )
        content = "".join(f"{line}\n" for line in lines).encode()
        batch = {
            "num_finished": size,
            "num_bytes": len(content),
            # `nfe` counts a call on a part of the batch as a share, so the product is whole but for rounding.
            "calls_per_stage": [round(nfe * size) for nfe in samples.nfe],
            "token_forwards": samples.token_forwards,
            "seconds": seconds,
            "devices": [device],
        }
        self._append(SAMPLES_FILE, content)
        self._append(BATCHES_FILE, f"{json.dumps(batch)}\n".encode())

    def _append(self, name: str, content: bytes) -> None:
        """Puts `content` at the end of a file, and waits until it is on the disk.

        Raises:
            OutputError: the file cannot be written.
        """
        path = self.folder / name
        remedy = f"what is finished is kept: make room, and go on with cdllm sample --resume {self.folder}"
        with write_errors(f"{path} cannot be written", remedy), path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def conclude(self, samples: StoredSamples, progress: Progress, summary: Mapping[str, Any]) -> None:
        """Writes the files for readers: each sample_stage<k>.txt, and then summary.json.

        Args:
            samples: all finished texts.
            progress: what they have cost.
            summary: further entries of summary.json.

        Raises:
            OutputError: they cannot be written.
        """
        for stage, texts in enumerate(samples.texts, start=self.settings.texts.first_stage):
            write_text(self.folder / f"sample_stage{stage}.txt", listing(texts))
        is_complete = progress.num_finished == self.settings.num_samples
        content = {
            "complete": is_complete,
            "num_samples": self.settings.num_samples,
            "num_finished": progress.num_finished,
            **self.settings.texts.described(),
            "device": ", ".join(progress.devices),
            "seconds": round(progress.seconds, 3),
            **summary,
            "nfe_per_stage": [calls / progress.num_finished for calls in progress.calls_per_stage],
            "token_forwards": progress.token_forwards,
        }
        write_json(self.folder / SUMMARY_FILE, content)
        if is_complete:
            self.forget_batches()

    def forget_batches(self) -> None:
        """Removes batches.jsonl, which is of use only while texts are missing."""
        (self.folder / BATCHES_FILE).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes from a complete run the files that a process left behind that was killed at its very end."""
        if any((self.folder / name).exists() for name in (BATCHES_FILE, LOCK_FILE)):
            with self.lock():
                self.forget_batches()

    def samples(self) -> StoredSamples:
        """All finished texts.

        Raises:
            DataError: samples.jsonl is damaged, or its texts are not numbered from 0 on.
        """
        path, lengths = self.folder / SAMPLES_FILE, self.settings.texts.stage_lengths
        lengths = lengths[self.settings.texts.first_stage - 1 :]
        records = [parsed_object(path, line) for line in whole_lines(path.read_bytes())]
        numbers = [record.get("sample") for record in records]
        if numbers != list(range(len(records))):
            raise DataError(
                f"{path} holds the texts {numbers[:8]}..., and those from 0 on were written; restore them or "
                "sample anew"
            )
        stages = [[record["stages"][k] for record in records] for k in range(len(lengths))]
        return StoredSamples(
            tuple(
                torch.tensor([entry["ids"] for entry in stage], dtype=torch.int64).reshape(len(stage), length)
                for stage, length in zip(stages, lengths, strict=True)
            ),
            tuple([entry["text"] for entry in stage] for stage in stages),
        )


def write_samples(
    output_dir: Path, samples: CascadeSamples, settings: RunSettings, summary: Mapping[str, Any], *, seconds: float
) -> Path:
    """Writes a complete run with these texts into `output_dir`, and returns its folder.

    Args:
        output_dir: folder of runs.
        samples: all texts of the run.
        settings: settings of the run.
        summary: further entries of summary.json.
        seconds: time of drawing the texts.

    Raises:
        OutputError: it cannot be written.
    """
    run = SampleRun.begin(output_dir, settings)
    with run.lock():
        run.append(0, samples, seconds=seconds, device=settings.device)
        run.conclude(run.samples(), run.progress(), summary)
    return run.folder


def _made(folder: Path, settings: RunSettings) -> bool:
    """Makes the folder of a run without texts, and returns whether the path was free.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        with complete_folder(folder, exclusive=True) as temporary:
            (temporary / SETTINGS_FILE).write_text(settings.to_json(), encoding="utf-8")
            for name in (SAMPLES_FILE, BATCHES_FILE):
                (temporary / name).touch()
    except OutputError:
        if not folder.is_dir():
            raise
        return False
    return True


def _record(number: int, row: int, samples: CascadeSamples, settings: SampleSettings) -> dict[str, Any]:
    """The line of one text in samples.jsonl: its ids and texts, and the settings with which it can be drawn again."""
    stages = [
        {"stage": k, "ids": ids[row].tolist(), "written_by": written_by, "text": texts[row]}
        for k, ids, written_by, texts in zip(
            samples.stage_numbers, samples.ids, samples.provenance(row), samples.texts, strict=True
        )
    ]
    return {"sample": number, "settings": settings.described(), "stages": stages}
