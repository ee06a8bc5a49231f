"""What is asked of a sampling run: the options of a new one, and of one that is to go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.cli.sample_drawing import options_of, values_of
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import choose_device, choose_dtype
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.given import read_given
from cascaded_dllm.sample.output import SampleRun, require_writable
from cascaded_dllm.sample.settings import RunSettings, SampleSettings

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
    def of(cls, values: Mapping[str, Any]) -> "SampleOptions":
        """Those of these values that have the name of one; the others are as by default."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})

    @classmethod
    def of_run(cls, run: SampleRun) -> "SampleOptions":
        """The options that a run was begun with."""
        texts = run.settings.texts
        given = texts.drawing.control.given
        own = {
            "stage": texts.stage_paths if texts.cascade is None else (),
            "from_stage": None if given is None else given.stage,
            "output_dir": run.folder.resolve().parent,
        }
        return cls.of(values_of(run.settings, texts) | own)

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
        require_at_least("num_samples", self.num_samples, 1)
        require_at_least("batch_size", self.batch_size, 1)
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
    before_of = options_of(stored.drawing) | values_of(stored)
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
