"""The application `cdllm`: one module a command, joined here."""

from typing import Annotated, Any, final

import typer
from typer.core import TyperGroup

from cascaded_dllm import __version__
from cascaded_dllm.cli.lazy import LazyCommand

_COMMANDS = {
    "quickstart": "Train, measure and sample a three-stage cascade on a corpus that is present on every machine.",
    "preprocess": "Give every token of a corpus its importance, and look at what is chosen.",
    "train": "Train one stage of a cascade, or a flat model; `python train.py` is the same.",
    "cascade": "Build a cascade around a flat model.",
    "study": "Compare ways to train at equal cost, from one file to one table.",
    "sample": "Sample texts, stage after stage.",
    "demo": "Write texts on a page in the browser, and edit every stage on the way.",
    "evaluate": "Measure models, and texts beside real ones.",
    "judge": "Make a language model that judges texts.",
    "bundle": "Put all stages, the tokenizer and a model card into one folder.",
}
"""What every command is for; its module has its name."""


@final
class _Commands(TyperGroup):
    """All commands, in the order in which a newcomer needs them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: LazyCommand(name, f"cascaded_dllm.cli.{name}", purpose) for name, purpose in _COMMANDS.items()
        }


app = typer.Typer(
    name="cdllm",
    cls=_Commands,
    help="Cascaded discrete diffusion language models: texts written in stages, first the words that matter.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"cdllm {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
