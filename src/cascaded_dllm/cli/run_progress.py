"""Runs a training with progress on the terminal, and ends it in order when it is interrupted."""

import math
from typing import final

import typer
from rich.progress import Progress

from cascaded_dllm.cli.console import LogLine, console, counted, is_wide, progress_bar, say_passed_over, warn
from cascaded_dllm.cli.interrupt import StopRequest, reported_stop
from cascaded_dllm.train.run import Run
from cascaded_dllm.train.run_events import Evaluation, Event, NotDeleted, Resumed, Snapshot, Stopped
from cascaded_dllm.train.trainer import StepResult


def run_with_progress(run: Run, description: str, *, is_last: bool = True) -> None:
    """Runs a training to its end behind a progress bar.

    Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end it after the current step, which is kept in a checkpoint. They end it before
    the first step if it still waits to see whether a process on another machine, which owns the folder, is alive.

    Args:
        run: the training.
        description: what the terminal calls it.
        is_last: whether the command ends with it. After any other run, a signal that came too late to stop this one
            stops the command.

    Raises:
        typer.Exit: it was interrupted.
    """
    stopped = None
    with progress_bar(description) as (progress, _), reported_stop() as request:
        display = _Display(progress, description, run.trainer.loop.num_steps, request)
        for event in run.events(should_stop=request.is_made, on_measured=display.show_measuring):
            display.show(event)
            stopped = event if isinstance(event, Stopped) else stopped
        # Only one of several processes may have got the signal, and all must do without the next run.
        is_done = is_last or not run.trainer.group.any(request.is_made())
    if stopped is not None:
        warn(f"{description}: {_end(stopped, run.trainer.loop.num_steps)}")
        raise typer.Exit(request.exit_code)
    if not is_done:
        warn(f"{description}: complete; stopped before what comes next, with which the same command goes on")
        raise typer.Exit(request.exit_code)


def _end(stopped: Stopped, num_steps: int) -> str:
    """Where a stopped run stands, and what the same command does next."""
    if stopped.checkpoint is None:
        return "stopped before its first step, and there is nothing to keep; the same command begins again"
    first = f", first with the {' and the '.join(stopped.left_out)} of that step" if stopped.left_out else ""
    return (
        f"stopped at step {stopped.step} of {num_steps}, which is kept in {stopped.checkpoint}; the same command goes "
        f"on from there{first}"
    )


@final
class _Display:
    """Shows a run: a bar for the steps, a bar while the bound is measured, and lines for results that stay visible."""

    def __init__(self, progress: Progress, description: str, num_steps: int, request: StopRequest) -> None:
        self.progress, self.description, self.num_steps, self.request = progress, description, num_steps, request
        self.steps = progress.task_ids[0]
        progress.update(self.steps, total=num_steps)
        self.bound = progress.add_task("measuring the bound", total=None, status="", visible=False)
        self.rate = self.loss = self.seconds = 0.0
        self.tokens = 0
        self.line = LogLine()

    def show(self, event: Event) -> None:
        """Shows one event of the run."""
        self._answer_request()
        match event:
            case Resumed():
                say_passed_over(event.faults)
                if event.step < self.num_steps:
                    console.print(f"{self.description}: resumed at step {event.step}")
                else:
                    console.print(f"{self.description}: all {self.num_steps} steps are done already")
                self.progress.update(self.steps, completed=event.step)
            case StepResult():
                self._show_step(event)
            case Evaluation():
                self.progress.update(self.bound, visible=False)
                error = math.nan if event.standard_error is None else event.standard_error
                console.print(
                    f"{self.description}: step {event.step}, bound {event.bound_nats_per_token:.4f} "
                    f"+- {error:.4f} nats/token on {counted(event.num_windows, 'window')} "
                    f"of {event.num_windows_in_set:,}"
                )
            case NotDeleted():
                warn(
                    f"{self.description}: {event.fault}; this is tried again with every checkpoint. Check that nobody "
                    "reads it, and that you may write to its folder"
                )
            case Snapshot() | Stopped():
                pass

    def show_measuring(self, done: int, total: int) -> None:
        """Shows the progress of measuring a bound."""
        self._answer_request()
        self.progress.update(self.bound, completed=done, total=total, visible=True)

    def _show_step(self, event: StepResult) -> None:
        self.tokens, self.seconds = self.tokens + event.tokens, self.seconds + event.seconds
        # Losses stay on the device for some steps; when one is read, the rate of all steps since the last is shown too.
        if (loss := event.loss_nats_per_token) is not None:
            now = self.tokens / self.seconds
            self.tokens, self.seconds = 0, 0.0
            self.rate = now if self.rate == 0 else 0.95 * self.rate + 0.05 * now
            self.loss = loss if self.loss == 0 else 0.95 * self.loss + 0.05 * loss
        short = f"loss {self.loss:.3f} nats/token"
        status = f"{short}  {self.rate:,.0f} tokens/s"
        self.progress.update(self.steps, completed=event.step, status=status if is_wide() else short)
        if self.line.is_due():
            console.print(f"{self.description}: step {event.step} of {self.num_steps}, {status}")

    def _answer_request(self) -> None:
        self.request.is_made_and_answered(
            f"{self.description}: stopping after this step; a second signal stops at once and loses the step"
        )
