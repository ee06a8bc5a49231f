"""Turns the row groups of a dataset into the windows and nested stages of training, in one or many processes."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np

from cascaded_dllm.cascade.select_many import keep_ranks, kept_positions
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.array_file import ArrayFile, Stored, stored_type
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.row_groups import RowGroup, row_groups
from cascaded_dllm.data.windows import Layout, Seam, Tokens
from cascaded_dllm.errors import DataError, WorkerDiedError
from cascaded_dllm.processes import in_order, process_pool, usable_cores

# Windows whose stages are chosen together: enough to make Python's own time negligible, few enough to bound the memory.
_BATCH_WINDOWS = 4096
# Row groups that are given out ahead of the one that is written, per process: enough to keep all processes busy.
_AHEAD = 2
# The process that writes keeps up with about this many that build.
_MAX_WORKERS = 8
# A row group takes about a tenth of a second, and starting a process half a second.
_GROUPS_PER_PROCESS = 4

Progress: TypeAlias = Callable[[int, int | None], None]


def useful_workers() -> int:
    """The number of processes that make building faster on this machine."""
    return min(usable_cores(), _MAX_WORKERS)


def stage_file(folder: Path, stage: int) -> Path:
    """The file of the token ids of stage 1..K."""
    return folder / f"stage{stage}.npy"


def positions_file(folder: Path, stage: int) -> Path:
    """The file of the positions of stage 1..K-1."""
    return folder / f"positions{stage}.npy"


class Stages(NamedTuple):
    """The stages of some windows.

    Attributes:
        token_ids: for every stage, (kept windows, its length).
        positions: for every stage but the last, in the same shape: the tokens' positions in the window, rising.
        num_kept: number of kept windows.
        num_dropped: number of windows that cannot fill every stage.
    """

    token_ids: tuple[Stored, ...]
    positions: tuple[Stored, ...]
    num_kept: int
    num_dropped: int


@final
@dataclass(frozen=True, slots=True)
class StageRule:
    """Everything that decides the stages of a dataset.

    Attributes:
        spec: the stage lengths; the last one is the window.
        layout: how documents lie in windows.
        method: the selection rule.
        unique: whether a shortened stage keeps a token id once.
        keeps_all: whether windows with too few distinct tokens keep copies instead of being dropped.
    """

    spec: CascadeSpec
    layout: Layout
    method: str
    unique: bool = True
    keeps_all: bool = False

    def select(self, windows: Tokens) -> Stages:
        """The stages of windows; unless `keeps_all`, those that cannot fill every stage are dropped."""
        shortened = self.spec.stage_lengths[:-1]
        ranks = keep_ranks(*windows, method=self.method, unique=self.unique)
        is_kept = (ranks < self.spec.window_length).sum(axis=1) >= max(shortened, default=0)
        if self.keeps_all and not is_kept.all():
            lacking = ~is_kept
            with_copies = keep_ranks(
                windows.token_ids[lacking], windows.importance[lacking], method=self.method, unique=False
            )
            ranks[lacking], is_kept = with_copies, np.ones_like(is_kept)
        token_ids, ranks = windows.token_ids[is_kept], ranks[is_kept]
        positions = tuple(kept_positions(ranks, length) for length in shortened)
        chosen = tuple(np.take_along_axis(token_ids, kept, axis=1) for kept in positions)
        return Stages((*chosen, token_ids), positions, len(token_ids), len(is_kept) - len(token_ids))


class _Types(NamedTuple):
    """The types in which numbers are stored."""

    token_ids: np.dtype[Any]
    positions: np.dtype[Any]

    def of(self, stages: Stages) -> Stages:
        """The same stages in these types.

        Raises:
            DataError: a token id does not fit.
        """
        largest, most = int(stages.token_ids[-1].max(initial=0)), np.iinfo(self.token_ids).max
        if largest > most:
            raise DataError(
                f"the data has the token id {largest}, and its manifest a vocabulary whose ids are at most {most}; "
                "they do not belong together: preprocess again"
            )
        return stages._replace(
            token_ids=tuple(ids.astype(self.token_ids, copy=False) for ids in stages.token_ids),
            positions=tuple(kept.astype(self.positions, copy=False) for kept in stages.positions),
        )


class _Block(NamedTuple):
    """A row group with the stages of its whole windows; see `Cut`."""

    head: Tokens
    stages: list[Stages]
    rest: Tokens


_Task: TypeAlias = tuple[RowGroup, int]
"""A row group, and the number of tokens missing in the window begun before it."""


def write_stages(
    folder: Path, dataset: PreprocessedDataset, rule: StageRule, *, workers: int, on_progress: Progress | None
) -> dict[str, object]:
    """Writes all arrays and returns the counts for the manifest; the files are the same for any number of workers.

    Args:
        folder: an empty folder.
        dataset: read once; its shards are verified.
        rule: decides the stages.
        workers: number of processes; 1 for this process alone.
        on_progress: called with the number of documents done, and of all.

    Raises:
        DataError: a shard is damaged, a token id does not fit the vocabulary, or no window results.
        WorkerDiedError: a process was killed.
    """
    groups = row_groups(dataset)
    tasks = list(zip(groups, rule.layout.missing(groups), strict=True))
    types = _Types(stored_type(dataset.settings.vocab_size - 1), stored_type(rule.spec.window_length - 1))
    seam, documents = Seam(rule.spec.window_length), 0
    make = functools.partial(_block, rule, types)
    with _StageFiles(folder, rule.spec, types) as files, _blocks(dataset, make, tasks, workers) as blocks:
        for group, block in zip(groups, blocks, strict=True):
            window = seam.ended_by(block.head)
            if window is not None:
                files.append(types.of(rule.select(window)))
            for stages in block.stages:
                files.append(stages)
            seam.begin(block.rest)
            documents += group.num_documents
            if on_progress is not None:
                on_progress(documents, dataset.counts.documents)
    _require_windows(dataset, rule, files)
    dropped = {"too_few_distinct_tokens": files.num_dropped, "tail_tokens": len(seam.begun.token_ids)}
    return {"windows": files.num_kept, "dropped": dropped}


class _StageFiles:
    """The files of all arrays, and the number of windows kept in them and dropped."""

    def __init__(self, folder: Path, spec: CascadeSpec, types: _Types) -> None:
        self.num_kept = self.num_dropped = 0
        self._stack = contextlib.ExitStack()
        numbered = list(enumerate(spec.stage_lengths, start=1))
        self._stages = [self._open(stage_file(folder, k), length, types.token_ids) for k, length in numbered]
        self._positions = [
            self._open(positions_file(folder, k), length, types.positions) for k, length in numbered[:-1]
        ]

    def __enter__(self) -> "_StageFiles":
        return self

    def append(self, stages: Stages) -> None:
        """Adds windows to all files."""
        for file, block in zip(self._stages, stages.token_ids, strict=True):
            file.append(block)
        for file, block in zip(self._positions, stages.positions, strict=True):
            file.append(block)
        self.num_kept += stages.num_kept
        self.num_dropped += stages.num_dropped

    def __exit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(exception_type, exception, trace)

    def _open(self, path: Path, columns: int, kind: np.dtype[Any]) -> ArrayFile:
        return self._stack.enter_context(ArrayFile(path, columns, kind))


def _require_windows(dataset: PreprocessedDataset, rule: StageRule, files: _StageFiles) -> None:
    """Checks that a dataset has at least one window.

    Raises:
        DataError: it has none.
    """
    if files.num_kept > 0:
        return
    length = rule.spec.window_length
    if files.num_dropped == 0:
        raise DataError(
            f"{dataset.folder} has {dataset.counts.tokens} tokens in {dataset.counts.documents} documents, and one "
            f"window needs {length}; give a larger corpus or shorter stages (--lengths)"
        )
    raise DataError(
        f"none of the {files.num_dropped} windows of {length} tokens in {dataset.folder} has the "
        f"{rule.spec.stage_lengths[-2]} distinct tokens that {rule.method} needs for the longest shortened stage; "
        "choose shorter stages or longer windows (--lengths), or keep repeated tokens (data.unique=false)"
    )


@contextlib.contextmanager
def _blocks(
    dataset: PreprocessedDataset, make: Callable[[_Task], _Block], tasks: Sequence[_Task], workers: int
) -> Iterator[Iterator[_Block]]:
    """The blocks of all row groups in order, from this process or from up to `workers` others."""
    workers = min(workers, len(tasks) // _GROUPS_PER_PROCESS)
    if workers <= 1:
        yield map(make, tasks)
        return
    with process_pool(workers) as pool:
        yield _made_by(pool, make, tasks, _AHEAD * workers, dataset.folder)


def _made_by(
    pool: ProcessPoolExecutor, make: Callable[[_Task], _Block], tasks: Sequence[_Task], ahead: int, folder: Path
) -> Iterator[_Block]:
    """The results of `make` for all tasks in order, with at most `ahead` tasks given out at a time.

    Raises:
        WorkerDiedError: a process was killed.
    """
    try:
        yield from in_order(pool, make, tasks, ahead=ahead)
    except BrokenProcessPool as error:
        raise WorkerDiedError(
            f"a process that builds the stages of {folder} was killed, often by the system for want of memory; nothing "
            "half-built is left: run the same command again, with fewer workers or more memory"
        ) from error


def _block(rule: StageRule, types: _Types, task: _Task) -> _Block:
    """The stages of one row group; for the first one of a shard, the shard is verified.

    Results are taken in order, so damage to a shard is reported before any fault that it causes.
    """
    group, missing = task
    if group.number == 0:
        group.shard.verify()
    head, windows, rest = rule.layout.cut(group.read(), missing)
    starts = range(0, len(windows.token_ids), _BATCH_WINDOWS)
    stages = [types.of(rule.select(windows.part(start, start + _BATCH_WINDOWS))) for start in starts]
    return _Block(head, stages, rest)
