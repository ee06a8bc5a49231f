"""Whoever watches whether an owner of its folder, on another machine, gives a sign of life can be stopped meanwhile."""

import json
import os
import signal
from pathlib import Path

import pytest

from cascaded_dllm import lock_owner
from cascaded_dllm.errors import EXIT_AGAIN
from cascaded_dllm.run_lock import LOCK_FILE
from tests.pipeline import tiny
from tests.processes import cdllm
from tests.processes import run as run_process

JUDGE = ("--width", 16, "--blocks", 1, "--heads", 2, "--length", 16, "--batch-size", 4, "--device", "cpu", "--steps", 2)


def signalled_while_watching(number: signal.Signals, arguments: list[str]) -> None:
    """In a process: a signal at every look at the lock; the second one would end it at once."""
    look = lock_owner._look

    def signalling_look(path: Path) -> tuple[float, float] | None:
        os.kill(os.getpid(), number)
        return look(path)

    lock_owner._look = signalling_look
    cdllm(*arguments)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_AGAIN), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("command", ["train", pytest.param("judge", marks=pytest.mark.slow)])
def test_training_is_stopped(stories: Path, tmp_path: Path, command: str, number: signal.Signals, code: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK_FILE).write_text(json.dumps({"host": "another-machine", "pid": 1, "started": "7", "token": "ab"}))
    data = ["--data", stories, "--out", out]
    arguments = (
        ["train", *data, "--stage", 1, *tiny.OVERRIDES] if command == "train" else ["judge", "train", *data, *JUDGE]
    )
    ended = run_process(signalled_while_watching, number, [str(argument) for argument in arguments])
    assert ended.returncode == code, ended
    assert f"told to stop while waiting to see whether the owner of {out}, a process" in ended.stderr
    assert [path.name for path in out.iterdir()] == [LOCK_FILE]
