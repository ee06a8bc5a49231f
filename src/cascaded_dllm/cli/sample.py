"""`cdllm sample`: texts from a cascade or a flat model, every stage on disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cascaded_dllm.assemble_devices import choose_device
from cascaded_dllm.cli.console import console, counted, error_console, progress_bar, reported_errors
from cascaded_dllm.cli.options import choose_dtype, parse_lengths
from cascaded_dllm.cli.sample_drawing import (
    drawing_of,
    parse_keywords,
    parse_names,
    parse_numbers,
    parse_outline,
    parse_pins,
)
from cascaded_dllm.cli.sample_run import SampleOptions, complete_run, is_judged, judge_run, options_to_go_on
from cascaded_dllm.cli.show import require_terminal
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import DEFAULT_STEPS, Drawing, require_counts
from cascaded_dllm.sample.loading import bundle_folder
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.predictors import GRID_PREDICTORS, PREDICTORS
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.sample.settings import absolute_source

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JUDGE = "gpt2-large"
_DEFAULTS = SampleOptions()
_PLAIN = Drawing()
_CONTROL, _METHOD = "What the texts hold", "How they are drawn"


def load_cascade(
    stages: list[Path] | None,
    *,
    bundle: str | None = None,
    lengths: str | None,
    tokenizer: str | None,
    weights: str | None,
    device: str,
    dtype: str = "float32",
) -> Cascade:
    """The cascade that `--stage` options or `--cascade` name; damaged checkpoints that were passed over are told.

    Raises:
        ConfigError: no stage is named or the stages are named twice, or a value cannot be read.
    """
    if stages and bundle is not None:
        raise ConfigError(
            f"--stage is given {len(stages)} times and --cascade as {bundle}, which holds all stages; leave one out"
        )
    if not stages and bundle is None:
        raise ConfigError(
            "no --stage is given; name at least 1 run folder, checkpoint or hub id, or with --cascade a bundle of all "
            "stages"
        )
    cascade = Cascade.from_pretrained(
        [str(path) for path in stages or ()] if bundle is None else bundle_folder(bundle),
        lengths=None if lengths is None else parse_lengths(lengths),
        tokenizer=tokenizer,
        weights=weights,  # type: ignore[arg-type]
        device=choose_device(device),
        dtype=choose_dtype(dtype),
    )
    for fault in cascade.passed_over:
        error_console.print(f"passed over a damaged checkpoint: {fault}", markup=False)
    return cascade


def sample_with_progress(cascade: Cascade, num_samples: int, *, seed: int, batch_size: int) -> CascadeSamples:
    """Texts by first hitting, behind a progress bar that counts texts and stages."""
    with progress_bar("sampling") as (_, move):
        return cascade.generate(num_samples, seed=seed, batch_size=batch_size, on_progress=move)


def _begin(options: SampleOptions, *, watch: bool) -> None:
    """A new run: whatever can be known to go wrong is told before anything long begins."""
    options.require_sound()
    cascade = _loaded(options)
    options = options.with_given_texts(cascade)
    cascade.require_drawable(options.drawing)
    judge = None if options.judge is None else Judge.load(options.judge)
    run = SampleRun.begin(options.output_dir, options.run_settings(cascade))
    with run.lock():
        complete_run(run, cascade, options, judge, watch=watch)


def _go_on(folder: Path, given: Mapping[str, Any], *, is_judged_by_default: bool, watch: bool) -> None:
    """The run in `folder`, from where it was left.

    Args:
        folder: of the run.
        given: options of the command that are not left out.
        is_judged_by_default: whether the texts are judged even if no judge was named, now or when the run was begun.
        watch: whether texts are shown while they are written.
    """
    run = SampleRun.open(folder)
    if is_judged_by_default and run.settings.judge is None:
        given = {"judge": absolute_source(_JUDGE)} | dict(given)
    options = options_to_go_on(run, given)
    require_counts(batch_size=options.batch_size)
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
            complete_run(run, cascade, options, judge, watch=watch)
        elif judge is not None:
            judge_run(run, cascade, judge)


def _loaded(options: SampleOptions) -> Cascade:
    """The cascade that the options name."""
    return load_cascade(
        [Path(path) for path in options.stage],
        bundle=options.cascade,
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
    cascade: Annotated[
        str | None, typer.Option(help="Instead of --stage: a bundle that holds all stages, a folder or a hub id.")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(help="How many texts.", show_default=str(_DEFAULTS.num_samples))
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides everything; text i does not depend on the batch.", show_default=str(_PLAIN.seed)),
    ] = None,
    keywords: Annotated[
        str | None, typer.Option(help="Words with commas that stage 1 holds in this order.", rich_help_panel=_CONTROL)
    ] = None,
    outline: Annotated[
        Path | None,
        typer.Option(
            help="File with words that the first stage with room for them holds in order.", rich_help_panel=_CONTROL
        ),
    ] = None,
    from_stage: Annotated[
        int | None,
        typer.Option(help="Stage whose texts --input holds; the ones after it are written.", rich_help_panel=_CONTROL),
    ] = None,
    input: Annotated[
        Path | None,
        typer.Option(help="A sampling run, or a file of texts such as sample_stage1.txt.", rich_help_panel=_CONTROL),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            help="STAGE:POSITION:TEXT at a fixed place, POSITION a number, start or end; repeat it.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    require_coverage: Annotated[
        bool,
        typer.Option(
            "--require-coverage", help="Every stage holds all of the one before, in order.", rich_help_panel=_CONTROL
        ),
    ] = False,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Weight of guidance by the prefix; twice the calls, needs training.prefix_dropout.",
            show_default=str(_PLAIN.guidance),
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(PREDICTORS)}; one, or one for each stage with commas.",
            show_default=",".join(_PLAIN.predictor),
            rich_help_panel=_METHOD,
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help=f"Time steps of a stage, for {', '.join(GRID_PREDICTORS)}; one, or one for each stage.",
            show_default=str(DEFAULT_STEPS),
            rich_help_panel=_METHOD,
        ),
    ] = None,
    tokens_per_call: Annotated[
        str | None,
        typer.Option(
            help="Tokens written together by the other predictors; one, or one for each stage.",
            show_default="1",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(help="How much remask masks again, 0 to 1.", show_default="0.1", rich_help_panel=_METHOD),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the law of a token; 1 leaves it.", show_default="1", rich_help_panel=_METHOD),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k most probable tokens only.", rich_help_panel=_METHOD)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw from the most probable tokens of this probability only.", rich_help_panel=_METHOD),
    ] = None,
    prefix_noise: Annotated[
        float | None,
        typer.Option(
            help="Share of a prefix that is replaced, as in training with training.prefix_noise.",
            show_default=str(_PLAIN.prefix_noise),
            rich_help_panel=_METHOD,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Texts drawn together.", show_default=str(_DEFAULTS.batch_size))
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Where the folder of this run goes.", show_default=str(_DEFAULTS.output_dir))
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, which needs no other option.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the first texts of a batch while they are written.")
    ] = False,
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
    weights: Annotated[str | None, typer.Option(help="ema or raw.", show_default="ema, or those of the bundle")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps, cuda, ...", show_default=_DEFAULTS.device)] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the matrix products: float32 or bfloat16.", show_default=_DEFAULTS.dtype),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Sample texts, stage after stage.

    What is finished is on the disk, and --resume goes on from there.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --keywords "storm, lighthouse" --watch
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --judge gpt2
      cdllm sample --cascade bundles/stories --num-samples 16
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
      cdllm sample --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --predictor analytic --dtype bfloat16
      cdllm sample --resume out/sample_cascade_steps_256_len_128_20260301_120000
    """
    with reported_errors(debug):
        drawing = {
            "predictor": parse_names(predictor),
            "steps": parse_numbers("--steps", steps),
            "tokens_per_call": parse_numbers("--tokens-per-call", tokens_per_call),
            "eta": eta,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": seed,
            "guidance": guidance,
            "prefix_noise": prefix_noise,
            "keywords": parse_keywords(keywords),
            "outline": parse_outline(outline),
            "pin": parse_pins(pin),
            "require_coverage": require_coverage or None,
        }
        others = {
            "stage": tuple(absolute_source(path) for path in stage) if stage else None,
            "cascade": None if cascade is None else absolute_source(cascade),
            "num_samples": num_samples,
            "from_stage": from_stage,
            "input": input,
            "batch_size": batch_size,
            "output_dir": output_dir,
            "judge": None if judge is None else absolute_source(judge),
            "tokenizer": None if tokenizer is None else absolute_source(tokenizer),
            "lengths": None if lengths is None else parse_lengths(lengths),
            "weights": weights,
            "device": device,
            "dtype": dtype,
        }
        if watch:
            require_terminal()
        chosen = {name: value for name, value in drawing.items() if value is not None}
        given: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
        if resume is not None:
            _go_on(resume, {**chosen, **given}, is_judged_by_default=eval_perplexity, watch=watch)
            return
        if eval_perplexity:
            given = {"judge": absolute_source(_JUDGE)} | given
        _begin(replace(_DEFAULTS, drawing=drawing_of(chosen), **given), watch=watch)
