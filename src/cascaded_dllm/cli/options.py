"""Options that several commands share, and what their values mean."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cascaded_dllm.atomic import write_json
from cascaded_dllm.cli.console import say
from cascaded_dllm.errors import ConfigError, OutputExistsError

Option = TypeVar("Option")

Stages = Annotated[
    list[Path] | None,
    typer.Option("--stage", help="Run folder, checkpoint or hub id of a stage, first stage first; repeat it."),
]
Bundle = Annotated[
    str | None,
    typer.Option(
        "--cascade",
        help="Instead of --stage: a bundle of all stages, a folder, a hub id, or stories, which is built in.",
    ),
]
TokenizerSource = Annotated[
    str | None, typer.Option("--tokenizer", help="If the checkpoints have none: a file, a folder or a hub id.")
]
Lengths = Annotated[
    str | None,
    typer.Option("--lengths", help="Stage lengths, for a model whose checkpoint does not say them, as SEDD's."),
]
WeightsName = Annotated[
    str | None, typer.Option("--weights", help="ema or raw.", show_default="ema, or those of the bundle")
]
StagesDir = Annotated[
    Path | None, typer.Option("--stages", help="Where windows and stages are kept, for read-only data.")
]
Packing = Annotated[
    str | None,
    typer.Option("--packing", help="stream or document, for models whose checkpoints do not say it, as SEDD's."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, mps, cuda, ...")]
Out = Annotated[Path | None, typer.Option("--out", help="Also write the numbers to this JSON file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def given(options: Mapping[str, Option | None]) -> dict[str, Option]:
    """The options that were given, without those that are None."""
    return {name: value for name, value in options.items() if value is not None}


def parse_lengths(text: str) -> tuple[int, ...]:
    """The stage lengths in "32,64,128".

    Raises:
        ConfigError: the text is no list of whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--lengths is {text!r}; it must be whole numbers with commas, for example 32,64,128")
    return tuple(int(part) for part in parts)


def tell(summary: Mapping[str, Any], show: Callable[[], None], *, as_json: bool, out: Path | None = None) -> None:
    """What was found, for `--out`, and on the terminal as JSON or as `show` prints it."""
    if out is not None:
        write_json(out, summary)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    show()
    if out is not None:
        say(f"written to {out}")


def require_output_file(out: Path | None) -> None:
    """Checks, before the work, that `--out` can be a file.

    Raises:
        OutputExistsError: it is a folder, or lies in one that is not there.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise OutputExistsError(f"--out is {out}; it must be a file, new or old, in a folder that exists")
