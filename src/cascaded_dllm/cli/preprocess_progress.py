"""How far the shards of a job are, on the terminal or in a log, and what became of those of an earlier one."""

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cascaded_dllm.cli.console import LogLine, clock, console, counted, progress_bar, working
from cascaded_dllm.data.preprocessed import shard_folder
from cascaded_dllm.data.shards import Shard
from cascaded_dllm.preprocess.executors import Tasks
from cascaded_dllm.preprocess.progress import Heartbeat, heartbeats

_ENDED_SAID = 3
"""Shards that are told one by one."""
_TELL_EVERY_SECONDS = 60.0
"""Where there is no terminal with a bar, and somebody reads the log."""


@contextmanager
def preparation_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A sign of life, then a bar for every pass through the corpus; without a terminal, a line where that takes long.

    Yields what is told of passes, see `OnPass`.
    """
    with ExitStack() as shown:
        if console.is_terminal:
            shown.enter_context(working("reading the corpus: tokenizer and settings"))
        shown_pass, move = "", None
        began, line = time.monotonic(), LogLine(_TELL_EVERY_SECONDS)

        def tell(what: str, done: int, total: int | None) -> None:
            nonlocal shown_pass, move, began, line
            if what != shown_pass:
                # A terminal has room for one thing that moves.
                shown.close()
                shown_pass, began, line = what, time.monotonic(), LogLine(_TELL_EVERY_SECONDS)
                _, move = shown.enter_context(progress_bar(what))
            assert move is not None
            move(done, total)
            if line.is_due():
                rate = done / max(time.monotonic() - began, 1e-9)
                console.print(f"{what}: {records_told(done, total, rate)}", soft_wrap=True)

        yield tell


@contextmanager
def shards_progress(tasks: Tasks, records: int | None) -> Iterator[Callable[[Collection[int], int], None]]:
    """A bar, or now and then a line where there is no terminal; yields what executors tell the state to.

    Args:
        tasks: whose shards are made.
        records: of the whole corpus, dropped ones counted, or a bound on it; None where it is unknown.
    """
    num_tasks = len(tasks.missing)
    total = None if records is None else sum(len(range(i, records, tasks.num_shards)) for i in tasks.missing)
    num_finished = in_finished = 0
    started, line = time.monotonic(), LogLine(_TELL_EVERY_SECONDS)
    with progress_bar("documents") as (bar, move):

        def tell(finished: Collection[int], in_progress: int) -> None:
            nonlocal num_finished, in_finished
            num_finished += len(finished)
            # Once for every shard: to open all that are there would take ever longer.
            in_finished += sum(Shard.open(shard_folder(tasks.folder, index)).counts.records for index in finished)
            so_far = in_finished + (0 if num_finished == num_tasks else in_progress)
            expected = _expected(total, num_finished, in_finished, num_tasks)
            rate = so_far / max(time.monotonic() - started, 1e-9)
            bar.update(bar.task_ids[0], status=_per_second(rate) if so_far else "")
            move(so_far, expected)
            if line.is_due():
                shards = f"{num_finished:,} of {counted(num_tasks, 'shard')}"
                console.print(f"{shards}, {records_told(so_far, expected, rate)}", soft_wrap=True)

        yield tell


def _expected(total: int | None, num_finished: int, in_finished: int, num_tasks: int) -> int | None:
    """The records of all shards, as far as that is known."""
    if num_finished == num_tasks:
        return in_finished
    if num_finished == 0:
        return total
    # Shards differ by a record; and a bound may be far above what there is.
    estimate = in_finished * num_tasks // num_finished
    return estimate if total is None else min(total, estimate)


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def records_told(done: int, total: int | None, rate: float) -> str:
    """The records that are done, with what can be said of the rest.

    Args:
        done: records.
        total: of them; None where it is unknown.
        rate: records a second.
    """
    if total is None:
        return f"{done:,} records so far, {_per_second(rate)}"
    left = f", about {clock(max(total - done, 0) / rate)} left" if rate > 0 else ""
    return f"{done:,} of about {total:,} records, {_per_second(rate)}{left}"


def say_shards(told: Mapping[int, Heartbeat], form: str, *, most: int) -> None:
    """Prints what tasks told last, one by one, and how many more there are.

    Args:
        told: by shard.
        form: of a line, behind the shard, with {records}, {time} and {age}.
        most: so many lines.
    """
    for index, heartbeat in itertools.islice(told.items(), most):
        records, time_spent = counted(heartbeat.records, "record"), clock(heartbeat.seconds)
        line = form.format(records=records, time=time_spent, age=clock(heartbeat.age))
        console.print(f"shard {index} {line}", soft_wrap=True)
    if len(told) > most:
        console.print(f"and {counted(len(told) - most, 'shard')} more")


def say_what_was_ended(tasks: Tasks, *, has_time_limit: bool) -> None:
    """Prints how far shards had come that are not there: a task that is too long for its time limit never ends well.

    Args:
        tasks: whose shards are missing.
        has_time_limit: whether they run in jobs of a cluster that may end them.
    """
    ended = heartbeats(tasks.folder, frozenset(tasks.missing))
    form = "had done {records} in {time} when it was ended (last heard of {age} ago), and begins anew"
    say_shards(ended, form, most=_ENDED_SAID)
    if ended:
        limit = (
            "if that was their time limit (--time), raise it, or start anew in another --out with more --shards than "
            f"{tasks.num_shards}; "
        )
        console.print(
            f"[yellow]note:[/] {limit if has_time_limit else ''}if another job is still at work on them, end this one",
            soft_wrap=True,
        )


def say_what_was_lost(index: int, why: str) -> None:
    """Prints that a shard is begun again, since its process or node was lost."""
    console.print(f"shard {index} was lost with its process or node ({why}), and begins anew")
