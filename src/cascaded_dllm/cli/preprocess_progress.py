"""Progress of a preprocessing job, on the terminal or in a log, and the fate of shards that an earlier job left."""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cascaded_dllm.cli.console import LogLine, clock, console, counted, note, progress_bar, working
from cascaded_dllm.data.preprocessed import shard_folder
from cascaded_dllm.data.shards import Shard
from cascaded_dllm.preprocess.executors import Tasks
from cascaded_dllm.preprocess.progress import Heartbeat, heartbeats

_ENDED_SAID = 3
"""Ended shards that are listed one by one."""
_TELL_EVERY_SECONDS = 60.0
"""Time between progress lines in a log."""


@contextmanager
def preparation_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A spinner, then a bar for every pass through the corpus; without a terminal, lines for a pass that takes long.

    Yields:
        The callback for the passes, see `OnPass`.
    """
    with ExitStack() as shown:
        if console.is_terminal:
            shown.enter_context(working("reading the corpus: tokenizer and settings"))
        shown_pass, move = "", None
        began, line = time.monotonic(), LogLine(_TELL_EVERY_SECONDS)

        def tell(what: str, done: int, total: int | None) -> None:
            nonlocal shown_pass, move, began, line
            if what != shown_pass:
                # A terminal can show only one live display.
                shown.close()
                shown_pass, began, line = what, time.monotonic(), LogLine(_TELL_EVERY_SECONDS)
                _, move = shown.enter_context(progress_bar(what))
            assert move is not None
            move(done, total)
            if line.is_due():
                rate = done / max(time.monotonic() - began, 1e-9)
                console.print(f"{what}: {progress_line(done, total, rate)}", soft_wrap=True)

        yield tell


@contextmanager
def shards_progress(tasks: Tasks, records: int | None) -> Iterator[Callable[[Collection[int], int], None]]:
    """A progress bar, or lines at intervals without a terminal; yields the callback that executors report progress to.

    Args:
        tasks: the tasks whose shards are made.
        records: number of records in the whole corpus, dropped ones included, or an upper bound; None if unknown.
    """
    num_tasks = len(tasks.missing)
    total = None if records is None else sum(len(range(i, records, tasks.num_shards)) for i in tasks.missing)
    num_finished = in_finished = 0
    started, line = time.monotonic(), LogLine(_TELL_EVERY_SECONDS)
    with progress_bar("documents") as (bar, move):

        def tell(finished: Collection[int], in_progress: int) -> None:
            nonlocal num_finished, in_finished
            num_finished += len(finished)
            # Each shard is opened once, when it is finished; opening all of them every time would take ever longer.
            in_finished += sum(Shard.open(shard_folder(tasks.folder, index)).counts.records for index in finished)
            so_far = in_finished + (0 if num_finished == num_tasks else in_progress)
            expected = _expected(total, num_finished, in_finished, num_tasks)
            rate = so_far / max(time.monotonic() - started, 1e-9)
            bar.update(bar.task_ids[0], status=_per_second(rate) if so_far else "")
            move(so_far, expected)
            if line.is_due():
                shards = f"{num_finished:,} of {counted(num_tasks, 'shard')}"
                console.print(f"{shards}, {progress_line(so_far, expected, rate)}", soft_wrap=True)

        yield tell


def _expected(total: int | None, num_finished: int, in_finished: int, num_tasks: int) -> int | None:
    """The expected number of records in all shards of this job; None if it is unknown."""
    if num_finished == num_tasks:
        return in_finished
    if num_finished == 0:
        return total
    # Shards differ by at most one record, so the finished ones give an estimate; a bound may be far too high.
    estimate = in_finished * num_tasks // num_finished
    return estimate if total is None else min(total, estimate)


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def progress_line(done: int, total: int | None, rate: float) -> str:
    """A line with the finished records, the rate and, if it can be estimated, the remaining time.

    Args:
        done: finished records.
        total: all records, about; None if unknown.
        rate: records a second.
    """
    if total is None:
        return f"{done:,} records so far, {_per_second(rate)}"
    left = f", about {clock(max(total - done, 0) / rate)} left" if rate > 0 else ""
    return f"{done:,} of about {total:,} records, {_per_second(rate)}{left}"


def say_shards(told: Mapping[int, Heartbeat], form: str, *, most: int) -> None:
    """Prints the last heartbeats of tasks, a line each, and how many more there are.

    Args:
        told: the last heartbeat, by shard.
        form: format of a line after the shard's number, with {records}, {time} and {age}.
        most: largest number of lines.
    """
    for index, heartbeat in itertools.islice(told.items(), most):
        records, time_spent = counted(heartbeat.records, "record"), clock(heartbeat.seconds)
        line = form.format(records=records, time=time_spent, age=clock(heartbeat.age))
        console.print(f"shard {index} {line}", soft_wrap=True)
    if len(told) > most:
        console.print(f"and {counted(len(told) - most, 'shard')} more")


def say_ended_tasks(tasks: Tasks, *, has_time_limit: bool) -> None:
    """Prints how far ended tasks had come, because a task that exceeds its time limit would fail again and again.

    Args:
        tasks: the tasks whose shards are missing.
        has_time_limit: whether they run in cluster jobs that have a time limit.
    """
    ended = heartbeats(tasks.folder, frozenset(tasks.missing))
    form = "had done {records} in {time} when it was ended (last heartbeat {age} ago), and begins anew"
    say_shards(ended, form, most=_ENDED_SAID)
    if ended:
        limit = (
            "if that was their time limit (--time), raise it, or start anew in another --out with more --shards than "
            f"{tasks.num_shards}; "
        )
        note(f"{limit if has_time_limit else ''}if another job is still working on them, end this one")


def say_lost_task(index: int, why: str) -> None:
    """Prints that a shard begins anew, because its process or node was lost."""
    console.print(f"shard {index} was lost with its process or node ({why}), and begins anew")
