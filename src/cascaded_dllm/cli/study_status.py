"""`cdllm study status`: how far a study is, wherever it runs."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import clock, console, counted, reported_errors
from cascaded_dllm.cli.options import Debug
from cascaded_dllm.cli.study_file import begun_study
from cascaded_dllm.study.place import DIVERGED, DONE, FAILED
from cascaded_dllm.study.status import (
    AT_WORK,
    BEGUN,
    HOPELESS,
    WAITING,
    ArmStatus,
    PartStatus,
    StudyStatus,
    study_status,
)


def show_status(
    out: Annotated[Path, typer.Argument(help="Folder of a study that was begun.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Show how far a study is, here or on a cluster: what is done and at work, and how long its trainings still take.

    Examples:

      cdllm study status runs/tiny-stories
      cdllm study status runs/prose --json
    """
    with reported_errors(debug):
        study, place = begun_study(out)
        now = study_status(study, place, compose_config)
        if as_json:
            typer.echo(json.dumps(now.as_json(), indent=2))
        else:
            _show(now)


def _show(now: StudyStatus) -> None:
    if now.parts is None:
        console.print("the data is not there yet; nothing else begins before")
        return
    numbers = {state: now.number(state) for state in (DONE, AT_WORK, BEGUN, WAITING, DIVERGED, FAILED, HOPELESS)}
    others = "".join(f", {number} {state}" for state, number in numbers.items() if state != DONE and number)
    console.print(f"{numbers[DONE]} of {counted(len(now.parts), 'part')} done{others}")
    if left := _training_left(now):
        console.print(left, soft_wrap=True)
    console.print(_table(now.arms))
    for part in now.parts:
        if part.reason is not None:
            console.print(f"{part.name}: {part.state}: {part.reason}", markup=False, soft_wrap=True)


def _training_left(now: StudyStatus) -> str | None:
    """How long all trainings still take; None where they are done."""
    trainings = [part for part in now.parts or () if part.step is not None and part.state != HOPELESS]
    if not trainings:
        return None
    seconds, num_at_work = now.training_seconds_left, sum(part.state == AT_WORK for part in trainings)
    steps = sum((part.num_steps or 0) - (part.step or 0) for part in trainings)
    told = f"{counted(steps, 'step')} of training left"
    if seconds is None:
        return f"{told}; how long they take is known once a training has told of its first steps"
    told += f", about {clock(seconds)} of one process"
    if num_at_work > 1:
        told += f" and {clock(seconds / num_at_work)} of the {num_at_work} that train now"
    return f"{told}; bounds and texts come on top"


def _table(arms: tuple[ArmStatus, ...]) -> Table:
    """A row for every arm and seed; a training that is not settled is at a step."""
    table = Table()
    for column in ("arm", "seed", "trainings", "bound", "texts"):
        table.add_column(column, justify="right" if column == "seed" else "left")
    for arm in arms:
        texts = ", ".join(dict.fromkeys(part.state for part in arm.texts))
        num_done = sum(part.state == DONE for part in arm.texts)
        shown = texts if num_done in (0, len(arm.texts)) else f"{num_done} of {len(arm.texts)} done"
        table.add_row(arm.arm, str(arm.seed), "\n".join(map(_training, arm.trainings)), arm.bound.state, shown)
    return table


def _training(part: PartStatus) -> str:
    if part.step is None:
        return f"{part.what}: {part.state}"
    left = "" if part.seconds_left is None else f", {clock(part.seconds_left)} left"
    return f"{part.what}: {part.state}, {part.step:,} of {part.num_steps:,}{left}"
