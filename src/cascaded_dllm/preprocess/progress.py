"""Progress and summaries of tasks, in small files that any machine that sees the folder can read."""

import contextlib
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import write_json
from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.hub import HubRows
from cascaded_dllm.text.hub_corpora import HubCorpus
from cascaded_dllm.text.local_files import LocalFiles

# A heartbeat a second costs nothing; one for every batch would strain a network file system.
_EVERY_SECONDS = 1.0
# Windows are cut later, at the length of the last stage; this default length gives the order of magnitude.
WINDOW_LENGTH = 128


@final
class TaskLog:
    """Progress and summary of one task, in files of its own; replaces the progress of an earlier task for the shard.

    Args:
        folder: of the dataset.
        index: number of the shard.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self._heartbeat = _heartbeat_file(folder, index)
        self._summary = _summary_file(folder, index)
        self._started = time.monotonic()
        self._last = float("-inf")
        self.tell(0)
        # The first batch is noted too, however soon it is done.
        self._last = float("-inf")

    def tell(self, records: int) -> None:
        """Writes how many records are done, at most once a second."""
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS:
            self._last = now
            write_json(self._heartbeat, {"records": records, "seconds": round(now - self._started, 1)})

    def finish(self, counts: Counts) -> dict[str, object]:
        """Writes the summary of the task and returns it."""
        told = summary(counts, time.monotonic() - self._started)
        write_json(self._summary, told)
        self._heartbeat.unlink(missing_ok=True)
        return told


def write_total(folder: Path, counts: Counts, num_shards: int) -> None:
    """Writes the summary of a dataset; its seconds are the sum over all tasks, wherever and whenever they ran.

    If summaries of tasks were lost, times and rates are those of the others, whose number is `shards_timed`; if all
    were lost, they are null.

    Args:
        folder: of the dataset.
        counts: of all its shards.
        num_shards: of the dataset.
    """
    told = [read_notes(_summary_file(folder, index)) for index in range(num_shards)]
    timed = [
        (documents, tokens, seconds)
        for task in told
        if (documents := count_in(task, "documents")) is not None
        and (tokens := count_in(task, "tokens")) is not None
        and isinstance(seconds := task.get("seconds"), int | float)
    ]
    made = Counts(sum(task[0] for task in timed), sum(task[1] for task in timed))
    seconds_in_all = sum(task[2] for task in timed) if timed else None
    value = summary(counts, seconds_in_all, made) | {"shards_timed": len(timed)}
    write_json(_total_file(folder), value)


def has_total(folder: Path) -> bool:
    """Whether the summary of a dataset exists."""
    return _total_file(folder).is_file()


def summary(counts: Counts, seconds: float | None, timed: Counts | None = None) -> dict[str, object]:
    """Counts and throughput, for people and for scripts.

    Args:
        counts: of all records.
        seconds: time that was spent; None if unknown.
        timed: of the records on which this time was spent; None for all.
    """
    made = counts if timed is None else timed
    return asdict(counts) | {
        f"windows_of_{WINDOW_LENGTH}": (counts.tokens + counts.documents) // WINDOW_LENGTH,
        "seconds": None if seconds is None else round(seconds, 3),
        "documents_per_second": None if seconds is None else round(made.documents / max(seconds, 1e-9), 1),
        "tokens_per_second": None if seconds is None else round(made.tokens / max(seconds, 1e-9), 1),
    }


@final
@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last progress of a task that has not completed its shard; the task may be at work, or have ended.

    Attributes:
        records: number of records done.
        seconds: since the task started.
        told_ns: when this was written, in nanoseconds since 1970.
    """

    records: int
    seconds: float
    told_ns: int

    @property
    def age(self) -> float:
        """Seconds since it was written, by the clocks of this machine and of the file system."""
        return max(0.0, (time.time_ns() - self.told_ns) / 1e9)


def heartbeats(folder: Path, tasks: Collection[int]) -> dict[int, Heartbeat]:
    """The last progress of those of `tasks` that have started and not completed their shards, by task.

    Args:
        folder: of the dataset.
        tasks: numbers of shards. The cost depends only on the number of existing files, one for each task at work.
    """
    found = {}
    for index, path in _told(folder):
        if index in tasks and (heartbeat := _heartbeat(path)) is not None:
            found[index] = heartbeat
    return dict(sorted(found.items()))


def records_in_progress(folder: Path, tasks: Collection[int], before: Mapping[int, Heartbeat]) -> int:
    """The number of records done in unfinished shards, by the last progress of their tasks.

    Args:
        folder: of the dataset.
        tasks: numbers of shards.
        before: heartbeats from before these tasks were started, which are not theirs.
    """
    told = heartbeats(folder, tasks)
    return sum(heartbeat.records for index, heartbeat in told.items() if heartbeat != before.get(index))


def known_records(corpus: Corpus) -> int | None:
    """The number of records in a corpus, dropped ones included, or an upper bound; None if neither is cheap to find.

    For one side of a holdout, it is the number on that side.

    Raises:
        DataError: a file cannot be read.
    """
    reader = corpus.reader
    written = reader.corpus if isinstance(reader, HubRows) else reader
    form = written.form if isinstance(written, LocalFiles | HubCorpus) else None
    if form == "wikitext":
        # Records include headings here, while only a number of articles could be known.
        return None
    bound = corpus.num_records
    if isinstance(reader, LocalFiles) and form is None and (rows := reader.num_rows()) is not None:
        bound = rows if bound is None else min(rows, bound)
    return bound if bound is None or corpus.holdout is None else corpus.holdout.place(bound)


def forget_progress(folder: Path, tasks: Iterable[int]) -> None:
    """Removes the progress files of these tasks: one that was killed just after it made its shard has left its own."""
    for index in tasks:
        _heartbeat_file(folder, index).unlink(missing_ok=True)


def _told(folder: Path) -> Iterator[tuple[int, Path]]:
    """Every task that has a heartbeat, and its file."""
    try:
        with os.scandir(_heartbeat_file(folder, 0).parent) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return
    for name in names:
        number, _, ending = name.partition(".")
        # Other files are temporary ones, about to be renamed.
        if number.isdecimal() and ending == "json":
            yield int(number), _heartbeat_file(folder, int(number))


def _heartbeat(path: Path) -> Heartbeat | None:
    """The heartbeat in a file; None if the file is damaged, or was removed in this moment because the task is done."""
    value = read_notes(path)
    with contextlib.suppress(FileNotFoundError, LookupError, ValueError):
        return Heartbeat(int(str(value["records"])), float(str(value.get("seconds", 0))), path.stat().st_mtime_ns)
    return None


def read_notes(path: Path) -> Mapping[str, object]:
    """The content of a JSON file of the logs; empty if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        # The task has not begun, or is done in this moment. Damage is harmless too: logs are not part of the data.
        return {}
    return value if isinstance(value, dict) else {}


def count_in(notes: Mapping[str, object], name: str) -> int | None:
    """The count of this name in the content of a file of the logs; None if it is missing or damaged."""
    value = notes.get(name)
    return value if type(value) is int and value >= 0 else None


def logs_folder(folder: Path) -> Path:
    """The folder of logs about the making of the dataset in `folder`."""
    return folder / "logs"


def _total_file(folder: Path) -> Path:
    return logs_folder(folder) / "summary.json"


def _summary_file(folder: Path, index: int) -> Path:
    return logs_folder(folder) / "summaries" / f"{index:05d}.json"


def _heartbeat_file(folder: Path, index: int) -> Path:
    return logs_folder(folder) / "progress" / f"{index:05d}.json"
