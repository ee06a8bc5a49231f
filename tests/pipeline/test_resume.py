"""`cdllm train` killed or stopped and started again ends with the bytes of a run that was never broken off."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cascaded_dllm.cli.main import app
from cascaded_dllm.train import checkpoint
from tests.pipeline import tiny
from tests.processes import cdllm
from tests.processes import run as run_process


# The process kills itself, so that it dies at the same place on every machine.
def signalled_in_step_5(
    number: signal.Signals, times: int, arguments: list[str], *, terminal: int | None = None
) -> None:
    """In a process: within step 5, at which no checkpoint is due, the optimizer has done its part, and nothing else."""
    step, calls = torch.optim.AdamW.step, []
    latest = Path(arguments[arguments.index("--out") + 1], "checkpoints", "latest")

    def signalling_step(self: Any, *arguments: Any) -> Any:
        result = step(self, *arguments)
        calls.append(1)
        if len(calls) == 5:
            # The checkpoint of step 3 is written beside the steps, which are faster here.
            while not latest.is_symlink():
                time.sleep(0.01)
            if terminal is not None:
                os.close(terminal)
            for _ in range(times):
                os.kill(os.getpid(), number)
        return result

    torch.optim.AdamW.step = signalling_step
    cdllm(*arguments)


def hung_up_in_step_5(arguments: list[str]) -> None:
    """In a process: its terminal is closed, of which it is told twice."""
    terminal, theirs = os.openpty()
    for number in (1, 2):
        os.dup2(theirs, number)
    os.close(theirs)
    signalled_in_step_5(signal.SIGHUP, 2, arguments, terminal=terminal)


def killed_while_writing_a_checkpoint(arguments: list[str]) -> None:
    def killing_save(state: Any, file: Any) -> None:
        file.write(b"half of the state")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = killing_save
    cdllm(*arguments)


def killed_before_latest(arguments: list[str]) -> None:
    def killing_link(link: Path, target: str) -> None:
        assert link.name == "latest"
        os.kill(os.getpid(), signal.SIGKILL)

    assert checkpoint.write_link
    checkpoint.write_link = killing_link
    cdllm(*arguments)


@pytest.fixture(scope="module")
def arguments(stories: Path, valid_stories: Path) -> list[str]:
    """Of stage 2 with dropout and accumulation: ten steps, a checkpoint at 3, 6, 9 and 10."""
    changes = ["model.dropout=0.1", "training.accum=2", "training.num_steps=10", "training.snapshot_every=3"]
    flags = ["--data", str(stories), "--valid", str(valid_stories), "--stage", "2"]
    return ["train", *flags, *tiny.OVERRIDES, *changes, "training.keep=2"]


@pytest.fixture(scope="module")
def unbroken(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    whole = CliRunner().invoke(app, [*arguments, "--out", str(run)])
    assert whole.exit_code == 0, whole.output
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def assert_same_end(run: Path, unbroken: Path) -> None:
    for name in ("model.safetensors", "ema.safetensors", "config.json", "tokenizer.json"):
        ends = [folder / "checkpoints" / "step_10" / name for folder in (run, unbroken)]
        assert ends[0].read_bytes() == ends[1].read_bytes(), name
    states = [torch.load(folder / "checkpoints" / "latest" / "trainer.pt") for folder in (run, unbroken)]
    flat = [list(flattened(state)) for state in states]
    assert [key for key, _ in flat[0]] == [key for key, _ in flat[1]]
    for (key, first), (_, second) in zip(*flat, strict=True):
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second, key
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (run, unbroken)]
    measured = dict.fromkeys(("seconds", "tokens_per_second", "peak_memory_bytes", "mfu"))
    metrics = [[{**json.loads(line), **measured} for line in part] for part in lines]
    assert metrics[0] == metrics[1]
    assert [line["step"] for line in metrics[0] if "lr" in line] == list(range(1, 11))
    assert names(run / "samples") == names(unbroken / "samples")
    for name in names(run / "samples"):
        assert (run / "samples" / name).read_bytes() == (unbroken / "samples" / name).read_bytes()


def flattened(value, key=""):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from flattened(inner, f"{key}.{name}")
    else:
        yield key, value


@pytest.mark.slow
def test_killed_three_times(arguments, unbroken, tmp_path):
    run = tmp_path / "run"
    arguments = [*arguments, "--out", str(run)]

    killed = run_process(signalled_in_step_5, signal.SIGKILL, 1, arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert names(run / "checkpoints") == ["latest", "step_3"]
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()][-1] == 4

    killed = run_process(killed_while_writing_a_checkpoint, arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "resumed at step 3" in killed.stdout
    assert names(run / "checkpoints") == ["latest", "step_3"]
    assert [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".incomplete-step_6@")]

    killed = run_process(killed_before_latest, arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "resumed at step 3" in killed.stdout
    assert names(run / "checkpoints") == ["latest", "step_3", "step_6"]
    assert (run / "checkpoints" / "latest").resolve().name == "step_3"

    finished = CliRunner().invoke(app, arguments)
    assert finished.exit_code == 0, finished.output
    assert "resumed at step 6" in finished.stdout
    assert names(run / "checkpoints") == ["latest", "step_10", "step_9"]
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert_same_end(run, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_stopped_in_order(arguments, unbroken, tmp_path, name, exit_code):
    """The step is finished and kept, the command says so, and given again it goes on from there."""
    run = tmp_path / "run"
    arguments = [*arguments, "--out", str(run)]
    stopped = run_process(signalled_in_step_5, signal.Signals[name], 1, arguments)
    assert stopped.returncode == exit_code, stopped.stderr
    lines = [
        "stage 2: stopping after this step; a second signal stops at once and loses the step",
        f"stage 2: stopped at step 5 of 10, which is kept in {run}/checkpoints/step_5; the same command goes on from",
    ]
    for found, expected in zip(stopped.stderr.splitlines(), lines, strict=True):
        assert found.startswith(expected)
    assert names(run / "checkpoints") == ["latest", "step_3", "step_5"]
    assert names(run / "samples") == ["step_3.json", "step_3.txt"]
    finished = CliRunner().invoke(app, arguments)
    assert finished.exit_code == 0, finished.output
    assert "resumed at step 5" in finished.stdout
    assert_same_end(run, unbroken)


@pytest.mark.slow
def test_the_terminal_is_closed(arguments, unbroken, tmp_path):
    """Although nothing can be printed any more, and SIGHUP comes twice, the step is kept."""
    run = tmp_path / "run"
    arguments = [*arguments, "--out", str(run)]
    assert run_process(hung_up_in_step_5, arguments).returncode == 75
    assert names(run / "checkpoints") == ["latest", "step_3", "step_5"]
    finished = CliRunner().invoke(app, arguments)
    assert finished.exit_code == 0, finished.output
    assert_same_end(run, unbroken)


@pytest.mark.slow
def test_stopped_twice(arguments, tmp_path):
    """At once, without a traceback; the last checkpoint stands."""
    arguments = [*arguments, "--out", str(tmp_path / "run")]
    stopped = run_process(signalled_in_step_5, signal.SIGINT, 2, arguments)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr == "interrupted\n"
    assert names(tmp_path / "run" / "checkpoints") == ["latest", "step_3"]
