"""The progress of a preprocessing job, wherever it runs, from the files that its tasks write."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import write_json
from cascaded_dllm.data.preprocessed import shards_of
from cascaded_dllm.errors import DataError
from cascaded_dllm.preprocess.on_slurm import submitted_jobs
from cascaded_dllm.preprocess.progress import Heartbeat, count_in, heartbeats, logs_folder, read_notes

SILENT_SECONDS = 600
"""Age of a heartbeat from which a task counts as silent; a batch of documents, after which tasks write one, takes
minutes at most."""


def note_job(folder: Path, num_shards: int, records: int | None, *, is_exact: bool = False) -> None:
    """Writes the size of a job, for `status`.

    Args:
        folder: of the dataset.
        num_shards: of the dataset.
        records: number of records in the corpus, or an upper bound; None if unknown, which keeps an earlier number.
        is_exact: whether they were counted. A bound replaces a counted number only if it is lower.

    Raises:
        OutputError: the folder cannot be written.
    """
    note: dict[str, object] = {"shards": num_shards, "records": records, "is_exact": is_exact}
    before = read_notes(_job_file(folder))
    if before.get("shards") == num_shards:
        counted = before.get("records") if before.get("is_exact") is True and not is_exact else None
        if records is None or (isinstance(counted, int) and counted <= records):
            return
    if note != before:
        write_json(_job_file(folder), note)


@final
@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is.

    Attributes:
        folder: of the dataset.
        num_shards: of the dataset.
        done: the shards that are complete.
        told: the last heartbeat of the task of each other shard that has begun.
        records_done: records in complete shards, and those done by tasks at work.
        records_total: about how many records the corpus has; None if unknown.
        jobs: of Slurm, see `submitted_jobs`.
    """

    folder: Path
    num_shards: int
    done: tuple[int, ...]
    told: dict[int, Heartbeat]
    records_done: int
    records_total: int | None
    jobs: tuple[str, ...]

    @property
    def at_work(self) -> dict[int, Heartbeat]:
        """The heartbeats of tasks that seem to be at work."""
        return {index: told for index, told in self.told.items() if told.age < SILENT_SECONDS}

    @property
    def silent(self) -> dict[int, Heartbeat]:
        """The last heartbeats of tasks that have ended or cannot be reached."""
        return {index: told for index, told in self.told.items() if told.age >= SILENT_SECONDS}

    @property
    def not_begun(self) -> int:
        """The number of shards that are not complete and have no heartbeat."""
        return self.num_shards - len(self.done) - len(self.told)

    @property
    def rate(self) -> float:
        """Records per second of all tasks at work together."""
        return math.fsum(told.records / told.seconds for told in self.at_work.values() if told.seconds > 0)

    @property
    def seconds_left(self) -> float | None:
        """The remaining time at the present rate; None if it cannot be estimated."""
        if len(self.done) == self.num_shards:
            return 0.0
        if self.records_total is None or self.rate == 0:
            return None
        return max(self.records_total - self.records_done, 0) / self.rate

    def as_json(self) -> dict[str, object]:
        """The status as JSON, for scripts; lists of shards are in order."""
        left = self.seconds_left
        return {
            "folder": str(self.folder),
            "shards": self.num_shards,
            "done": len(self.done),
            "at_work": [_as_json(index, told) for index, told in self.at_work.items()],
            "silent": [_as_json(index, told) for index, told in self.silent.items()],
            "not_begun": self.not_begun,
            "records_done": self.records_done,
            "records_total": self.records_total,
            "records_per_second": round(self.rate, 1),
            "seconds_left": None if left is None else round(left),
            "slurm_jobs": list(self.jobs),
        }


def status(folder: Path) -> Status:
    """The progress of the job that makes the dataset in `folder`.

    Raises:
        DataError: no job has begun there, `folder` is a file, or a shard was made in another format.
    """
    if folder.is_file():
        raise DataError(f"{folder} is a file; give the folder of the dataset, <out>/<method>/<name>_<split>")
    note = read_notes(_job_file(folder))
    num_shards = count_in(note, "shards") or 0
    shards = shards_of(folder)
    for shard in shards.values():
        num_shards = shard.settings.num_shards
    done = {index: shard.counts.records for index, shard in shards.items()}
    if num_shards == 0:
        raise DataError(
            f"no job of cdllm preprocess has begun in {folder}; give the folder of the dataset, "
            "<out>/<method>/<name>_<split>"
        )
    told = heartbeats(folder, frozenset(range(num_shards)) - done.keys())
    total = count_in(note, "records")
    if done:
        # The numbers of records in two shards differ by one at most, and a bound may be far too high.
        estimate = sum(done.values()) * num_shards // len(done)
        total = estimate if total is None or len(done) == num_shards else min(total, estimate)
    at_work = sum(heartbeat.records for heartbeat in told.values() if heartbeat.age < SILENT_SECONDS)
    so_far = sum(done.values()) + at_work
    return Status(folder, num_shards, tuple(done), told, so_far, total, tuple(submitted_jobs(folder)))


def _as_json(index: int, told: Heartbeat) -> dict[str, object]:
    return {"shard": index, "records": told.records, "seconds": told.seconds, "age": round(told.age, 1)}


def _job_file(folder: Path) -> Path:
    return logs_folder(folder) / "job.json"
