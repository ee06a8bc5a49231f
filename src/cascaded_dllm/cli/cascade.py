"""`cdllm cascade`: cascades built around existing models."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble.from_flat import FIRST, runs_from_flat
from cascaded_dllm.checks import one_of
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.console import reported_errors, say
from cascaded_dllm.cli.options import Debug, given, parse_lengths
from cascaded_dllm.cli.train_run import train_run
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.stage_settings import WEIGHTS_FILES
from cascaded_dllm.overrides import require_free

app = typer.Typer(add_completion=False, no_args_is_help=True)

_DECIDED = (
    *("run_dir", "load_dir", "stage", "stage_lengths", "baseline", "conditioning"),
    *("data.packing", "training.halves", "pretrained", "graph"),
)
"""Keys, and groups of keys, that the command sets itself."""
_COMPLAINT = (
    "the override {key} is decided by this command, which trains every stage around the flat model; leave it out, and "
    "give lengths with --lengths"
)


@app.callback()
def _cascade() -> None:
    """Build a cascade around a flat model."""


@app.command()
def from_flat(
    source: Annotated[str, typer.Argument(help="The flat model: run folder, checkpoint or hub id.", metavar="FLAT")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Overrides key=value for all runs; those of model.* and noise.* apply to stage 1 only.",
            show_default=False,
        ),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Stage lengths in tokens; the last one is the length of the texts.")
    ] = "32,64,128",
    data: Annotated[
        Path | None, typer.Option(help="Training data: a folder that `cdllm preprocess` made (data.path).")
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(help="Validation data, to measure the bound on: another such folder (data.valid).")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the runs, one for each stage; runs that are there are resumed.")
    ] = Path("runs/from_flat"),
    model: Annotated[
        str | None,
        typer.Option(help="Size of the network of a new stage 1: quick, tiny, small or medium.", show_default="tiny"),
    ] = None,
    first: Annotated[
        str,
        typer.Option(help="How stage 1 starts: new (random weights) or flat (the flat model, trained further)."),
    ] = "new",
    weights: Annotated[str, typer.Option(help="Weights of the flat model: ema or raw.")] = "ema",
    device: Annotated[str | None, typer.Option(help="Device of the networks: auto, cpu, mps, cuda, ...")] = None,
    debug: Debug = False,
) -> None:
    """Build a cascade of placed stages around a flat model.

    At every stage after the first, the flat model, unchanged, fills in the text around the tokens of the stage before.
    Only two things are trained: stage 1, and for each later stage the layout network that draws the places of these
    tokens. Stage 1 is a new small network or, with --first flat, the flat model trained further.

    Examples:

      cdllm cascade from-flat runs/flat --data D --valid V --lengths 32,64,128 --out runs/from_flat
      cdllm cascade from-flat runs/filling --first flat --data D --valid V --lengths 32,64,128 --out runs/shared
      cdllm cascade from-flat louaaron/sedd-small --data D --lengths 64,256,1024 --model small training.num_steps=20000
    """
    with reported_errors(debug):
        chosen_weights = one_of("--weights", weights, WEIGHTS_FILES)
        chosen_first = one_of("--first", first, FIRST)
        require_free(overrides or [], _DECIDED, _COMPLAINT)
        if data is None:
            raise ConfigError("no --data is given; name a folder that `cdllm preprocess` made")
        first_network = ["model=tiny"] if model is None else []
        flags = {
            "--model": None if model is None else f"model={model}",
            "--device": None if device is None else f"device={device}",
        }
        config = compose_config(
            [*first_network, f"stage_lengths={list(parse_lengths(lengths))}", *(overrides or [])],
            paths=given({"data.path": data, "data.valid": valid}),
            flags=given(flags),
        )
        runs = runs_from_flat(config, source, weights=chosen_weights, out=out, first=chosen_first)
        for run in runs:
            train_run(run, is_last=run is runs[-1])
        stages = " ".join(f"--stage {shlex.quote(str(run.run_dir))}" for run in runs)
        for line in (f"sample it   cdllm sample {stages}", f"keep it     cdllm bundle {stages} --out DIR"):
            say(line)
