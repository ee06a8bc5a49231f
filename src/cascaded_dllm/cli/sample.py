"""`cdllm sample`: texts from a cascade or a flat model, every stage on disk."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cascaded_dllm.assemble_devices import choose_device
from cascaded_dllm.cli.console import console, counted, error_console, progress_bar, reported_errors
from cascaded_dllm.cli.options import choose_dtype, parse_lengths
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.figures import judged_figures, stage_figures
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade, CascadeSamples
from cascaded_dllm.sample.output import SampleSettings, change_summary, run_folder, write_samples

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JUDGE = "gpt2-large"


def load_cascade(
    stages: list[Path] | None,
    *,
    lengths: str | None,
    tokenizer: str | None,
    weights: str,
    device: str,
    dtype: str = "float32",
) -> Cascade:
    """The cascade that `--stage` options name; damaged checkpoints that were passed over are told.

    Raises:
        ConfigError: no stage is named, or a value cannot be read.
    """
    if not stages:
        raise ConfigError("no --stage is given; name at least 1 run folder, checkpoint or hub id")
    cascade = Cascade.from_pretrained(
        [str(path) for path in stages],
        lengths=None if lengths is None else parse_lengths(lengths),
        tokenizer=tokenizer,
        weights=weights,  # type: ignore[arg-type]
        device=choose_device(device),
        dtype=choose_dtype(dtype),
    )
    for fault in cascade.passed_over:
        error_console.print(f"passed over a damaged checkpoint: {fault}", markup=False)
    return cascade


def sample_with_progress(
    cascade: Cascade,
    num_samples: int,
    *,
    steps: int | None,
    predictor: str,
    seed: int,
    batch_size: int,
    guidance: float = 0.0,
    prefix_noise: float = 0.0,
) -> CascadeSamples:
    """`Cascade.generate` behind a progress bar that counts texts and stages."""
    with progress_bar("sampling") as (_, move):
        return cascade.generate(
            num_samples,
            steps=steps,
            predictor=predictor,
            seed=seed,
            batch_size=batch_size,
            guidance=guidance,
            prefix_noise=prefix_noise,
            on_progress=move,
        )


def _judge_texts(cascade: Cascade, samples: CascadeSamples, judge: Judge) -> dict[str, float]:
    """How probable the final texts are to the judge; shown as well."""
    texts = [cascade.tokenizer.decode_window(ids) for ids in samples.ids[-1].tolist()]
    figures = judged_figures(judge, texts, cascade.device)
    values = (figures.get(f"generative_ppl_{name}") for name in ("per_sequence", "corpus"))
    per_sequence, corpus = ("none" if value is None else f"{value:.2f}" for value in values)
    console.print(
        f"generative perplexity under {judge.source}: {per_sequence} as the mean over texts, {corpus} over all tokens",
        markup=False,
        soft_wrap=True,
    )
    return figures


@app.command()
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
    guidance: Annotated[
        float, typer.Option(help="Weight of guidance by the prefix; twice the calls, needs training.prefix_dropout.")
    ] = 0.0,
    prefix_noise: Annotated[
        float, typer.Option(help="Share of a prefix that is replaced, as in training with training.prefix_noise.")
    ] = 0.0,
    output_dir: Annotated[Path, typer.Option(help="Where the folder of this run goes.")] = Path("sampling_outputs"),
    eval_perplexity: Annotated[
        bool, typer.Option("--eval-perplexity", help="Generative perplexity of the final texts.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            help=f"Causal language model that judges them, a folder or a hub id ({_JUDGE}); implies --eval-perplexity.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer, if the checkpoints have none: a file, a folder or a hub id.")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Stage lengths, for a model whose checkpoint does not say them, as SEDD's.")
    ] = None,
    weights: Annotated[str, typer.Option(help="ema or raw.")] = "ema",
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the matrix products: float32 or bfloat16.")] = "float32",
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Sample texts, stage after stage.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --judge gpt2
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
      cdllm sample --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --predictor analytic --dtype bfloat16
    """
    with reported_errors(debug):
        cascade = load_cascade(stage, lengths=lengths, tokenizer=tokenizer, weights=weights, device=device, dtype=dtype)
        settings = SampleSettings(
            seed=seed,
            predictor=predictor,
            num_steps=cascade.num_steps(predictor, steps),
            stage_paths=tuple(str(path) for path in stage or []),
            stage_lengths=cascade.stage_lengths,
            weights=weights,
            dtype=dtype,
            guidance=guidance,
            prefix_noise=prefix_noise,
        )
        # Before the texts are drawn, so that a mistake costs no time.
        chosen = Judge.load(judge or _JUDGE) if eval_perplexity or judge is not None else None
        folder = run_folder(output_dir, num_steps=settings.num_steps, stage_lengths=settings.stage_lengths)
        started = time.perf_counter()
        samples = sample_with_progress(
            cascade,
            num_samples,
            steps=steps,
            predictor=predictor,
            seed=seed,
            batch_size=batch_size,
            guidance=guidance,
            prefix_noise=prefix_noise,
        )
        seconds = round(time.perf_counter() - started, 3)
        figures = stage_figures(dict(enumerate(samples.ids, start=1)))
        summary = {
            "num_samples": num_samples,
            "batch_size": batch_size,
            "device": str(cascade.device),
            "seconds": seconds,
            "judge": None if chosen is None else chosen.source,
            "figures": figures,
        }
        write_samples(folder, samples, settings, summary)
        for number, texts in enumerate(samples.texts, start=1):
            console.print(f"[bold]stage {number}[/]")
            console.print(texts[0], markup=False, soft_wrap=True)
        distinct, entropy = figures["distinct_bigram_share"], figures["token_entropy_nats_mean"]
        console.print(f"final texts: token entropy {entropy:.3f} nats, distinct bigrams {distinct:.1%}")
        if chosen is not None:
            # The texts are kept by now, whatever becomes of their judge.
            change_summary(folder, figures=figures | _judge_texts(cascade, samples, chosen))
        console.print(f"{counted(num_samples, 'text')} in {folder}", markup=False, soft_wrap=True)
