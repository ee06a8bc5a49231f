"""Commands that are imported only when they are needed: PyTorch takes seconds, and help and preprocessing need none."""

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable
from functools import cached_property
from typing import Any, final

import typer.main
from typer.core import TyperCommand


@final
class LazyCommand(TyperCommand):
    """A command, or a group of commands, of which only name and purpose are known until its module is needed.

    Args:
        name: as the user types it.
        module: module with the application `app` of the command.
        purpose: the line in the list of commands.
    """

    def __init__(self, name: str, module: str, purpose: str) -> None:
        super().__init__(name, help=purpose)
        self._module = module

    @cached_property
    def loaded(self) -> Any:
        """The command itself."""
        command = typer.main.get_command(importlib.import_module(self._module).app)
        _unwrap(command)
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the loaded command, so that the loaded command runs."""
        return self.loaded.make_context(info_name, args, parent=parent, **extra)


def _unwrap(command: Any) -> None:
    """Joins the lines of each help paragraph of a command and its subcommands, so that the terminal wraps them.

    Typer joins only the first paragraph. Examples are indented and keep their lines.
    """
    text = command.help or (_description(command.callback) if command.callback else "")
    first, *others = text.split("\n\n")
    # Typer takes the first line of what follows the first paragraph for the title of a docstring and, if all other
    # lines are indented, their indentation away. An empty paragraph, which is not shown, prevents that.
    paragraphs = [first, "", *others] if others else [first]
    command.help = "\n\n".join(part if part.startswith(" ") else part.replace("\n", " ") for part in paragraphs)
    for child in getattr(command, "commands", {}).values():
        _unwrap(child)


def _description(function: Callable[..., Any]) -> str:
    """The docstring in the source of a function, for Python without docstrings (-OO); "" if there is no source."""
    try:
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except OSError:
        return ""
    return (isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition)) or ""
