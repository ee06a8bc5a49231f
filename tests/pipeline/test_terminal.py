"""The commands on a real terminal, where bars are drawn that no other test sees."""

import os
import re
import select
from pathlib import Path

import pytest

from cascaded_dllm.cli.console import console
from cascaded_dllm.cli.main import app
from tests.pipeline import tiny
from tests.processes import started

pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")


def commands(words: list[list[str]]) -> None:
    """In a process: one command after the other."""
    # Set when the module was imported, which was before there was a terminal.
    console.is_interactive = console.is_terminal
    for arguments in words:
        app(arguments, standalone_mode=False)


def shown_on_a_terminal(*words: list[object]) -> str:
    """What the commands print in 80 columns, without the control sequences; every one must end well."""
    terminal, theirs = pty.openpty()
    arguments = [[str(argument) for argument in command] for command in words]
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    with started(commands, arguments, terminal=Path(os.ttyname(theirs)), environment=environment) as process:
        printed = bytearray()
        # Its end is not seen on a terminal that this process holds open itself.
        while process.poll() is None or select.select([terminal], [], [], 0)[0]:
            if select.select([terminal], [], [], 0.05)[0]:
                printed += os.read(terminal, 1 << 16)
        code = process.wait().returncode
    os.close(theirs)
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert code == 0, text
    return text


@pytest.mark.slow
def test_bars(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shown = shown_on_a_terminal(
        ["train", "--data", stories, "--valid", valid_stories, "--out", run, *tiny.OVERRIDES],
        ["evaluate", "likelihood", "--stage", run, "--data", valid_stories, "--num-windows", 4, "--num-times", 1],
        ["sample", "--stage", run, "--num-samples", 3, "--output-dir", tmp_path / "out"],
    )
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert re.search(r"stage 1 .* 2/2 loss \d+\.\d+ nats/token", shown)
    assert re.search(r"windows .* 4/4", shown)
    assert re.search(r"texts of all stages .* 3/3", shown)
    assert "3 texts in" in shown


@pytest.mark.slow
def test_texts_are_watched(runs: Path, tmp_path: Path) -> None:
    """Every stage is seen under way, MASK as a dot, and what was watched is what is kept."""
    named = ["--stage", runs / "stage1", "--stage", runs / "stage2"]
    shown = shown_on_a_terminal(["sample", *named, "--num-samples", 2, "--watch", "--output-dir", tmp_path])
    for stage, length in ((1, 4), (2, 8)):
        assert f"texts from 0 of 2, stage {stage}: step 0 of {length}" in shown
        assert re.search(rf"  {stage}  .* \u00b7", shown)
    stays = shown.rindex("  1  ")
    assert shown.rindex("texts from") < stays < shown.rindex("2 texts in"), "what is done stays"
    assert "texts of all stages" not in shown, "a bar beside the texts"
