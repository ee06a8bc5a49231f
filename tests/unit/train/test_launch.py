"""Why launched processes have failed, said as one error; tests/pipeline/test_train_processes.py shows them at work."""

import json
import logging
import os
import pickle
import signal

import pytest

from cascaded_dllm.errors import ConfigError, StoppedError, WorkerDiedError
from cascaded_dllm.processes import usable_cores
from cascaded_dllm.train import launch as launch_module
from cascaded_dllm.train.launch import _reason, launch
from tests.processes import run


def fail(value):
    """In a launched process: defined here, where little has to be imported."""
    if value is None:
        return os.environ["OMP_NUM_THREADS"]
    raise ConfigError(f"stage is {value}")


@pytest.mark.slow
def test_what_a_process_raises(caplog):
    """An error as it was raised, and nothing of the launcher's own talk."""
    caplog.set_level(logging.INFO)
    with pytest.raises(ConfigError, match=r"^stage is 9$"):
        launch(fail, (9,), number=1)
    assert caplog.text == ""


@pytest.mark.slow
def test_what_a_process_raises_that_is_gone_before_it_is_seen(monkeypatch):
    started = launch_module._started

    def all_gone(others, number, launcher):
        launcher.join()
        return started(others, number, launcher)

    monkeypatch.setattr(launch_module, "_started", all_gone)
    with pytest.raises(ConfigError, match=r"^stage is 9$"):
        launch(fail, (9,), number=1)


def launch_inside() -> None:
    """In a process that was started by multiprocessing itself, and has a name of its own: what two more return."""
    print(launch(fail, (None,), number=2), os.environ.get("OMP_NUM_THREADS"))


@pytest.mark.slow
def test_what_processes_return_that_share_the_cores():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = run(launch_inside, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{[str(max(1, usable_cores() // 2))] * 2} None\n"


def told_by(number):
    """In a process: whoever started this one gets the same signal, and passes on the wish to stop."""
    os.kill(os.getpid(), number)


class ToldWhileItBegins:
    """An argument that is read before a process knows what to do, and sends it a signal at this moment."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return told_by, (self.number,)


def launch_while_the_terminal_tells(number) -> None:
    """In a process: the signal reaches what it starts, and itself."""
    signal.signal(number, lambda *_: print("told"))
    print(launch(str, (ToldWhileItBegins(number),), number=1))
    os.kill(os.getpid(), number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_does_not_end_processes_even_while_they_begin(number):
    """With Ctrl-C, or by being closed."""
    done = run(launch_while_the_terminal_tells, number)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['None']\ntold\n", "")


LOST = WorkerDiedError("process 0 of 3 has lost the others")


@pytest.fixture
def reason(tmp_path):
    """The error of processes with these exit codes, that ended in this order, some of them with an error."""

    def find(codes, ended, raised=(), tracebacks=(), *, is_told=False):
        for rank, error in dict(raised).items():
            (tmp_path / f"raised-{rank}").write_bytes(pickle.dumps(error))
        for rank in {*dict(raised), *dict(tracebacks)}:
            folder = tmp_path / "run_x" / "attempt_0" / str(rank)
            folder.mkdir(parents=True)
            text = dict(tracebacks).get(rank, "Traceback of one of ours")
            content = {"message": {"message": "...", "extraInfo": {"py_callstack": text}}}
            (folder / "error.json").write_text(json.dumps(content))
        return _reason(codes, ended, tmp_path, is_told=is_told)

    return find


def test_killed_process_goes_before_those_that_have_lost_it(reason):
    error = reason([1, -signal.SIGKILL, -signal.SIGTERM], [[0, 1], [2]], {0: LOST})
    with pytest.raises(WorkerDiedError, match=r"^process 1 of 3 was ended by SIGKILL, .*; give the same command again"):
        raise error


def test_process_that_the_launcher_ended_is_not_the_cause(reason):
    """A process that hung while another one failed is killed in the end."""
    error = reason([2, -signal.SIGKILL, 1], [[0], [2], [1]], {0: ConfigError("stage is 9"), 2: LOST})
    with pytest.raises(ConfigError, match=r"^stage is 9$"):
        raise error


def test_error_of_ours_goes_before_the_loss_of_others(reason):
    with pytest.raises(ConfigError, match=r"^stage is 9$"):
        raise reason([1, 1, 1], [[0, 1, 2]], {0: LOST, 1: ConfigError("stage is 9"), 2: LOST})


def test_unforeseen_error_comes_with_its_traceback(reason):
    error = reason([1, 1, 0], [[0, 1]], {0: LOST}, {1: "Traceback ...\nIndexError: 7"})
    with pytest.raises(RuntimeError, match=r"process 1 of 3 has failed:\nTraceback \.\.\.\nIndexError: 7"):
        raise error


def test_nothing_but_losses(reason):
    with pytest.raises(WorkerDiedError, match=r"^process 0 of 3 has lost the others$"):
        raise reason([1, 1, 1], [[0, 1, 2]], {0: LOST, 1: LOST, 2: LOST})


STOPPED = r"^told to stop, the 2 processes ended before they could save a step; the same command goes on from the last"


@pytest.mark.parametrize(
    ("codes", "raised", "tracebacks"),
    [
        ([-signal.SIGUSR1, -signal.SIGUSR1], {}, {}),
        # By somebody who has told all of them.
        ([-signal.SIGTERM, -signal.SIGUSR1], {}, {}),
        # The first one had heard of the wish, and lost the second.
        ([1, -signal.SIGTERM], {0: LOST}, {}),
        ([1, -signal.SIGTERM], {}, {0: "Traceback ...\nRuntimeError: connection closed"}),
        # Ctrl-C on a terminal also ends the processes that build stages for one of ours.
        ([1, 1], {0: WorkerDiedError("a process that builds stages was killed"), 1: LOST}, {}),
    ],
)
def test_told_to_stop_before_the_first_step(reason, codes, raised, tracebacks):
    with pytest.raises(StoppedError, match=STOPPED):
        raise reason(codes, [[0, 1]], raised, tracebacks, is_told=True)


def test_other_ends_of_processes_that_were_told_to_stop(reason):
    with pytest.raises(WorkerDiedError, match=r"^process 1 of 2 was ended by SIGKILL"):
        raise reason([-signal.SIGTERM, -signal.SIGKILL], [[0, 1]], is_told=True)
    with pytest.raises(ConfigError, match=r"^stage is 9$"):
        raise reason([1, 0], [[0, 1]], {0: ConfigError("stage is 9")}, is_told=True)
    with pytest.raises(WorkerDiedError, match=r"^process 0 of 2 was ended by SIGTERM"):
        raise reason([-signal.SIGTERM, 1], [[0], [1]])


def test_process_that_said_nothing(reason):
    with pytest.raises(
        WorkerDiedError, match=r"^process 1 of 3 ended with exit code 9 and said nothing; give the same"
    ):
        raise reason([0, 9, 0], [[0], [1]])


def test_killed_before_it_was_looked_at(reason):
    with pytest.raises(WorkerDiedError, match=r"^process 0 of 1 ended with exit code -9 and said nothing; give the"):
        raise reason([-9], [])
