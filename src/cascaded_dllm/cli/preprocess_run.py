"""Runs one preprocessing job, here, on Slurm or on Ray, and prints its progress and its result."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cascaded_dllm.assemble.preprocess import ShardTask, prepare
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.cli.console import console, counted, note, progress_bar, say
from cascaded_dllm.cli.preprocess_progress import (
    preparation_progress,
    say_ended_tasks,
    say_lost_task,
    shards_progress,
)
from cascaded_dllm.data.preprocessed import PreprocessedDataset, shard_folder
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.preprocess.executors import (
    Resources,
    SharedOut,
    Tasks,
    require_libraries,
    run_local,
    shared_out,
)
from cascaded_dllm.preprocess.job import COUNTED, Job, require_shard
from cascaded_dllm.preprocess.on_ray import run_ray
from cascaded_dllm.preprocess.on_slurm import require_no_job, submit_slurm
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.preprocess.progress import WINDOW_LENGTH, known_records, summary
from cascaded_dllm.preprocess.status import note_job
from cascaded_dllm.processes import MOST_WORKERS, usable_cores
from cascaded_dllm.text.rows import BadRecordError

_MEASURED_SPLITS = ("valid", "validation", "test")
"""Splits that no model is trained on."""


@contextlib.contextmanager
def _with_remedy() -> Iterator[None]:
    """Adds the remedy --bad-records drop to the error about an unreadable record.

    Raises:
        DataError: a record cannot be read.
    """
    try:
        yield
    except BadRecordError as error:
        raise DataError(f"{error}, or drop and count such records with --bad-records drop") from error


@_with_remedy()
def run_job(
    job: Job,
    *,
    executor: str,
    workers: int | None,
    resources: Resources,
    shard: int | None,
    ray_address: str | None,
    submit_anyway: bool,
) -> None:
    """Prepares a job, runs the tasks whose shards are missing, and prints the result.

    Raises:
        CascadeError: see `prepare` and the executors.
    """
    resources.check(executor)
    require_libraries(executor)
    if shard is not None:
        _require_single(job, shard, executor, workers)
    processes = usable_cores() if workers is None else workers
    require_at_least("the number of workers", processes, 1, most=MOST_WORKERS)
    with preparation_progress() as tell_pass:
        # Slurm and Ray jobs are prepared on one process, since the submitting machine is usually shared.
        task = prepare(job, workers=processes if executor == "local" else 1, on_pass=tell_pass)
        task.plan.check_shards()
        wanted = range(job.num_shards) if shard is None else [shard]
        if executor == "slurm" and not submit_anyway:
            require_no_job(task.plan.folder)
    complete = _complete(task.plan, wanted, min(processes, usable_cores()))
    missing = sorted(set(wanted) - set(complete))
    # The cores that a task has on a cluster are used by processes that score documents.
    placed = task if executor == "local" else task.on_processes(resources.cpus)
    tasks = Tasks(placed, task.plan.folder, job.num_shards, missing, complete)
    if hint := task.plan.corpus.hint():
        note(hint)
    _note_word_counts(job, task.plan.settings.scorer.get("num_documents"))
    if missing and complete:
        console.print(f"{len(complete):,} of {counted(job.num_shards, 'shard')} are there, and are kept")
    say_ended_tasks(tasks, has_time_limit=executor == "slurm" or shard is not None)
    if not missing:
        task.complete()
        _say_what_came_out(task, 0.0, 0)
        return
    started = time.monotonic()
    task.plan.keep_indexes()
    is_exact = task.plan.to_be_read_once(missing)
    records = _read_once(task.plan, missing) if is_exact else known_records(task.plan.corpus)
    note_job(tasks.folder, job.num_shards, records, is_exact=is_exact)
    match executor:
        case "slurm":
            numbers = submit_slurm(tasks, resources, f"cdllm-{job.scorer.method}")
            what = f"job {numbers[0]} makes" if len(numbers) == 1 else f"jobs {', '.join(numbers)} make, in turn,"
            console.print(f"{what} {counted(len(missing), 'shard')}; logs are in {tasks.logs}", soft_wrap=True)
            say(f"to see the progress: cdllm preprocess status {tasks.folder}")
            return
        case "ray":
            console.print(f"{counted(len(missing), 'shard')} on Ray")
            with shards_progress(tasks, records) as tell:
                run_ray(tasks, resources, ray_address, tell, say_lost_task)
        case _:
            _run_here(task, tasks, processes, records)
    _say_what_came_out(task, time.monotonic() - started, len(missing))


def _note_word_counts(job: Job, num_documents: object) -> None:
    """Says what word counts do to the choice of words where that may not be expected."""
    if job.scorer.method not in COUNTED:
        return
    if num_documents == 1:
        note(
            "the words of 1 document are counted, in which no word is rarer than another: all have the importance 0, "
            "and stages keep the first words; cut the text into more documents (--unit)"
        )
    if job.scorer.word_counts is None and job.corpus.split in _MEASURED_SPLITS:
        note(
            f"the split {job.corpus.split} has word counts of its own, so its stages keep other words than those of "
            "the train split; to measure models on it, give --word-counts with the data that they are trained on"
        )


def _require_single(job: Job, shard: int, executor: str, workers: int | None) -> None:
    """Checks that the options allow making a single shard.

    Raises:
        ConfigError: they do not.
    """
    require_shard(shard, job.num_shards)
    if executor == "slurm":
        raise ConfigError("--shard is for a job array of your own, and --executor slurm submits one; leave one out")
    if executor == "ray" and workers is not None:
        raise ConfigError(
            f"--workers {workers} says how many tasks run at once, and --shard {shard} is one task; leave it out "
            "(--cpus says how many processes a task has on Ray)"
        )


def _complete(plan: Plan, wanted: Sequence[int], threads: int) -> list[int]:
    """Those of the wanted shards that exist and are whole, which hashing them shows."""
    there = [index for index in wanted if shard_folder(plan.folder, index).exists()]
    if not there:
        return []
    if not console.is_terminal and len(there) > 1:
        console.print(f"checking {counted(len(there), 'shard')}")
    whole = []
    # Threads suffice, because hashing releases the global interpreter lock.
    with progress_bar("shards checked") as (_, move), ThreadPoolExecutor(threads) as pool:
        try:
            for done, is_whole in enumerate(pool.map(plan.has_shard, there), start=1):
                move(done, len(there))
                whole += [there[done - 1]] * is_whole
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return whole


def _read_once(plan: Plan, missing: Sequence[int]) -> int:
    """Reads the corpus once for all shards, because each part would cost as much as the whole; returns its records."""
    if not console.is_terminal:
        console.print(f"reading the corpus once for {counted(len(missing), 'shard')}")
    last, total = 0, known_records(plan.corpus)
    with progress_bar("records read") as (_, move):

        def tell(number: int) -> None:
            nonlocal last
            last = number
            move(number, total)

        plan.read_once(missing, tell)
    return last


def _run_here(task: ShardTask, tasks: Tasks, workers: int, records: int | None) -> None:
    """Runs the tasks on this machine; workers beyond the number of shards score documents inside the tasks."""
    at_once, in_last = min(workers, len(tasks.missing)), len(tasks.missing) % workers
    if workers > len(tasks.missing):
        tasks = replace(tasks, task=SharedOut(task, shared_out(workers, tasks.missing)))
    if len(tasks.missing) == tasks.num_shards > workers and 0 < in_last <= workers // 2:
        note(
            f"the last round is {counted(in_last, 'shard')}, in which {workers - in_last:,} of "
            f"{workers:,} workers have nothing to do; a multiple of {workers:,} in --shards keeps all of them busy"
        )
    with shards_progress(tasks, records) as tell:
        run_local(tasks, at_once, tell)


def _say_what_came_out(task: ShardTask, seconds: float, num_made: int) -> None:
    """Prints the counts of the dataset or, if it is not complete, how many shards are missing."""
    folder, settings = task.plan.folder, task.plan.settings
    still = settings.num_shards - len(task.plan.folders_of_shards())
    if still:
        console.print(f"made {counted(num_made, 'shard')}; {still:,} of {settings.num_shards} are still missing")
        return
    counts = PreprocessedDataset.open(folder).counts
    told = summary(counts, seconds)
    console.print(
        f"{counted(counts.documents, 'document')}, {counts.tokens:,} tokens of a vocabulary of "
        f"{settings.vocab_size:,}, about {told[f'windows_of_{WINDOW_LENGTH}']:,} windows of {WINDOW_LENGTH}"
    )
    for reason, number in counts.dropped.items():
        console.print(f"dropped {number:,}: {reason}")
    if num_made == settings.num_shards:
        console.print(f"{told['tokens_per_second']:,} tokens/s in {seconds:.1f} s")
    say(f"in {folder}")
