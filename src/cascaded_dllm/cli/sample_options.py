"""The options of a sampling run: of a new one, and of one that is resumed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cascaded_dllm.checks import require_at_least
from cascaded_dllm.cli.sample_drawing import options_of, values_of
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.devices import choose_device, choose_dtype
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Pin
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.given import read_given
from cascaded_dllm.sample.output import SampleRun, require_writable
from cascaded_dllm.sample.settings import RunSettings, SampleSettings

_FREE = ("batch_size", "device", "judge")
"""Options that may change when a run is resumed: they change texts at most by rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """The options of `cdllm sample` with their defaults.

    Attributes:
        stage: paths (absolute) or hub ids of the stages; empty for a bundle.
        cascade: bundle of all stages, or None.
        num_samples: number of texts.
        drawing: how the texts are drawn.
        from_stage: stage whose texts are given, or None.
        input: file or run with the given texts, or None.
        batch_size: texts drawn together.
        output_dir: folder in which a new run gets its own.
        judge: causal language model that judges the final texts, or None.
        tokenizer: where the tokenizer is, or None for that of the checkpoints.
        lengths: stage lengths, or None for those of the checkpoints.
        weights: ema or raw; None for those of the bundle, or ema.
        device: name of the device.
        dtype: precision of the matrix products.
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
        """Options from those values that are named after one; the other options have their defaults."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})

    @classmethod
    def of_run(cls, run: SampleRun) -> "SampleOptions":
        """The options that a run began with."""
        texts = run.settings.texts
        given = texts.drawing.control.given
        own = {
            "stage": texts.stage_paths if texts.cascade is None else (),
            "from_stage": None if given is None else given.stage,
            "output_dir": run.folder.resolve().parent,
        }
        return cls.of(values_of(run.settings, texts) | own)

    def with_given_texts(self, cascade: Cascade, *, is_counted: bool) -> "SampleOptions":
        """The options with the texts of `input` read in, if there are any.

        Args:
            cascade: cascade that continues these texts.
            is_counted: whether `num_samples` was given; if not, one text is written for each given one.

        Raises:
            ConfigError: the texts are missing or do not fit.
            DataError: they cannot be read.
        """
        if self.input is None or self.from_stage is None:
            return self
        given = read_given(self.input, self.from_stage, cascade.tokenizer)
        control = replace(self.drawing.control, given=given)
        num_samples = self.num_samples if is_counted else len(given.ids)
        return replace(self, num_samples=num_samples, drawing=replace(self.drawing, control=control))

    def require_sound(self) -> None:
        """Checks everything that can be checked before a checkpoint is read.

        Raises:
            ConfigError: a value is out of range, options contradict each other, or there is no such device.
            OutputError: the output folder cannot be written.
        """
        require_at_least("num_samples", self.num_samples, 1)
        require_at_least("batch_size", self.batch_size, 1)
        self.drawing.require_sound()
        if (self.from_stage is None) != (self.input is None):
            missing = "--input" if self.input is None else "--from-stage"
            raise ConfigError(f"{missing} is missing; --from-stage names the stage whose texts --input contains")
        if self.input is not None and self.drawing.control.keywords:
            raise ConfigError("--input is given with --keywords, and a text starts from only one of them; choose one")
        if self.input is not None and not self.input.exists():
            raise ConfigError(f"--input is {self.input}, which does not exist; name a sampling run or a text file")
        choose_dtype(self.dtype)
        choose_device(self.device)
        require_writable(self.output_dir)

    def run_settings(self, cascade: Cascade) -> RunSettings:
        """The settings that a run with these options stores."""
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
    """The options of a resumed run: its own, and from `given` those that may change.

    Raises:
        ConfigError: a given option contradicts the run.
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
    """The value of an option that a run keeps, with the reason."""
    match name:
        case "input":
            return "texts that it stores itself"
        case "num_samples":
            return f"{value}; in a new folder the texts of the same numbers are the same"
        case _:
            return f"{_shown(value)}; all its texts are drawn alike"


def _shown(value: Any) -> str:
    """A value as the user types it; "none" for a missing one."""
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, Pin):
        return f"{value.stage}:{value.position}:{value.text}"
    return "none" if value is None else str(value)
