"""The application `cdllm`: one module a command, joined here."""

from typing import Annotated

import typer

from cascaded_dllm import __version__
from cascaded_dllm.cli import evaluate, preprocess, quickstart, sample, train

app = typer.Typer(
    name="cdllm",
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


app.command("quickstart")(quickstart.quickstart)
app.add_typer(preprocess.app, name="preprocess")
app.command("train")(train.train)
app.command("sample")(sample.sample)
evaluation = typer.Typer(help="Measure models.", no_args_is_help=True)
evaluation.command("likelihood")(evaluate.likelihood)
app.add_typer(evaluation, name="evaluate")
