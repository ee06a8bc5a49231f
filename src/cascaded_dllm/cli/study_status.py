"""`cdllm study status`: the progress of a study, wherever it runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import clock, console, counted, reported_errors, say
from cascaded_dllm.cli.options import Debug, tell
from cascaded_dllm.cli.study_file import open_study
from cascaded_dllm.file_names import DONE, FAILED
from cascaded_dllm.study.status import (
    AT_WORK,
    STALE,
    STATES,
    WAITING,
    ArmStatus,
    PartStatus,
    StudyStatus,
    study_status,
)

_DATA = {
    WAITING: "there is no data yet, and no process is making it; run the command that began the study again",
    AT_WORK: "the data is being made; nothing else begins before it is complete",
    STALE: (
        "the data was made with other settings, or with another version of a file of your own scorer; the next "
        "cdllm study run makes it anew"
    ),
}


def show_status(
    out: Annotated[Path, typer.Argument(help="Folder of a study that was begun.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Show the progress of a study, here or on a cluster: which parts are done, and how long training still takes.

    Examples:

      cdllm study status runs/tiny-stories
      cdllm study status runs/prose --json
    """
    with reported_errors(debug):
        study, folder = open_study(out)
        now = study_status(study, folder, compose_config)
        tell(now.as_json(), lambda: _show(now), as_json=as_json)


def _show(now: StudyStatus) -> None:
    if now.parts is None:
        console.print(_DATA[now.data], soft_wrap=True)
        return
    numbers = {state: now.count(state) for state in STATES}
    others = "".join(f", {number} {state}" for state, number in numbers.items() if state != DONE and number)
    console.print(f"{numbers[DONE]} of {counted(len(now.parts), 'part')} done{others}")
    if now.trainings_left:
        console.print(_training_left(now), soft_wrap=True)
    console.print(_table(now.arms))
    for part in now.parts:
        if part.reason is not None:
            again = "; the same command tries it again" if part.state == FAILED else ""
            say(f"{part.name}: {part.state}: {part.reason}{again}")


def _training_left(now: StudyStatus) -> str:
    """A sentence on the steps of training that are left, and how long they take."""
    left = now.trainings_left
    seconds, num_at_work = now.training_seconds_left(), sum(part.state == AT_WORK for part in left)
    steps = sum((part.num_steps or 0) - (part.step or 0) for part in left)
    told = f"{counted(steps, 'step')} of training left"
    if seconds is None:
        return f"{told}; how long they take is known after the first steps of a training"
    told += f", about {clock(seconds)} on one process"
    if num_at_work > 1:
        told += f" and {clock(now.training_seconds_left(num_at_work) or 0.0)} on the {num_at_work} that train now"
    return f"{told}; bounds and texts come on top"


def _table(arms: tuple[ArmStatus, ...]) -> Table:
    """A row for every arm and seed."""
    table = Table()
    for column in ("arm", "seed", "trainings", "bound", "texts"):
        table.add_column(column, justify="right" if column == "seed" else "left")
    for arm in arms:
        trainings = "\n".join(map(_training, arm.trainings))
        table.add_row(arm.arm, str(arm.seed), trainings, arm.bound.state, _together(arm.texts))
    return table


def _training(part: PartStatus) -> str:
    """The state of a training and, if it is not done, its step and the remaining time."""
    if not part.is_training_left:
        return f"{part.what}: {part.state}"
    left = "" if part.seconds_left is None else f", {clock(part.seconds_left)} left"
    return f"{part.what}: {part.state}, {part.step:,} of {part.num_steps:,}{left}"


def _together(parts: tuple[PartStatus, ...]) -> str:
    """The states of several parts: "done" if all agree, otherwise "1 done, 1 at work"."""
    states = [part.state for part in parts]
    numbers = {state: states.count(state) for state in dict.fromkeys(states)}
    return next(iter(numbers), "") if len(numbers) < 2 else ", ".join(f"{n} {state}" for state, n in numbers.items())
