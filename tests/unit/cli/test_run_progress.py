"""What a run shows: lines for what stays, a second bar while a bound is measured, an orderly end."""

import signal
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import typer

from cascaded_dllm.cli import run_progress
from cascaded_dllm.cli.console import progress_bar
from cascaded_dllm.cli.interrupt import StopRequest
from cascaded_dllm.cli.run_progress import _Display, _end, run_with_progress
from cascaded_dllm.train.run import Run
from cascaded_dllm.train.run_events import Evaluation, NotDeleted, Resumed, Stopped
from cascaded_dllm.train.trainer import StepResult


@pytest.fixture
def display(monkeypatch):
    monkeypatch.setattr(run_progress, "is_wide", lambda: True)
    with progress_bar("stage 1") as (progress, _):
        yield _Display(progress, "stage 1", 10, StopRequest())


def step(number, loss=2.0):
    return StepResult(number, loss, grad_norm=1.0, lr=0.1, tokens=100, seconds=0.5)


def test_steps_move_the_bar(display):
    for number in (1, 2):
        display.show(step(number))
    steps = display.progress.tasks[0]
    assert (steps.completed, steps.total) == (2, 10)
    assert steps.fields["status"] == "loss 2.000 nats/token  200 tokens/s"


def test_a_narrow_terminal_shows_no_rate(display, monkeypatch):
    monkeypatch.setattr(run_progress, "is_wide", lambda: False)
    display.show(step(1))
    assert display.progress.tasks[0].fields["status"] == "loss 2.000 nats/token"


def test_steps_whose_numbers_are_on_the_device(display):
    """The rate is that of all steps since the last reading: the one that is read waits for the others."""
    display.show(StepResult(1, None, None, lr=0.1, tokens=100, seconds=0.1))
    assert display.progress.tasks[0].fields["status"] == "loss 0.000 nats/token  0 tokens/s"
    display.show(StepResult(2, 2.0, 1.0, lr=0.1, tokens=100, seconds=0.9))
    assert display.progress.tasks[0].completed == 2
    assert display.progress.tasks[0].fields["status"] == "loss 2.000 nats/token  200 tokens/s"


def test_measuring_a_bound_is_a_bar_of_its_own(display, capsys):
    bound = display.progress.tasks[1]
    assert not bound.visible
    display.show_measuring(3, 8)
    assert (bound.visible, bound.completed, bound.total) == (True, 3, 8)
    display.show(Evaluation(4, 1.25, None, 0.01, 1, 9, 0))
    assert not bound.visible
    assert capsys.readouterr().out == "stage 1: step 4, bound 1.2500 +- nan nats/token on 1 window of 9\n"


def test_where_a_run_goes_on(display, capsys):
    display.show(Resumed(4, ["step_6: cut off"]))
    captured = capsys.readouterr()
    assert captured.out == "stage 1: resumed at step 4\n"
    assert captured.err == "passed over a damaged checkpoint: step_6: cut off\n"
    assert display.progress.tasks[0].completed == 4


def test_an_old_checkpoint_that_cannot_be_deleted(display, capsys):
    display.show(NotDeleted(4, "c/step_1 cannot be deleted (Permission denied)"))
    assert capsys.readouterr().err == (
        "stage 1: c/step_1 cannot be deleted (Permission denied); this is tried again with every checkpoint. Check "
        "that nobody reads it, and that you may write to its folder\n"
    )


def test_a_line_now_and_then_where_there_is_no_terminal(display, capsys):
    display.show(step(1))
    assert capsys.readouterr().out == ""
    display.line.seconds = 0.0
    display.show(step(2))
    assert capsys.readouterr().out == "stage 1: step 2 of 10, loss 2.000 nats/token  200 tokens/s\n"


def test_a_request_to_stop_is_answered_once(display, capsys):
    display.request.signal_number = signal.SIGINT
    display.show_measuring(1, 2)
    display.show(step(5))
    assert capsys.readouterr().err == (
        "stage 1: stopping after this step; a second signal stops at once and loses the step\n"
    )


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            Stopped(4, Path("run/step_4"), ()),
            "stopped at step 4 of 10, which is kept in run/step_4; the same command goes on from there",
        ),
        (
            Stopped(10, Path("run/step_10"), ("bound", "samples")),
            "stopped at step 10 of 10, which is kept in run/step_10; the same command goes on from there, first with "
            "the bound and the samples of that step",
        ),
        (
            Stopped(0, None, ("bound",)),
            "stopped before its first step, and there is nothing to keep; the same command begins again",
        ),
    ],
)
def test_where_a_stopped_run_stands(event, message):
    assert _end(event, 10) == message


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("is_asked", [True, False])
def test_a_request_that_only_another_process_got_as_the_run_ended(capsys, is_last, is_asked):
    """It stops the command of all processes if that has more to do."""
    group = SimpleNamespace(any=lambda is_made: is_made or is_asked)
    trainer = SimpleNamespace(loop=SimpleNamespace(num_steps=10), group=group)
    run = mock.Mock(spec=Run, trainer=trainer, events=lambda **_: iter([step(10)]))
    if is_last or not is_asked:
        run_with_progress(run, "stage 1", is_last=is_last)
        assert capsys.readouterr().err == ""
        return
    with pytest.raises(typer.Exit) as ended:
        run_with_progress(run, "stage 1", is_last=is_last)
    assert ended.value.exit_code == 75
    assert capsys.readouterr().err == (
        "stage 1: complete; stopped before what comes next, with which the same command goes on\n"
    )
