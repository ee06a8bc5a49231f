"""`cdllm sample`: samples texts from a cascade or a flat model, and writes every stage to disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.cli import sample_flags as flags
from cascaded_dllm.cli.console import counted, reported_errors, say
from cascaded_dllm.cli.load import load_cascade
from cascaded_dllm.cli.options import Bundle, Debug, Lengths, Stages, TokenizerSource, WeightsName
from cascaded_dllm.cli.sample_drawing import drawing_of, read_options
from cascaded_dllm.cli.sample_options import SampleOptions, options_to_go_on
from cascaded_dllm.cli.sample_run import complete_run, is_judged, judge_run
from cascaded_dllm.cli.show import require_terminal
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.settings import absolute_source

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

NOT_SETTINGS = ("resume", "watch", "eval_perplexity", "debug")
"""Parameters of the command that are not settings of the run."""


def _begin(asked: Mapping[str, Any], *, default_judge: str | None, watch: bool) -> None:
    """Begins a new run and completes it; everything that can be checked is checked before anything slow begins.

    Args:
        asked: the options that were given.
        default_judge: judge of the texts if none was named; None for no judge.
        watch: whether texts are shown while they are written.
    """
    options = SampleOptions.of({"judge": default_judge, **asked, "drawing": drawing_of(asked)})
    options.require_sound()
    cascade = _loaded(options)
    options = options.with_given_texts(cascade, is_counted="num_samples" in asked)
    cascade.require_drawable(options.drawing)
    judge = None if options.judge is None else Judge.load(options.judge)
    run = SampleRun.begin(options.output_dir, options.run_settings(cascade))
    with run.lock():
        complete_run(run, cascade, options, judge, watch=watch)


def _go_on(folder: Path, asked: Mapping[str, Any], *, default_judge: str | None, watch: bool) -> None:
    """Resumes the run in `folder` and completes it.

    Args:
        folder: folder of the run.
        asked: the options that were given.
        default_judge: judge of the texts if none was named, now or when the run began; None for no judge.
        watch: whether texts are shown while they are written.
    """
    run = SampleRun.open(folder)
    options = options_to_go_on(run, asked)
    options = replace(options, judge=options.judge or default_judge)
    require_at_least("batch_size", options.batch_size, 1)
    if run.is_complete() and is_judged(run, options):
        run.tidy()
        say(f"{folder} is complete: all of {counted(options.num_samples, 'text')} are there, and nothing is changed")
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
    require_coverage: flags.RequireCoverage = None,
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
    """Sample texts from a cascade or a flat model, stage after stage.

    Finished batches are on the disk at once; --resume completes an interrupted run.

    Examples:

      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --num-samples 16
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --keywords "storm, lighthouse" --watch
      cdllm sample --stage runs/stage1 --stage runs/stage2 --stage runs/stage3 --judge gpt2
      cdllm sample --cascade bundles/mine --num-samples 16
      cdllm sample --stage runs/flat --predictor analytic --steps 256 --seed 7 --output-dir out
      cdllm sample --stage louaaron/sedd-small --lengths 1024 --tokenizer gpt2 --predictor analytic --dtype bfloat16
      cdllm sample --resume out/sample_cascade_steps_256_len_128_20260301_120000
    """
    # All parameters of this function, by name.
    typed = locals()
    with reported_errors(debug):
        asked = read_options({name: typed[name] for name in typed if name not in NOT_SETTINGS})
        default_judge = absolute_source(flags.DEFAULT_JUDGE) if eval_perplexity else None
        if watch:
            require_terminal()
        if resume is not None:
            _go_on(resume, asked, default_judge=default_judge, watch=watch)
        else:
            _begin(asked, default_judge=default_judge, watch=watch)
