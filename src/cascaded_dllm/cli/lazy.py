"""Commands that are imported when they are run: PyTorch takes seconds, and help or preprocessing need none of it."""

import importlib
from functools import cached_property
from typing import Any, final

import typer.main
from typer.core import TyperCommand


@final
class LazyCommand(TyperCommand):
    """Name and purpose of a command, or of a group of commands, whose module is imported when more is asked.

    Args:
        name: as it is typed.
        module: where its application `app` is.
        purpose: what the list of commands says.
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
        """The context of the command itself, which is what runs in it."""
        return self.loaded.make_context(info_name, args, parent=parent, **extra)


def _unwrap(command: Any) -> None:
    """Makes one line of every paragraph of a command's help, and of its commands', for the terminal to break.

    Typer does so with the first only, and the others would break where a line of the source ends. Examples, which are
    indented, keep their lines.
    """
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(text if text.startswith(" ") else text.replace("\n", " ") for text in paragraphs)
    for child in getattr(command, "commands", {}).values():
        _unwrap(child)
