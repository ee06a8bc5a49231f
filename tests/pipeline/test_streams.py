"""Standard streams that are full or closed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cascaded_dllm.cli.streams import told_streams
from cascaded_dllm.errors import OutputStreamError
from tests.pipeline import tiny
from tests.repo.source_tree import CHECKOUT

PROGRAM = "from cascaded_dllm.cli.main import app; app(prog_name='cdllm')"
FULL = (
    r"error: what is printed cannot be written to the standard output \(No space left on device\); lead it to a "
    r"terminal, or to a file that has room, and give the command again: the files that it has finished stay\n"
)


def program(*arguments: object, redirected: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`cdllm`, started by a shell that redirects its streams."""
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-c", PROGRAM, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), **environment}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=variables)


full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def assert_told(arguments, unbuffered):
    ended = program(*arguments, redirected=">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 2
    assert re.fullmatch(FULL, ended.stderr)


@full_device
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_output_is_one_line(unbuffered):
    assert_told(("study", "list"), unbuffered)


@full_device
@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_full_output_of_what_typer_prints(option, unbuffered):
    assert_told((option,), unbuffered)


@pytest.mark.slow
@full_device
def test_a_full_output_is_one_line_whatever_process_prints(stories, tmp_path):
    arguments = ["train", "--data", stories, "--out", tmp_path / "run", *tiny.OVERRIDES]
    for processes in (1, 2):
        ended = program(*arguments, f"ngpus={processes}", redirected=">/dev/full")
        assert ended.returncode == 2, ended.stderr
        assert re.fullmatch(FULL, ended.stderr)


@full_device
def test_a_full_error_stream_leaves_an_exit_code():
    ended = program("study", "status", "/nowhere", redirected="2>/dev/full")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


@pytest.mark.parametrize("closed", ["2>&-", "0<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path, closed):
    """No file gets their numbers, and with them what others print."""
    arguments = ["--dataset", "stories", "--num-documents", 9, "--train-tokenizer", 300, "--workers", 2]
    ended = program("preprocess", "random", *arguments, "--out", tmp_path / "data", redirected=closed)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert (tmp_path / "data" / "random" / "stories_train" / "manifest.json").exists()


def test_the_error_of_a_stream_comes_once(tmp_path, monkeypatch):
    """What is printed about it has a place; the stream of before is back after the block."""
    (tmp_path / "read_only").touch()
    with open(os.open(tmp_path / "read_only", os.O_RDONLY), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with told_streams():
            print("lost")
            with pytest.raises(OutputStreamError, match=r"to the standard output \(Bad file descriptor\); lead it"):
                sys.stdout.flush()
            print("as well", flush=True)
        assert sys.stdout is stream


def test_a_terminal_that_is_closed_is_no_error(monkeypatch):
    """What is printed to it is lost, since nobody is there to read it; work that ends in order goes on."""
    terminal, theirs = os.openpty()
    with open(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with told_streams():
            print("read", flush=True)
            os.close(terminal)
            print("lost", flush=True)
            print("as well", flush=True)


@pytest.mark.parametrize(
    ("errors", "printed"), [("strict", b"caf\\xe9 \\udce9\n"), ("surrogateescape", b"caf\\xe9 \xe9\n")]
)
def test_what_the_encoding_of_the_output_lacks_stops_nothing(tmp_path, monkeypatch, errors, printed):
    """Python writes the bytes of file names, but no letters, where the locale is C and UTF-8 is off."""
    with (tmp_path / "printed").open("w", encoding="ascii", errors=errors) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with told_streams():
            print("caf\u00e9 \udce9")
    assert (tmp_path / "printed").read_bytes() == printed
