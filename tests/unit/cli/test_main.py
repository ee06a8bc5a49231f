"""Help: every command says what it does, shows how, and describes every option."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest
import typer.main
from click import Command, Group
from typer.testing import CliRunner

from cascaded_dllm import __version__
from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.cli.lazy import LazyCommand
from cascaded_dllm.cli.main import app


def commands(command: Command, path: tuple[str, ...] = ()):
    if isinstance(command, Group) or hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from commands(getattr(child, "loaded", child), (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(app)))


def help_of(*path: str) -> str:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return result.stdout


def test_the_package_is_the_command():
    """For where `cdllm` is not on the path."""
    command = [sys.executable, "-m", "cascaded_dllm", "--version"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert answer.stdout == f"cdllm {__version__}\n"


def test_all_commands_are_there():
    methods = {("preprocess", method) for method in SELECTION_METHODS}
    others = {
        ("preprocess", "inspect"),
        ("preprocess", "stages"),
        ("preprocess", "status"),
        ("quickstart",),
        ("train",),
        ("sample",),
        ("demo",),
        ("bundle",),
    }
    others |= {("evaluate", "likelihood"), ("evaluate", "samples"), ("evaluate", "gap")}
    others |= {("cascade", "from-flat"), ("judge", "train")}
    others |= {("study", name) for name in ("run", "list", "status", "collect", "report")}
    assert methods | others == set(COMMANDS)


@pytest.mark.parametrize(("module", "function"), [("bundle", "bundle"), ("study", "run")])
def test_help_without_docstrings(module, function, monkeypatch):
    """As under `python -OO`: what a command says of itself is read from its source."""
    there = importlib.import_module(f"cascaded_dllm.cli.{module}")
    before = LazyCommand(module, there.__name__, "").loaded
    monkeypatch.setattr(getattr(there, function), "__doc__", None)
    after = LazyCommand(module, there.__name__, "").loaded
    for loaded, said in zip(flat(before), flat(after), strict=True):
        assert loaded.help == said.help != ""

    def without_source(_):
        raise OSError("could not get source code")

    monkeypatch.setattr(inspect, "getsource", without_source)
    assert "" in [command.help for command in flat(LazyCommand(module, there.__name__, "").loaded)]


def flat(command):
    """A command and the commands in it."""
    return [command, *getattr(command, "commands", {}).values()]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_an_example(path):
    text = help_of(*path)
    assert "Examples:" in text
    examples = text.split("Examples:")[1]
    assert f"cdllm {' '.join(path)}" in examples
    # Typer puts one space in front of every line.
    assert set(re.findall(r"^( *)(?:cdllm|python) ", examples, re.MULTILINE)) == {" " * 3}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_described(path):
    assert [parameter.name for parameter in COMMANDS[path].params if not getattr(parameter, "help", "")] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_paragraphs_break_where_the_terminal_does(path):
    paragraphs = COMMANDS[path].help.split("\n\n")
    assert [text for text in paragraphs if "\n" in text and not text.startswith(" ")] == []


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("constituency", {"--tagger"}),
        ("keybert", {"--model", "--scope", "--window-words", "--precision", "--device", "--word-cache"}),
        ("tfidf", set()),
        ("random", {"--seed", "--per"}),
    ],
)
def test_a_method_shows_its_own_options(method, options):
    text = help_of("preprocess", method)
    of_methods = ["tagger", "model", "scope", "window-words", "precision", "device", "word-cache", "seed", "per"]
    assert {f"--{name}" for name in of_methods if f"--{name} " in text} == options
    assert "--dataset " in text


@pytest.mark.parametrize("arguments", [[], ["evaluate"]])
def test_no_command_shows_the_help(arguments):
    result = CliRunner().invoke(app, arguments)
    assert "Usage: " in result.output
    assert result.exit_code in (0, 2)


def test_purposes_are_those_of_the_commands():
    for name, command in typer.main.get_command(app).commands.items():
        purpose, _, _ = command.loaded.help.partition("\n")
        assert command.help == purpose, name


def test_help_does_not_wait_for_pytorch():
    code = "import sys; from cascaded_dllm.cli.main import app; app(['--help'], standalone_mode=False); "
    code += "import cascaded_dllm.cli.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_flags_of_another_kind_are_refused():
    result = CliRunner().invoke(app, ["sample", "--num-samples", "many"])
    assert result.exit_code == 2
    assert "--num-samples" in result.stderr
    assert "Traceback" not in result.stderr
