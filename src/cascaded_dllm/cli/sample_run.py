"""Completes one sampling run with progress on the terminal, and prints figures of its texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import typer

from cascaded_dllm.cli.console import console, counted, progress_bar, say, warn
from cascaded_dllm.cli.interrupt import stop_request
from cascaded_dllm.cli.sample_options import SampleOptions
from cascaded_dllm.cli.show import live_states, stage_lines
from cascaded_dllm.evaluate.figures import judged_figures, stage_figures
from cascaded_dllm.evaluate.generative_ppl import PPL_DEFINITIONS, Judge
from cascaded_dllm.evaluate.keywords import keyword_coverage_per_text
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.completing import draw_missing
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.samples import CascadeState

_STOPPING = "stopping after this step, with the finished batches kept; a second signal stops at once"


def complete_run(
    run: SampleRun, cascade: Cascade, options: SampleOptions, judge: Judge | None, *, watch: bool = False
) -> None:
    """Draws the missing texts, writes the files for readers, and has the texts judged.

    Ctrl-C, SIGTERM and SIGUSR1 end it after the current step; finished batches are kept.

    Raises:
        typer.Exit: it was interrupted.
    """
    _say_what_begins(run, cascade, options)
    first_stage = run.settings.texts.first_stage
    with stop_request() as request:
        with _progress(cascade, options.num_samples, watch=watch) as (move, show):
            progress = draw_missing(
                run,
                cascade,
                batch_size=options.batch_size,
                on_progress=move,
                on_state=show,
                should_stop=partial(request.is_made_and_answered, _STOPPING),
            )
        samples = run.samples()
        num_finished = progress.num_finished
        figures: dict[str, float] = {}
        if num_finished > 0:
            figures = {"num_samples": num_finished, **stage_figures(dict(enumerate(samples.ids, start=first_stage)))}
        run.conclude(samples, progress, {"batch_size": options.batch_size, "judge": None, "figures": figures})
    if num_finished < options.num_samples or (request.is_made() and judge is not None):
        kept = f"which are kept in {run.folder}" if num_finished else "none of them finished"
        warn(
            f"stopped with {num_finished} of {counted(options.num_samples, 'text')}, {kept}; "
            f"cdllm sample --resume {run.folder} goes on from there"
        )
        raise typer.Exit(request.exit_code)
    if not watch:
        first_text = [ids[0].tolist() for ids in samples.ids]
        console.print(stage_lines(cascade.tokenizer, first_text, first_stage=first_stage), soft_wrap=True, end="")
    distinct, entropy = figures.get("distinct_bigram_share"), figures["token_entropy_nats_mean"]
    bigrams = "no bigrams" if distinct is None else f"distinct bigrams {distinct:.1%}"
    console.print(f"final texts: token entropy {entropy:.3f} nats, {bigrams}")
    _say_keywords(cascade, options, samples.ids[-1].tolist())
    if judge is not None:
        # The texts are stored by now, even if the judge fails.
        judge_run(run, cascade, judge)
    say(f"{counted(num_finished, 'text')} in {run.folder}")


def _say_keywords(cascade: Cascade, options: SampleOptions, final: Sequence[Sequence[int]]) -> None:
    """Prints how many final texts contain all keywords; without --require-coverage, only stage 1 must contain them."""
    control = options.drawing.control
    if not control.keywords:
        return
    shares = keyword_coverage_per_text([cascade.tokenizer.decode_window(ids) for ids in final], control.keywords)
    # A placed stage contains the stage before in any case.
    may_lose = not control.require_coverage and any(not stage.is_placed for stage in cascade.stages[1:])
    advice = "; --require-coverage keeps what stage 1 contains" if may_lose else ""
    num_held = sum(share == 1 for share in shares)
    if num_held < len(final) and (phrase := next((word for word in control.keywords if " " in word.strip()), None)):
        advice += f"; {phrase.strip()!r} is one keyword, commas separate several"
    console.print(
        f"all keywords are words of {num_held} of {counted(len(final), 'final text')}{advice}", soft_wrap=True
    )


@contextmanager
def _progress(
    cascade: Cascade, num_samples: int, *, watch: bool
) -> Iterator[tuple[Callable[[int, int], None], Callable[[CascadeState], None]]]:
    """The callbacks for finished texts and for states; they show a bar or, with `watch`, the texts themselves."""
    if watch:
        with live_states(cascade, num_samples) as show:
            yield lambda done, total: None, show
    else:
        with progress_bar("texts of all stages", log=console) as (_, move):
            yield move, lambda state: None


def judge_run(run: SampleRun, cascade: Cascade, judge: Judge) -> None:
    """Writes the generative perplexity of the final texts under the judge to the summary, and prints it."""
    texts = [cascade.tokenizer.decode_window(ids) for ids in run.samples().ids[-1].tolist()]
    found = judged_figures(judge, texts, cascade.device)
    before = {name: value for name, value in run.summary()["figures"].items() if name not in found}
    definitions = {name: text for name, text in PPL_DEFINITIONS.items() if name in found}
    run.change_summary(judge=judge.source, figures=before | found, definitions=definitions)
    values = (found.get(f"generative_ppl_{name}") for name in ("per_sequence", "corpus"))
    per_sequence, corpus = ("none" if value is None else f"{value:.2f}" for value in values)
    say(f"generative perplexity under {judge.source}: {per_sequence} as the mean over texts, {corpus} over all tokens")


def is_judged(run: SampleRun, options: SampleOptions) -> bool:
    """Whether the summary of a complete run has the figures of the wanted judge, if one is wanted."""
    return options.judge is None or run.summary().get("judge") == options.judge


def _say_what_begins(run: SampleRun, cascade: Cascade, options: SampleOptions) -> None:
    """Prints what is drawn and where it goes, and warns if a new device or batch size can change rounding."""
    progress, device = run.progress(), str(cascade.device)
    stages = f"{counted(len(cascade.stages), 'stage')} ({', '.join(map(str, cascade.stage_lengths))} tokens)"
    predictors = ", ".join(options.drawing.predictor)
    so_far = f", of which {progress.num_finished} are there," if progress.num_finished else ""
    say(
        f"sampling {counted(options.num_samples, 'text')}{so_far} from {stages} with {predictors} on {device} "
        f"into {run.folder}"
    )
    if others := [other for other in progress.devices if other != device]:
        warn(
            f"the texts so far were drawn on {', '.join(others)}: {device} may round differently, so a text can differ "
            "from that of an uninterrupted run"
        )
    before = run.settings.batch_size
    rounds = f"in {options.dtype}" if options.dtype != "float32" else "compiled" if options.compile else None
    if progress.num_finished and rounds is not None and options.batch_size != before:
        warn(
            f"the texts so far were drawn in batches of {before}: {rounds}, a batch of {options.batch_size} may round "
            "differently, so a text can differ from that of an uninterrupted run"
        )
