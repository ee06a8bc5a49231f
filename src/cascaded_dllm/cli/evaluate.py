"""`cdllm evaluate`: likelihood bounds of models, and figures of texts."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cascaded_dllm.assemble.bound import windows_bound
from cascaded_dllm.assemble.windows import windows_of_cascade
from cascaded_dllm.cli.building import BUILDING, shown_building
from cascaded_dllm.cli.console import console, counted, error_console, progress_bar, reported_errors
from cascaded_dllm.cli.evaluate_gap import gap
from cascaded_dllm.cli.evaluate_samples import samples
from cascaded_dllm.cli.load import load_cascade, packing_of
from cascaded_dllm.cli.options import (
    AsJson,
    Bundle,
    Debug,
    Device,
    Lengths,
    Out,
    Packing,
    Stages,
    StagesDir,
    TokenizerSource,
    WeightsName,
    require_output_file,
    tell,
)
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.diffusion.bound import BOUND_SEED, MEASURED_FROM
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.bound_summary import bound_summary
from cascaded_dllm.evaluate.likelihood import BoundSettings, JointBound, Sequential, mean_and_error

BOUND_COLUMNS = (
    "omitted at most: what the bound leaves out at the ends of time; unigram: what the written tokens cost a model "
    "that knows their frequencies in these windows and no context"
)
"""Explains two columns of `bound_table` to a first-time reader."""

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(samples)
app.command()(gap)


@app.callback()
def _evaluate() -> None:
    """Measure models, and compare written texts with real ones."""


def bound_table(bound: JointBound) -> Table:
    """The bound as a table for people; for placed stages with the share of the layout."""
    is_flat, is_placed = bound.num_stages == 1, any(stage.layout_nats is not None for stage in bound.stages)
    table = Table(title="upper bound on -log p, nats a window")
    for column in ("stage", "bound", "+-", "omitted at most", "unigram", *(["of it layout"] if is_placed else [])):
        table.add_column(column, justify="right")
    for stage in bound.stages:
        mean, error = mean_and_error(stage.nll_nats)
        name = "flat" if is_flat else f"{stage.stage} of {bound.num_stages}"
        layout = [] if stage.layout_nats is None else [f"{float(stage.layout_nats.mean()):.3f}"]
        numbers = [mean, error, stage.omitted_nats, stage.unigram_nats]
        table.add_row(name, *map(_in_nats, numbers), *layout)
    if bound.is_whole and not is_flat:
        mean, error = mean_and_error(bound.nll_nats)
        table.add_section()
        table.add_row("joint", *map(_in_nats, (mean, error, bound.omitted_nats)), "")
    return table


def _in_nats(number: float) -> str:
    """A number of nats; a dash where there is none, as for the error of a single window."""
    return "-" if math.isnan(number) else f"{number:.3f}"


def bound_line(bound: JointBound, num_times: int) -> str:
    """The bound per token, per character and as perplexity, and what it was measured on."""
    measured = (
        f"on {counted(len(bound.nll_nats), 'window')} of {bound.length} tokens, {counted(num_times, 'time')} each"
    )
    if not bound.is_whole:
        return (
            f"{measured}; no bound on whole texts: only {len(bound.stages)} of {bound.num_stages} stages are given, "
            f"which write a shorter version of {bound.length} tokens"
        )
    per_token = float(bound.nll_nats.mean()) / bound.length
    bits = "" if bound.bits_per_character is None else f"{bound.bits_per_character:.4f} bits/character, "
    return f"{per_token:.4f} nats/token, {bits}perplexity at most {bound.ppl:.2f}, {measured}"


def sequential_line(bound: JointBound) -> str | None:
    """The bound measured token by token, and how the integral over time differs from it; None if not measured."""
    sequential = bound.sequential_nats
    if sequential is None:
        return None
    mean, error = mean_and_error(bound.nll_nats[: len(sequential)] - sequential)
    return (
        f"token by token: {float(sequential.mean()):.3f} nats a window on the first {len(sequential)}; the integral "
        f"differs from it by {mean:+.3f} +- {_in_nats(error)}"
    )


@app.command()
def likelihood(
    stage: Stages = None,
    cascade: Bundle = None,
    data: Annotated[
        Path | None, typer.Option(help="Data to measure on: a folder that `cdllm preprocess` made.")
    ] = None,
    stages: StagesDir = None,
    packing: Packing = None,
    unique: Annotated[
        bool | None,
        typer.Option(
            "--unique/--no-unique",
            help="Whether a shortened stage keeps each token only once, and windows with too few different tokens are "
            "dropped; by default as in training.",
        ),
    ] = None,
    num_windows: Annotated[int, typer.Option(help="Number of windows, evenly spaced in the data.")] = 512,
    num_times: Annotated[int, typer.Option(help="Diffusion times drawn for each window.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Windows computed together.")] = 64,
    t_min: Annotated[
        float, typer.Option(help="Diffusion time from which the bound is integrated, up to 1.")
    ] = MEASURED_FROM,
    all_windows: Annotated[
        bool,
        typer.Option(
            "--all-windows", help="Also measure windows with too few different tokens; their stages keep copies."
        ),
    ] = False,
    num_orders: Annotated[
        int | None,
        typer.Option(help="As a check, also measure token by token in this many orders; needs normalised networks."),
    ] = None,
    order_windows: Annotated[int, typer.Option(help="Windows measured token by token.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of times and noise.")] = BOUND_SEED,
    tokenizer: TokenizerSource = None,
    lengths: Lengths = None,
    weights: WeightsName = None,
    device: Device = "auto",
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure the likelihood bound of a flat model, or of every stage of a cascade and their sum.

    Examples:

      cdllm evaluate likelihood --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --data D
      cdllm evaluate likelihood --cascade bundles/mine --data D
      cdllm evaluate likelihood --stage runs/flat --data D --out flat.json
      cdllm evaluate likelihood --stage louaaron/sedd-small --data D --lengths 1024 --tokenizer gpt2 --packing stream
    """
    with reported_errors(debug):
        settings = BoundSettings(
            num_windows=num_windows,
            num_times=num_times,
            batch_size=batch_size,
            seed=seed,
            t_min=t_min,
            sequential=None if num_orders is None else Sequential(num_orders, order_windows),
        )
        require_output_file(out)
        if data is None:
            raise ConfigError("no --data is given; name a folder that `cdllm preprocess` made")
        loaded = load_cascade(
            stage,
            bundle=cascade,
            lengths=lengths,
            tokenizer=tokenizer,
            weights=weights,
            device=device,
        )
        packing = packing_of(loaded, packing)
        windows = DataSettings.of_folder(
            data,
            packing=packing,
            unique=loaded.unique if unique is None else unique,
            stages_dir=stages,
        )
        with shown_building(BUILDING, as_json=as_json) as building:
            arrays = windows_of_cascade(loaded, windows, keeps_all=all_windows, building=building)
        with progress_bar("windows", log=error_console if as_json else console) as (_, move):
            bound = windows_bound(loaded, arrays, settings, on_progress=move)
        tell(bound_summary(bound), lambda: _show(bound, num_times), out=out, as_json=as_json)


def _show(bound: JointBound, num_times: int) -> None:
    console.print(bound_table(bound))
    for line in (BOUND_COLUMNS, bound_line(bound, num_times), sequential_line(bound)):
        if line is not None:
            console.print(line, soft_wrap=True)
