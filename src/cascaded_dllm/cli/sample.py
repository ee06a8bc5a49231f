"""`cdllm sample`: texts from a cascade or a flat model, every stage on disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cascaded_dllm.assemble_devices import choose_device
from cascaded_dllm.cli.console import console, counted, error_console, progress_bar, reported_errors
from cascaded_dllm.cli.options import choose_dtype, parse_lengths
from cascaded_dllm.cli.sample_run import SampleOptions, complete_run, is_judged, judge_run, options_to_go_on
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade, CascadeSamples
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.settings import absolute_source

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JUDGE = "gpt2-large"
_DEFAULTS = SampleOptions()


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


def _begin(options: SampleOptions) -> None:
    """A new run: whatever can be known to go wrong is told before anything long begins."""
    options.require_sound()
    cascade = _loaded(options)
    cascade.require_drawable(options.drawing())
    judge = None if options.judge is None else Judge.load(options.judge)
    run = SampleRun.begin(options.output_dir, options.run_settings(cascade))
    with run.lock():
        complete_run(run, cascade, options, judge)


def _go_on(folder: Path, given: Mapping[str, Any], *, is_judged_by_default: bool) -> None:
    """The run in `folder`, from where it was left.

    Args:
        folder: of the run.
        given: options of the command that are not left out.
        is_judged_by_default: whether the texts are judged even if no judge was named, now or when the run was begun.
    """
    run = SampleRun.open(folder)
    if is_judged_by_default and run.settings.judge is None:
        given = {"judge": absolute_source(_JUDGE)} | dict(given)
    options = options_to_go_on(run, given)
    options.drawing().require_sound(options.num_samples)
    if run.is_complete() and is_judged(run, options):
        run.tidy()
        console.print(
            f"{folder} is complete: all of {counted(options.num_samples, 'text')} are there, and nothing is changed",
            markup=False,
            soft_wrap=True,
        )
        return
    with run.lock():
        cascade = _loaded(options)
        run.settings.texts.require_same_cascade(cascade)
        judge = None if options.judge is None else Judge.load(options.judge)
        if not run.is_complete():
            complete_run(run, cascade, options, judge)
        elif judge is not None:
            judge_run(run, cascade, judge)


def _loaded(options: SampleOptions) -> Cascade:
    """The cascade that the options name."""
    return load_cascade(
        [Path(path) for path in options.stage],
        lengths=None if options.lengths is None else ",".join(map(str, options.lengths)),
        tokenizer=options.tokenizer,
        weights=options.weights,
        device=options.device,
        dtype=options.dtype,
    )


@app.command()
def sample(
    stage: Annotated[
        list[Path] | None,
        typer.Option(help="Run folder, checkpoint or hub id of a stage, first stage first; repeat it."),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(help="How many texts.", show_default=str(_DEFAULTS.num_samples))
    ] = None,
    predictor: Annotated[
        str | None, typer.Option(help="euler, analytic or first_hitting.", show_default=_DEFAULTS.predictor)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Time steps of a stage, for euler and analytic (128); first_hitting takes none.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides everything; text i does not depend on the batch.", show_default=str(_DEFAULTS.seed)),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Texts drawn together.", show_default=str(_DEFAULTS.batch_size))
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Weight of guidance by the prefix; twice the calls, needs training.prefix_dropout.",
            show_default=str(_DEFAULTS.guidance),
        ),
    ] = None,
    prefix_noise: Annotated[
        float | None,
        typer.Option(
            help="Share of a prefix that is replaced, as in training with training.prefix_noise.",
            show_default=str(_DEFAULTS.prefix_noise),
        ),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the folder of this run goes.", show_default=str(_DEFAULTS.output_dir))
    ] = None,
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
    weights: Annotated[str | None, typer.Option(help="ema or raw.", show_default=_DEFAULTS.weights)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda, ...", show_default=_DEFAULTS.device)] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the matrix products: float32 or bfloat16.", show_default=_DEFAULTS.dtype),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, which needs no other option.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Sample texts, stage after stage.

    Every batch is on the disk as soon as it is finished; --resume goes on with a run that was broken off.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --judge gpt2
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
      cdllm sample --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --predictor analytic --dtype bfloat16
      cdllm sample --resume out/sample_cascade_steps_256_len_128_20260301_120000
    """
    with reported_errors(debug):
        asked = {
            "stage": tuple(absolute_source(path) for path in stage) if stage else None,
            "num_samples": num_samples,
            "predictor": predictor,
            "steps": steps,
            "seed": seed,
            "batch_size": batch_size,
            "guidance": guidance,
            "prefix_noise": prefix_noise,
            "output_dir": output_dir,
            "judge": None if judge is None else absolute_source(judge),
            "tokenizer": None if tokenizer is None else absolute_source(tokenizer),
            "lengths": None if lengths is None else parse_lengths(lengths),
            "weights": weights,
            "device": device,
            "dtype": dtype,
        }
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if resume is not None:
            _go_on(resume, given, is_judged_by_default=eval_perplexity)
            return
        if eval_perplexity:
            given = {"judge": absolute_source(_JUDGE)} | given
        _begin(replace(_DEFAULTS, **given))
