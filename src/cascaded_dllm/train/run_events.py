"""What happens in a run, as it is told to whoever drives it."""

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
        standard_error: of that mean over windows; None for a single window.
        omitted_nats_per_token_at_most: how far below the truth that of an ideal model may lie, for what is left out.
        num_windows: windows it was measured on, always the same, at the same times with the same noise.
        num_windows_in_set: all that there are.
        num_windows_dropped: of the same text, but not in the set: they have too few different tokens for the stages.
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
    """A checkpoint is being written, and is there when the run ends; `samples` is the file of the texts drawn with it
    and `report` its content, or None.
    """

    step: int
    checkpoint: Path
    samples: Path | None
    report: SnapshotReport | None = None


@dataclass(frozen=True, slots=True)
class NotDeleted:
    """An old checkpoint is still there, and `fault` says why; told once, and tried again with every new one."""

    step: int
    fault: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ends unfinished since it was asked to.

    Attributes:
        step: optimizer steps done.
        checkpoint: where they are kept when the run ends; None if there was no step yet, and nothing to keep.
        left_out: what is due at this step and was left: "bound", "samples". The next start makes up for it.
    """

    step: int
    checkpoint: Path | None
    left_out: tuple[str, ...]


Event = Resumed | StepResult | Evaluation | Snapshot | NotDeleted | Stopped
