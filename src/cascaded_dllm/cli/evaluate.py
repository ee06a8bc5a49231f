"""`cdllm evaluate`: numbers about trained models."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cascaded_dllm.assemble import joint_bound
from cascaded_dllm.atomic import write_json
from cascaded_dllm.cli.console import console, progress_bar, reported_errors
from cascaded_dllm.cli.sample import load_cascade
from cascaded_dllm.config import DataSettings
from cascaded_dllm.errors import ConfigError, OutputExistsError
from cascaded_dllm.evaluate.likelihood import JointBound, mean_and_error


def _known(value: float) -> float | None:
    """None for the error of a single window, which JSON has no number for."""
    return None if math.isnan(value) else value


def bound_summary(bound: JointBound) -> dict[str, object]:
    """The numbers of a joint bound, with units in their names."""
    total, error = mean_and_error(bound.nll_nats)
    return {
        "bound_nats_per_window": total,
        "standard_error_nats": _known(error),
        "bound_nats_per_token": total / bound.length,
        "bound_ppl": bound.ppl,
        "omitted_nats_per_window_at_most": bound.omitted_nats,
        "num_windows": len(bound.nll_nats),
        "length": bound.length,
        "stages": [
            {
                "stage": stage.stage,
                "bound_nats_per_window": mean_and_error(stage.nll_nats)[0],
                "standard_error_nats": _known(mean_and_error(stage.nll_nats)[1]),
                "omitted_nats_per_window_at_most": stage.omitted_nats,
                "unigram_nats_per_window": stage.unigram_nats,
            }
            for stage in bound.stages
        ],
    }


def bound_table(bound: JointBound) -> Table:
    """The same for people."""
    table = Table(title="upper bound on -log p, nats a window")
    for column in ("stage", "bound", "+-", "omitted at most", "unigram"):
        table.add_column(column, justify="right")
    for stage in bound.stages:
        mean, error = mean_and_error(stage.nll_nats)
        table.add_row(
            str(stage.stage), f"{mean:.3f}", f"{error:.3f}", f"{stage.omitted_nats:.3f}", f"{stage.unigram_nats:.3f}"
        )
    mean, error = mean_and_error(bound.nll_nats)
    table.add_section()
    table.add_row("joint", f"{mean:.3f}", f"{error:.3f}", f"{bound.omitted_nats:.3f}", "")
    return table


def likelihood(
    stage: Annotated[
        list[Path] | None, typer.Option(help="As in `cdllm sample`; one flat model, or all stages.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder that `cdllm preprocess` made.")] = Path("data"),
    stages: Annotated[Path | None, typer.Option(help="Where windows and stages are kept, for read-only data.")] = None,
    packing: Annotated[str, typer.Option(help="stream or document, as in training.")] = "stream",
    num_windows: Annotated[int, typer.Option(help="The first so many windows.")] = 512,
    num_times: Annotated[int, typer.Option(help="Times a window.")] = 16,
    batch_size: Annotated[int, typer.Option(help="Windows computed together.")] = 64,
    t_min: Annotated[float, typer.Option(help="The integral runs from here to 1.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Decides times and noise.")] = 0,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer, if the checkpoints have none.")] = None,
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda, ...")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """The likelihood bound of a flat model, or of all stages of a cascade and their sum, on the same windows.

    Examples:

      cdllm evaluate likelihood --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --data D
      cdllm evaluate likelihood --stage runs/flat --data D --out flat.json
    """
    with reported_errors(debug):
        if not 0 < t_min < 1:
            raise ConfigError(f"--t-min is {t_min}; it must lie between 0 and 1, 0.001 is usual")
        if out is not None and (out.is_dir() or not out.parent.is_dir()):
            raise OutputExistsError(f"--out is {out}; it must be a file, new or old, in a folder that exists")
        cascade = load_cascade(stage, tokenizer=tokenizer, weights=weights, device=device)
        with progress_bar("windows") as (_, move):
            bound = joint_bound(
                cascade,
                DataSettings(
                    path=str(data),
                    valid=None,
                    packing=packing,
                    stages_dir=None if stages is None else str(stages),
                ),
                num_windows=num_windows,
                num_times=num_times,
                batch_size=batch_size,
                seed=seed,
                t_min=t_min,
                on_progress=move,
            )
        summary = bound_summary(bound)
        console.print(bound_table(bound))
        console.print(
            f"{summary['bound_nats_per_token']:.4f} nats/token, perplexity at most {bound.ppl:.2f}, on "
            f"{summary['num_windows']} windows of {bound.length} tokens, {num_times} times each"
        )
        if out is not None:
            write_json(out, summary)
            console.print(f"written to {out}", markup=False)
        elif not console.is_terminal:
            console.print_json(json.dumps(summary))
