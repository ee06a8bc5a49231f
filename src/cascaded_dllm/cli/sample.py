"""`cdllm sample`: texts from a cascade or a flat model, every stage on disk."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble import choose_device
from cascaded_dllm.cli.console import console, error_console, progress_bar, reported_errors
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade, CascadeSamples
from cascaded_dllm.sample.output import run_folder, write_samples


def load_cascade(stages: list[Path] | None, *, tokenizer: str | None, weights: str, device: str) -> Cascade:
    """The cascade that `--stage` options name; damaged checkpoints that were passed over are told.

    Raises:
        ConfigError: no stage is named.
    """
    if not stages:
        raise ConfigError("no --stage is given; name at least 1 run folder, checkpoint or hub id")
    cascade = Cascade.from_pretrained(
        [str(path) for path in stages],
        tokenizer=tokenizer,
        weights=weights,  # type: ignore[arg-type]
        device=choose_device(device),
    )
    for fault in cascade.passed_over:
        error_console.print(f"passed over a damaged checkpoint: {fault}", markup=False)
    return cascade


def sample_with_progress(
    cascade: Cascade, num_samples: int, *, steps: int | None, predictor: str, seed: int, batch_size: int
) -> CascadeSamples:
    """`Cascade.generate` behind a progress bar that counts texts and stages."""
    with progress_bar("sampling") as (progress, _):
        task = progress.task_ids[0]
        progress.update(task, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return cascade.generate(
            num_samples, steps=steps, predictor=predictor, seed=seed, batch_size=batch_size, on_progress=show
        )


def sample(
    stage: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder, checkpoint or hub id of a stage, first stage first; repeat it."),
    ] = None,
    num_samples: Annotated[int, typer.Option(help="How many texts.")] = 8,
    predictor: Annotated[str, typer.Option(help="euler, analytic or first_hitting.")] = "first_hitting",
    steps: Annotated[
        int | None, typer.Option(help="Time steps of a stage, for euler and analytic (128); first_hitting takes none.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides everything; text i does not depend on the batch.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Texts drawn together.")] = 32,
    output_dir: Annotated[Path, typer.Option(help="Where the folder of this run goes.")] = Path("sampling_outputs"),
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer, if the checkpoints have none: a file, a folder or a hub id.")
    ] = None,
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda, ...")] = "auto",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Sample texts, stage after stage.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
    """
    with reported_errors(debug):
        cascade = load_cascade(stage, tokenizer=tokenizer, weights=weights, device=device)
        folder = run_folder(output_dir, steps=cascade.num_steps(predictor, steps), length=cascade.stage_lengths[-1])
        started = time.perf_counter()
        samples = sample_with_progress(
            cascade, num_samples, steps=steps, predictor=predictor, seed=seed, batch_size=batch_size
        )
        summary = {
            "stages": [str(path) for path in stage or []],
            "stage_lengths": list(cascade.stage_lengths),
            "num_samples": num_samples,
            "predictor": predictor,
            "steps": cascade.num_steps(predictor, steps),
            "seed": seed,
            "batch_size": batch_size,
            "weights": weights,
            "device": str(cascade.device),
            "seconds": round(time.perf_counter() - started, 3),
        }
        write_samples(folder, samples, summary)
        for number, texts in enumerate(samples.texts, start=1):
            console.print(f"[bold]stage {number}[/]")
            console.print(texts[0], markup=False, soft_wrap=True)
        console.print(f"{num_samples} texts in {folder}", markup=False, soft_wrap=True)
