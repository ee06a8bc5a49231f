"""Options that several commands share, and what their values mean."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cascaded_dllm.atomic import require_writable_file, write_json
from cascaded_dllm.cli.console import say
from cascaded_dllm.errors import ConfigError, OutputError

Option = TypeVar("Option")

Stages = Annotated[
    list[Path] | None,
    typer.Option("--stage", help="Run folder, checkpoint or hub id of a stage; repeat it, first stage first."),
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--cascade",
        help="Instead of --stage: a bundle of all stages, as a folder or a hub id, or the built-in cascade stories.",
    ),
]
TokenizerSource = Annotated[
    str | None,
    typer.Option("--tokenizer", help="File, folder or hub id of the tokenizer, if the checkpoints have none."),
]
Lengths = Annotated[
    str | None,
    typer.Option("--lengths", help="Stage lengths, if the checkpoints do not store them (SEDD models)."),
]
WeightsName = Annotated[
    str | None,
    typer.Option(
        "--weights", help="Weights of the checkpoints: ema or raw.", show_default="ema, or those of the bundle"
    ),
]
StagesDir = Annotated[
    Path | None, typer.Option("--stages", help="Folder for built windows and stages, if the data is read-only.")
]
Packing = Annotated[
    str | None,
    typer.Option(
        "--packing", help="How windows are cut, stream or document, if the checkpoints do not store it (SEDD models)."
    ),
]
Device = Annotated[str, typer.Option("--device", help="Device of the networks: auto, cpu, mps, cuda, ...")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write the numbers to this JSON file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def given(options: Mapping[str, Option | None]) -> dict[str, Option]:
    """The options that were given, without those that are None."""
    return {name: value for name, value in options.items() if value is not None}


def parse_lengths(text: str) -> tuple[int, ...]:
    """The stage lengths in "32,64,128".

    Raises:
        ConfigError: the text is not a list of whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--lengths is {text!r}; it must be whole numbers with commas, for example 32,64,128")
    return tuple(int(part) for part in parts)


def tell(summary: Mapping[str, Any], show: Callable[[], None], *, as_json: bool, out: Path | None = None) -> None:
    """Writes the summary to `--out`, and prints it as JSON or as `show` does.

    Raises:
        OutputError: the file cannot be written; what took long to measure is printed all the same.
    """
    try:
        # The file comes first, since the terminal may close before the end, as with `| head`.
        if out is not None:
            write_json(out, summary)
    finally:
        if as_json:
            typer.echo(json.dumps(summary, indent=2))
        else:
            show()
    if out is not None and not as_json:
        say(f"written to {out}")


def require_output_file(out: Path | None) -> None:
    """Checks, before the work begins, that `--out` can be written as a file.

    Raises:
        OutputError: it is a folder, its folder does not exist, or it cannot be written.
    """
    if out is None:
        return
    if out.is_dir() or not out.parent.is_dir():
        raise OutputError(f"--out is {out}; it must be a file, new or old, in a folder that exists")
    require_writable_file(out)
