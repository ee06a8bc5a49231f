"""One sampling run on the terminal: what is asked of it, drawing what is missing, and what is said of the texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import typer

from cascaded_dllm.cli.console import console, counted, error_console, progress_bar
from cascaded_dllm.cli.interrupt import StopRequest, stop_request
from cascaded_dllm.cli.sample_drawing import options_of
from cascaded_dllm.cli.show import live_states, stage_lines
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.figures import judged_figures, stage_figures
from cascaded_dllm.evaluate.generative_ppl import PPL_DEFINITIONS, Judge
from cascaded_dllm.evaluate.keywords import keyword_coverage_per_text
from cascaded_dllm.model.devices import choose_device, choose_dtype
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing, require_counts
from cascaded_dllm.sample.given import read_given
from cascaded_dllm.sample.output import SampleRun, require_writable
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.sample.settings import RunSettings, SampleSettings
from cascaded_dllm.sample.streaming import draw_missing

_FREE = ("batch_size", "device", "judge")
"""What may change when a run goes on, since no text depends on it but by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """What the command is told, and what it takes by itself.

    Attributes:
        stage: where each stage is, absolute where it is a path; none for a bundle.
        cascade: bundle that holds all stages, or None.
        num_samples: how many texts.
        drawing: how they are drawn.
        from_stage: stage whose texts are given, or None.
        input: file or run that holds them, or None.
        batch_size: texts drawn together.
        output_dir: where the folder of a new run goes.
        judge: who is asked about the final texts, or None.
        tokenizer: where it is, or None.
        lengths: of the stages, or None.
        weights: ema or raw; None for those of the bundle, or ema.
        device: as it is named.
        dtype: of the matrix products.
        compile: whether the blocks go through torch.compile.
    """

    stage: tuple[str, ...] = ()
    cascade: str | None = None
    num_samples: int = 8
    drawing: Drawing = field(default_factory=Drawing)
    from_stage: int | None = None
    input: Path | None = None
    batch_size: int = 32
    output_dir: Path = Path("sampling_outputs")
    judge: str | None = None
    tokenizer: str | None = None
    lengths: tuple[int, ...] | None = None
    weights: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    compile: bool = False

    @classmethod
    def of_run(cls, run: SampleRun) -> "SampleOptions":
        """The options that a run was begun with."""
        stored = run.settings
        texts = stored.texts
        given = texts.drawing.control.given
        return cls(
            stage=texts.stage_paths if texts.cascade is None else (),
            cascade=texts.cascade,
            num_samples=stored.num_samples,
            drawing=texts.drawing,
            from_stage=None if given is None else given.stage,
            batch_size=stored.batch_size,
            output_dir=run.folder.resolve().parent,
            judge=stored.judge,
            tokenizer=texts.tokenizer,
            lengths=texts.lengths,
            weights=texts.weights,
            device=stored.device,
            dtype=texts.dtype,
            compile=texts.compile,
        )

    def with_given_texts(self, cascade: Cascade, *, is_counted: bool) -> "SampleOptions":
        """The same with the texts that are to be gone on from read in.

        Args:
            cascade: that goes on.
            is_counted: whether it was said how many texts to write; if not, one is written for every given one.

        Raises:
            ConfigError: they are not there, or do not fit.
            DataError: they cannot be read.
        """
        if self.input is None or self.from_stage is None:
            return self
        given = read_given(self.input, self.from_stage, cascade.tokenizer)
        control = replace(self.drawing.control, given=given)
        num_samples = self.num_samples if is_counted else len(given.ids)
        return replace(self, num_samples=num_samples, drawing=replace(self.drawing, control=control))

    def require_sound(self) -> None:
        """Checks all that can be told before a checkpoint is read.

        Raises:
            ConfigError: a value is out of range, or there is no such device.
            OutputExistsError: the output folder cannot be written.
        """
        require_counts(num_samples=self.num_samples, batch_size=self.batch_size)
        self.drawing.require_sound()
        if (self.from_stage is None) != (self.input is None):
            missing = "--input" if self.input is None else "--from-stage"
            raise ConfigError(f"{missing} is missing; --from-stage names the stage whose texts --input holds")
        control = self.drawing.control
        if self.input is not None and (control.keywords or control.outline is not None):
            raise ConfigError("--input is given with --keywords or --outline; a text begins with one of them, choose")
        if self.input is not None and not self.input.exists():
            raise ConfigError(f"--input is {self.input}, which does not exist; name a sampling run or a text file")
        choose_dtype(self.dtype)
        choose_device(self.device)
        require_writable(self.output_dir)

    def run_settings(self, cascade: Cascade) -> RunSettings:
        """What is stored of a run of these options."""
        texts = SampleSettings.of(
            cascade,
            self.drawing,
            self.stage,
            lengths=self.lengths,
            tokenizer=self.tokenizer,
            dtype=self.dtype,
            compile=self.compile,
            cascade_source=self.cascade,
        )
        return RunSettings(
            num_samples=self.num_samples,
            batch_size=self.batch_size,
            device=self.device,
            judge=self.judge,
            texts=texts,
        )


