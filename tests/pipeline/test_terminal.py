"""The commands on a real terminal, where bars are drawn that no other test sees."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import tiny

pty = pytest.importorskip("pty")

# One process for all commands, since starting one takes seconds.
COMMANDS = """
import json, sys
from cascaded_dllm.cli.main import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""


def shown_on_a_terminal(*commands: list[object]) -> str:
    """What the commands print, without the control sequences; every one must end well."""
    terminal, theirs = pty.openpty()
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    process = subprocess.Popen(
        [sys.executable, "-c", COMMANDS, arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(theirs)
    printed = b"".join(iter(lambda: _read(terminal), b""))
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert process.wait(timeout=60) == 0, text
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how a terminal ends on Linux
        return b""


@pytest.mark.slow
def test_bars(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown = shown_on_a_terminal(
        ["train", "--data", stories, "--valid", valid_stories, "--out", run, *tiny.OVERRIDES],
        ["evaluate", "likelihood", "--stage", run, "--data", valid_stories, "--num-windows", 4, "--num-times", 1],
        ["sample", "--stage", run, "--num-samples", 3, "--output-dir", tmp_path / "out"],
    )
    assert re.search(r"stage 1 .* 2/2 loss \d+\.\d+ nats/token", shown)
    assert re.search(r"windows .* 4/4", shown)
    assert re.search(r"sampling .* 3/3", shown)
    assert "3 texts in" in shown
