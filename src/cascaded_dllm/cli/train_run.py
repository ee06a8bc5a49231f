"""Trains with several processes: starts them, or joins those that torchrun or srun has started."""

import os

import torch
import typer

from cascaded_dllm.assemble.devices import process_device
from cascaded_dllm.assemble.run import assemble_run, require_launchable, require_sound
from cascaded_dllm.cli.building import BUILDING, shown_building
from cascaded_dllm.cli.console import console, counted, error_console, say, say_passed_over, warn
from cascaded_dllm.cli.interrupt import reported_stop
from cascaded_dllm.cli.run_progress import run_with_progress
from cascaded_dllm.cli.streams import told_streams
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.train.group import Group, open_group
from cascaded_dllm.train.launch import launch
from cascaded_dllm.train.run import Run
from cascaded_dllm.train.world import joined_world


def train_run(config: TrainConfig, *, is_last: bool = True) -> None:
    """Trains as one of the processes of torchrun or srun; otherwise with `ngpus` new processes, or in this one.

    Args:
        config: settings of the run.
        is_last: whether the command ends with it, see `run_with_progress`.

    Raises:
        ConfigError: `ngpus` contradicts the existing processes or devices, or a setting is out of range.
        WorkerDiedError: a process was lost; the others have been ended.
        typer.Exit: the run was interrupted.
    """
    world = joined_world(os.environ, ngpus=config.ngpus)
    if world is None and config.ngpus is not None and config.ngpus > 1:
        require_launchable(config, config.ngpus)
        _launch(config, config.ngpus, is_last)
        return
    device = process_device(config.device, world)
    with open_group(world, device) as group:
        # Only the first process prints: an error of one process is raised in all.
        console.quiet = error_console.quiet = not group.is_first
        _train(config, group, device, is_last)


def _launch(config: TrainConfig, number: int, is_last: bool) -> None:
    """Trains with `number` new processes.

    Raises:
        typer.Exit: the run was interrupted.
    """
    with reported_stop() as request:
        codes = launch(_worker, (config, is_last), number=number, should_stop=request.is_made)
    if codes[0] != 0:
        raise typer.Exit(request.exit_code if request.is_made() else codes[0])
    if request.is_made() and not is_last:
        # It came after the last moment at which the processes could be told.
        warn("the run is complete; stopped before what comes next, with which the same command goes on")
        raise typer.Exit(request.exit_code)


def _worker(config: TrainConfig, is_last: bool) -> int:
    """Trains as one process of a launched run; returns its exit code."""
    try:
        with told_streams():
            train_run(config, is_last=is_last)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def _train(config: TrainConfig, group: Group, device: torch.device, is_last: bool) -> None:
    """Trains as one process of `group`."""
    # Mistakes in the settings are reported before the spinner says that something is built.
    require_sound(config, group.size)
    with shown_building(BUILDING) as building:
        run = assemble_run(config, group, device, building=building)
    warn_of_long_warmup(config)
    name = "flat" if config.baseline else f"stage {config.stage}"
    size = sum(parameter.numel() for parameter in run.trainer.model.parameters())
    layout = run.trainer.execution_layout()
    console.print(
        f"{name} of {list(config.stage_lengths)}: {config.model.name}, {size:,} parameters, "
        f"{_windows(len(run.trainer.dataset), run.trainer.dataset.parts[0].num_dropped)}",
        soft_wrap=True,
    )
    if run.valid.num_windows > 0:
        of_set = _windows(run.valid.num_windows, run.valid.num_dropped)
        console.print(f"validation data: {of_set}", soft_wrap=True)
    processes = "" if group.size == 1 else f"{group.size} processes ({layout['strategy']}), "
    console.print(f"{processes}{layout['device']}, {layout['execution']}")
    training = config.training
    console.print(f"{counted(training.num_steps, 'step')} of {counted(training.batch_size, 'window')}")
    if run.measure is None:
        said = "no bound is measured, as there is no validation data; --valid (data.valid) names it"
        console.print(f"{name}: {said}", soft_wrap=True)
    _say_where_it_starts(run, name)
    run_with_progress(run, name, is_last=is_last)
    say(f"run folder: {run.folder}")


def _windows(number: int, num_dropped: int) -> str:
    """The number of windows, and how many were dropped."""
    what = counted(number, "window")
    if num_dropped == 0:
        return what
    return f"{what} ({num_dropped:,} of {number + num_dropped:,} dropped: too few different tokens)"


def _say_where_it_starts(run: Run, name: str) -> None:
    """Prints which weights of another model a new run starts from, and which newer checkpoints were damaged."""
    start = run.provenance.get("start")
    if start is None:
        return
    say_passed_over(start["passed_over"])
    say(f"{name}: starts from {start['folder']} ({start['weights']} weights)")


def warn_of_long_warmup(config: TrainConfig, run: str = "") -> None:
    """Prints a warning if the learning rate would not reach its peak before the run ends.

    Args:
        config: settings of the run.
        run: which one it is, with a colon and a blank; empty where there is no other.
    """
    steps, warmup = config.training.num_steps, config.optim.warmup
    if warmup >= steps:
        error_console.print(
            f"warning: {run}optim.warmup is {warmup} and training.num_steps {steps}: the learning rate only rises, to "
            f"{steps / warmup:.0%} of optim.lr; a tenth of the steps is a usual warm-up, optim.warmup={steps // 10}"
        )
