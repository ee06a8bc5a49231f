"""`cdllm` as a user calls it, in this process: commands that must succeed, and commands that must fail properly."""

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cascaded_dllm.cli.main import app


def success(*arguments: object) -> Result:
    """The result of a command that must end well and say nothing on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    assert result.stderr == "", result.stderr
    return result


def failure(*arguments: object) -> str:
    """The message of a command that must end with exit code 2 and one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, f"{result.output}{result.exception!r}"
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    return result.stderr.removeprefix("error: ").rstrip("\n")


def files(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
