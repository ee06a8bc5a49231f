"""`cdllm evaluate gap`: figures of every later stage on true prefixes and on generated ones."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cascaded_dllm.assemble.gap import GapSettings, gaps_on_windows, require_measurable
from cascaded_dllm.assemble.windows import windows_of_cascade
from cascaded_dllm.cli import sample_flags as flags
from cascaded_dllm.cli.building import BUILDING, shown_building
from cascaded_dllm.cli.console import console, progress_bar, reported_errors
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
from cascaded_dllm.cli.sample_drawing import drawing_of, read_options
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.gap import GAP_DEFINITIONS, StageGap
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade


def gap_summary(gaps: Sequence[StageGap], settings: GapSettings, judge: str | None) -> dict[str, Any]:
    """The gaps for programs, with the settings that decide them and the definitions of the figures."""
    shown = {figure.name for gap in gaps for figure in gap.figures}
    return {
        "num_texts": settings.num_texts,
        "num_times": settings.num_times,
        "num_resamples": settings.num_resamples,
        "level": settings.level,
        "judge": judge,
        "drawing": settings.drawing.described(),
        "stages": [
            {
                "stage": gap.stage,
                "figures": {
                    figure.name: {
                        "real": asdict(figure.real),
                        "true_prefix": asdict(figure.true_prefix),
                        "generated_prefix": asdict(figure.generated_prefix),
                        "gap": asdict(figure.gap),
                    }
                    for figure in gap.figures
                },
            }
            for gap in gaps
        ],
        "definitions": {name: text for name, text in GAP_DEFINITIONS.items() if name in shown},
    }


def gap_table(gap: StageGap, settings: GapSettings) -> Table:
    """The gaps of one stage for people; a star marks a gap whose interval excludes 0.

    The intervals of the other columns are only in the summary.
    """
    table = Table(title=f"stage {gap.stage} on {settings.num_texts} prefixes of each kind")
    table.add_column("figure")
    for column in ("real text", "on true prefixes", "on generated", "gap"):
        table.add_column(column, justify="right")
    for figure in gap.figures:
        found = [f"{span.estimate:.4f}" for span in (figure.real, figure.true_prefix, figure.generated_prefix)]
        low, high = figure.gap.low, figure.gap.high
        star = "" if low <= 0 <= high else "* "
        # Names wrap at blanks.
        name = figure.name.replace("_", " ")
        table.add_row(name, *found, f"{star}{figure.gap.estimate:.4f}\n({low:.4f}, {high:.4f})")
    return table


def gap(
    stage: Stages = None,
    cascade: Bundle = None,
    data: Annotated[
        Path | None, typer.Option(help="Unseen text: a folder that `cdllm preprocess` made, not used in training.")
    ] = None,
    stages: StagesDir = None,
    packing: Packing = None,
    num_texts: Annotated[int, typer.Option(help="Texts written on each kind of prefix.")] = 256,
    num_times: Annotated[int, typer.Option(help="Diffusion times drawn for each text of a bound.")] = 16,
    num_resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap, for the intervals.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Texts written or measured together.")] = 32,
    predictor: flags.Predictor = None,
    steps: flags.Steps = None,
    tokens_per_call: flags.TokensPerCall = None,
    eta: flags.Eta = None,
    gaps_per_call: flags.GapsPerCall = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    guidance: flags.Guidance = None,
    prefix_noise: flags.PrefixNoise = None,
    judge: Annotated[
        str | None, typer.Option(help="Causal language model that judges the texts: a folder or a hub id.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows, texts, times, noise and resamples.")] = 0,
    tokenizer: TokenizerSource = None,
    lengths: Lengths = None,
    weights: WeightsName = None,
    device: Device = "auto",
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure exposure bias: every later stage on true prefixes and on those that the earlier stages write.

    Examples:

      cdllm evaluate gap --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --data D
      cdllm evaluate gap --cascade bundles/mine --data D --judge judges/mine --num-texts 1024 --out gap.json
    """
    with reported_errors(debug):
        require_output_file(out)
        if data is None:
            raise ConfigError("no --data is given; name a folder that `cdllm preprocess` made from unseen text")
        settings = GapSettings(
            # All parameters of this function, by name; drawing_of picks those that decide how texts are drawn.
            drawing=drawing_of(read_options(locals())),
            num_texts=num_texts,
            num_times=num_times,
            batch_size=batch_size,
            num_resamples=num_resamples,
        )
        loaded = load_cascade(
            stage, bundle=cascade, lengths=lengths, tokenizer=tokenizer, weights=weights, device=device
        )
        require_measurable(loaded, settings.drawing)
        packing = packing_of(loaded, packing)
        windows = DataSettings.of_folder(data, packing=packing, stages_dir=stages, unique=loaded.unique)
        asked = None if judge is None else Judge.load(judge)
        gaps = _measured(loaded, windows, settings, asked, as_json=as_json)
        tell(gap_summary(gaps, settings, judge), lambda: _show(gaps, settings), out=out, as_json=as_json)


def _measured(
    cascade: Cascade, data: DataSettings, settings: GapSettings, judge: Judge | None, *, as_json: bool
) -> tuple[StageGap, ...]:
    """The gaps of all later stages; a bar shows what is being drawn and measured."""
    with shown_building(BUILDING, as_json=as_json) as building:
        arrays = windows_of_cascade(cascade, data, building=building)
    with progress_bar("gap") as (progress, _):

        def show(what: str, done: int, total: int) -> None:
            progress.update(progress.task_ids[0], description=what, completed=done, total=total)

        return gaps_on_windows(cascade, arrays, settings, judge=judge, on_progress=show)


def _show(gaps: Sequence[StageGap], settings: GapSettings) -> None:
    for of_stage in gaps:
        console.print(gap_table(of_stage, settings))
    console.print(
        f"gap: on generated prefixes minus on true ones, with its {settings.level:.0%} interval; * if 0 is outside it",
        soft_wrap=True,
    )
