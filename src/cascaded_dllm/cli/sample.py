"""`cdllm sample`: texts from a cascade or a flat model, every stage on disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from cascaded_dllm.cli import sample_flags as flags
from cascaded_dllm.cli.console import console, counted, reported_errors
from cascaded_dllm.cli.load import load_cascade
from cascaded_dllm.cli.options import Bundle, Debug, Lengths, Stages, TokenizerSource, WeightsName, given, parse_lengths
from cascaded_dllm.cli.sample_drawing import drawing_of, method_options, parse_keywords, parse_pins
from cascaded_dllm.cli.sample_options import SampleOptions, options_to_go_on
from cascaded_dllm.cli.sample_run import complete_run, is_judged, judge_run
from cascaded_dllm.cli.show import require_terminal
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import require_counts
from cascaded_dllm.sample.given import read_outline
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.settings import absolute_source

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _begin(options: SampleOptions, *, is_counted: bool, watch: bool) -> None:
    """A new run: whatever can be known to go wrong is told before anything long begins.

    Args:
        options: of the command.
        is_counted: whether it was said how many texts to write.
        watch: whether texts are shown while they are written.
    """
    options.require_sound()
    cascade = _loaded(options)
    options = options.with_given_texts(cascade, is_counted=is_counted)
    cascade.require_drawable(options.drawing)
    judge = None if options.judge is None else Judge.load(options.judge)
    run = SampleRun.begin(options.output_dir, options.run_settings(cascade))
    with run.lock():
        complete_run(run, cascade, options, judge, watch=watch)


def _go_on(folder: Path, asked: Mapping[str, Any], *, is_judged_by_default: bool, watch: bool) -> None:
    """The run in `folder`, from where it was left.

    Args:
        folder: of the run.
        asked: options of the command that are not left out.
        is_judged_by_default: whether the texts are judged even if no judge was named, now or when the run was begun.
        watch: whether texts are shown while they are written.
    """
    run = SampleRun.open(folder)
    if is_judged_by_default and run.settings.judge is None:
        asked = {"judge": absolute_source(flags.DEFAULT_JUDGE)} | dict(asked)
    options = options_to_go_on(run, asked)
    require_counts(batch_size=options.batch_size)
    if run.is_complete() and is_judged(run, options):
        run.tidy()
        console.print(
            f"{folder} is complete: all of {counted(options.num_samples, 'text')} are there, and nothing is changed",
            markup=False,
            soft_wrap=True,
        )
        return
    if not run.is_complete():
        run.settings.texts.require_same_ranking()
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
        options.stage,
        bundle=options.cascade,
        lengths=options.lengths,
        tokenizer=options.tokenizer,
        weights=options.weights,
        device=options.device,
        dtype=options.dtype,
        compile=options.compile,
    )


@app.command()
def sample(
    stage: Stages = None,
    cascade: Bundle = None,
    num_samples: flags.NumSamples = None,
    seed: flags.Seed = None,
    keywords: flags.Keywords = None,
    outline: flags.Outline = None,
    from_stage: flags.FromStage = None,
    input: flags.Input = None,
    pin: flags.Pin = None,
    require_coverage: flags.RequireCoverage = False,
    guidance: flags.Guidance = None,
    predictor: flags.Predictor = None,
    steps: flags.Steps = None,
    tokens_per_call: flags.TokensPerCall = None,
    eta: flags.Eta = None,
    gaps_per_call: flags.GapsPerCall = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    prefix_noise: flags.PrefixNoise = None,
    batch_size: flags.BatchSize = None,
    output_dir: flags.OutputDir = None,
    resume: flags.Resume = None,
    watch: flags.Watch = False,
    eval_perplexity: flags.EvalPerplexity = False,
    judge: flags.Judge = None,
    tokenizer: TokenizerSource = None,
    lengths: Lengths = None,
    weights: WeightsName = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    compile: flags.Compile = None,
    debug: Debug = False,
) -> None:
    """Sample texts, stage after stage.

    What is finished is on the disk, and --resume goes on from there.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --keywords "storm, lighthouse" --watch
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --judge gpt2
      cdllm sample --cascade bundles/mine --num-samples 16
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
      cdllm sample --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --predictor analytic --dtype bfloat16
      cdllm sample --resume out/sample_cascade_steps_256_len_128_20260301_120000
    """
    with reported_errors(debug):
        chosen = method_options(
            predictor=predictor,
            steps=steps,
            tokens_per_call=tokens_per_call,
            eta=eta,
            gaps_per_call=gaps_per_call,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            guidance=guidance,
            prefix_noise=prefix_noise,
        )
        control: dict[str, Any] = {
            "keywords": parse_keywords(keywords),
            "outline": None if outline is None else read_outline(outline),
            "pin": parse_pins(pin),
            "require_coverage": require_coverage or None,
        }
        others: dict[str, Any] = {
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
            "compile": compile,
        }
        if watch:
            require_terminal()
        chosen |= given(control)
        of_run = given(others)
        if resume is not None:
            _go_on(resume, chosen | of_run, is_judged_by_default=eval_perplexity, watch=watch)
            return
        if eval_perplexity:
            of_run = {"judge": absolute_source(flags.DEFAULT_JUDGE)} | of_run
        options = replace(SampleOptions(), drawing=drawing_of(chosen), **of_run)
        _begin(options, is_counted=num_samples is not None, watch=watch)
