"""The application `cdllm`, with all its commands; each command is a module of this package."""

from typing import Annotated, Any, final

import typer
from typer.core import TyperGroup

from cascaded_dllm import __version__
from cascaded_dllm.cli.lazy import LazyCommand
from cascaded_dllm.cli.streams import App

_COMMANDS = {
    "quickstart": "Train, measure and sample a three-stage cascade on a built-in corpus.",
    "preprocess": "Compute the importance of every token of a corpus, and inspect what the stages keep.",
    "train": "Train one stage of a cascade, or a flat model; `python train.py` is the same.",
    "cascade": "Build a cascade around a flat model.",
    "study": "Compare models trained at equal cost: one file describes the study, one command runs it.",
    "sample": "Sample texts from a cascade or a flat model, stage after stage.",
    "demo": "Write texts on a page in the browser, and edit every stage on the way.",
    "evaluate": "Measure models, and compare written texts with real ones.",
    "judge": "Train a judge: a small language model that measures how probable written texts are.",
    "bundle": "Put all stages, the tokenizer and a model card into one folder.",
}
"""What each command does, by the name of the command and of its module."""


@final
class _Commands(TyperGroup):
    """All commands, in the order in which a newcomer needs them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {
            name: LazyCommand(name, f"cascaded_dllm.cli.{name}", purpose) for name, purpose in _COMMANDS.items()
        }


app = App(
    name="cdllm",
    cls=_Commands,
    help="Cascaded discrete diffusion language models, which write texts in stages: the words that matter come first.",
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
    """The options of `cdllm` itself."""
