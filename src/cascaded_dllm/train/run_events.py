"""The events of a run, as its generator yields them."""

from dataclasses import dataclass
from pathlib import Path

from cascaded_dllm.train.snapshot import SnapshotReport
from cascaded_dllm.train.trainer import StepResult


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run goes on from a checkpoint; `faults` says what was wrong with newer ones, which were passed over."""

    step: int
    faults: list[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The bound of the averaged weights on the validation windows.

    Attributes:
        step: optimizer steps done.
        bound_nats_per_token: upper bound on -log p(target | prefix), nats per target token.
        standard_error: standard error of this mean over windows; None for a single window.
        omitted_nats_per_token_at_most: how far below the truth the bound of an ideal model may lie, because of what the
            bound leaves out.
        num_windows: windows on which it was measured: always the same ones, at the same times, with the same noise.
        num_windows_in_set: all windows of the validation set.
        num_windows_dropped: windows of the same text that are not in the set, because they have too few different
            tokens for the stages.
    """

    step: int
    bound_nats_per_token: float
    standard_error: float | None
    omitted_nats_per_token_at_most: float
    num_windows: int
    num_windows_in_set: int
    num_windows_dropped: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint is being written, and will be complete when the run ends.

    Attributes:
        step: optimizer steps done.
        checkpoint: its folder.
        samples: file of the texts that were drawn with it, or None.
        report: content of that file, or None.
    """

    step: int
    checkpoint: Path
    samples: Path | None
    report: SnapshotReport | None = None


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """An old checkpoint cannot be deleted, and `fault` says why; yielded once, though every checkpoint tries again."""

    step: int
    fault: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ends unfinished because it was asked to stop.

    Attributes:
        step: optimizer steps done.
        checkpoint: the folder that holds them when the run ends; None if no step was done.
        left_out: what was due at this step and was left out: "bound", "samples". The next start makes up for it.
    """

    step: int
    checkpoint: Path | None
    left_out: tuple[str, ...]


Event = Resumed | StepResult | Evaluation | Snapshot | NotDeleted | Stopped