def options_to_go_on(run: SampleRun, given: Mapping[str, Any]) -> SampleOptions:
    """What a run goes on with: its own options, and of those that are `given` the ones that are free.

    Raises:
        ConfigError: a given one contradicts the run's.
    """
    stored = SampleOptions.of_run(run)
    before_of = {**options_of(stored.drawing), **{known.name: getattr(stored, known.name) for known in fields(stored)}}
    for name, now in given.items():
        before = before_of[name]
        is_same = now.resolve() == before if isinstance(now, Path) else now == before
        if name not in _FREE and not is_same:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{flag} is {_shown(now)}, and the run in {run.folder} was begun with {_began_with(name, before)}: "
                f"leave {flag} out, or sample into a new folder without --resume"
            )
    return replace(stored, **{name: given[name] for name in _FREE if name in given})


def _began_with(name: str, value: Any) -> str:
    """The value of an option that a run keeps, and why it does."""
    match name:
        case "input":
            return "texts that it holds itself"
        case "num_samples":
            return f"{value}; in a new folder the texts of the same numbers are the same"
        case _:
            return f"{_shown(value)}; all its texts are drawn alike"


def _shown(value: Any) -> str:
    """A value as an option gives it; none where there is no option."""
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value is None else str(value)


def complete_run(
    run: SampleRun, cascade: Cascade, options: SampleOptions, judge: Judge | None, *, watch: bool = False
) -> None:
    """Draw the texts that are missing, write the files for readers, and have the texts judged.

    Ctrl-C, SIGTERM and SIGUSR1 end it after the current step; the batches before it are kept.

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
                options.drawing,
                batch_size=options.batch_size,
                on_progress=move,
                on_state=show,
                should_stop=_that_tells(request),
            )
        samples = run.samples()
        num_finished = progress.num_finished
        figures: dict[str, float] = {}
        if num_finished > 0:
            figures = {"num_samples": num_finished, **stage_figures(dict(enumerate(samples.ids, start=first_stage)))}
        run.conclude(samples, progress, {"batch_size": options.batch_size, "judge": None, "figures": figures})
    if num_finished < options.num_samples or (request.is_made() and judge is not None):
        error_console.print(
            f"stopped with {num_finished} of {counted(options.num_samples, 'text')}, which are kept in {run.folder}; "
            f"cdllm sample --resume {run.folder} goes on from there",
            markup=False,
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
        # The texts are kept by now, whatever becomes of their judge.
        judge_run(run, cascade, judge)
    console.print(f"{counted(num_finished, 'text')} in {run.folder}", markup=False, soft_wrap=True)


def _say_keywords(cascade: Cascade, options: SampleOptions, final: Sequence[Sequence[int]]) -> None:
    """How many final texts hold all keywords, which only stage 1 is held to unless coverage is required."""
    control = options.drawing.control
    if not control.keywords:
        return
    shares = keyword_coverage_per_text([cascade.tokenizer.decode_window(ids) for ids in final], control.keywords)
    advice = "" if control.require_coverage else "; --require-coverage keeps what stage 1 holds"
    num_held = sum(share == 1 for share in shares)
    console.print(
        f"all keywords are words of {num_held} of {counted(len(final), 'final text')}{advice}", soft_wrap=True
    )


@contextmanager
def _progress(
    cascade: Cascade, num_samples: int, *, watch: bool
) -> Iterator[tuple[Callable[[int, int], None], Callable[[CascadeState], None]]]:
    """What is told of texts done and of every state: a bar, or the texts themselves."""
    if watch:
        with live_states(cascade, num_samples) as show:
            yield lambda done, total: None, show
    else:
        with progress_bar("texts of all stages") as (_, move):
            yield move, lambda state: None


def judge_run(run: SampleRun, cascade: Cascade, judge: Judge) -> None:
    """Put into the summary how probable the final texts are to the judge; shown as well."""
    texts = [cascade.tokenizer.decode_window(ids) for ids in run.samples().ids[-1].tolist()]
    found = judged_figures(judge, texts, cascade.device)
    before = {name: value for name, value in run.summary()["figures"].items() if name not in found}
    definitions = {name: text for name, text in PPL_DEFINITIONS.items() if name in found}
    run.change_summary(judge=judge.source, figures=before | found, definitions=definitions)
    values = (found.get(f"generative_ppl_{name}") for name in ("per_sequence", "corpus"))
    per_sequence, corpus = ("none" if value is None else f"{value:.2f}" for value in values)
    console.print(
        f"generative perplexity under {judge.source}: {per_sequence} as the mean over texts, {corpus} over all tokens",
        markup=False,
        soft_wrap=True,
    )


def is_judged(run: SampleRun, options: SampleOptions) -> bool:
    """Whether the summary of a complete run says all that the judge was to be asked."""
    return options.judge is None or run.summary().get("judge") == options.judge


def _say_what_begins(run: SampleRun, cascade: Cascade, options: SampleOptions) -> None:
    """What is drawn and where it goes; and what a change of device means."""
    progress, device = run.progress(), str(cascade.device)
    stages = f"{counted(len(cascade.stages), 'stage')} ({', '.join(map(str, cascade.stage_lengths))} tokens)"
    predictors = ", ".join(options.drawing.predictor)
    so_far = f", of which {progress.num_finished} are there," if progress.num_finished else ""
    console.print(
        f"sampling {counted(options.num_samples, 'text')}{so_far} from {stages} with {predictors} on {device} "
        f"into {run.folder}",
        markup=False,
        soft_wrap=True,
    )
    if others := [other for other in progress.devices if other != device]:
        error_console.print(
            f"the texts so far were drawn on {', '.join(others)}: {device} may round otherwise, so that a text can "
            "differ from that of an unbroken run",
            markup=False,
        )
    before = run.settings.batch_size
    rounds = f"in {options.dtype}" if options.dtype != "float32" else "compiled" if options.compile else None
    if progress.num_finished and rounds is not None and options.batch_size != before:
        error_console.print(
            f"the texts so far were drawn in batches of {before}: {rounds} one of {options.batch_size} may "
            "round otherwise, so that a text can differ from that of an unbroken run",
            markup=False,
        )


def _that_tells(request: StopRequest) -> Callable[[], bool]:
    """Whether to stop; the first time so, it is said that the wish was heard."""
    told: list[bool] = []

    def should_stop() -> bool:
        if request.is_made() and not told:
            told.append(True)
            error_console.print("stopping after this step, and keeping the batches before; told again, at once")
        return request.is_made()

    return should_stop
