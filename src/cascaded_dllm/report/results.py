"""What a study leaves behind, with types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

UNITS = ("token_forwards", "flops")
"""Of a budget."""


class Point(NamedTuple):
    """A point of a curve; `value` is None where it was not finite."""

    token_forwards: float
    value: float | None


class Piece(NamedTuple):
    """A part of a text, and the stage that wrote it."""

    text: str
    stage: int


@dataclass(frozen=True, slots=True)
class StageRun:
    """The training of one stage, or of a network that stages share.

    Attributes:
        stage: 1..K; 0 for a flat network, be it the whole arm or shared by its stages.
        folder: of the run.
        num_steps: of the optimizer.
        token_forwards: tokens that went through the network.
        flops: None where they are not known.
        seconds: of training.
        parameters: of the network; None before it is done.
        curve: loss, nats a token.
        bound_curve: the bound of this stage, nats a window.
    """

    stage: int
    folder: str
    num_steps: int
    token_forwards: float
    flops: float | None
    seconds: float
    parameters: int | None
    curve: tuple[Point, ...]
    bound_curve: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class StageBound:
    """The part of a bound that one stage pays, nats a window; `layout_nats` is what of it a layout costs."""

    stage: int
    nats: float
    standard_error: float | None
    unigram_nats: float | None
    layout_nats: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of all stages on real text: the sum, and its parts. Errors are over windows."""

    nats: float
    standard_error: float | None
    nats_per_token: float
    ppl: float | None
    omitted_nats: float
    num_windows: int
    stages: tuple[StageBound, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Texts that were drawn in one way, what they cost and what they are like.

    Attributes:
        name: of the way.
        options: of drawing.
        num_samples: texts.
        nfe: network calls a batch of texts.
        token_forwards_per_text: tokens that go through the network.
        seconds_per_text: of drawing.
        figures: by name; None where these texts have none.
        errors: standard errors of figures over texts, of those that have one; empty in results of before they were
            measured.
    """

    name: str
    options: Mapping[str, object]
    num_samples: int
    nfe: float
    token_forwards_per_text: float
    seconds_per_text: float
    figures: Mapping[str, float | None]
    errors: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class StageText:
    """What one stage wrote of a sample."""

    stage: int
    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One arm with one seed."""

    arm: str
    seed: int
    status: str
    reason: str
    description: str
    settings: Mapping[str, object]
    runs: tuple[StageRun, ...]
    bound: Bound | None
    samplings: tuple[Sampling, ...]
    texts: tuple[tuple[StageText, ...], ...]

    @property
    def shares_network(self) -> bool:
        """Whether stages share a flat network, which is trained by itself."""
        return len(self.runs) > 1 and any(run.stage == 0 for run in self.runs)


class PairedDifference(NamedTuple):
    """The bound of `arm` minus that of `other`, window by window, with one seed."""

    arm: str
    other: str
    seed: int
    nats: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """A whole study.

    Attributes:
        name: of the study.
        study: the study file with everything filled in.
        command: what was typed.
        versions: of programs by name.
        device: what it ran on.
        data: path, fingerprint and counts of the corpus.
        budget: what every arm may spend, by its unit.
        lengths: of the stages.
        truth_nats: what the law that the measured windows come from says of them, nats a window, where it is known.
        reference: figures of real text.
        reference_errors: standard errors of them over texts, of those that have one.
        definitions: of figures.
        arms: one entry for an arm and a seed.
        paired: differences window by window.
    """

    name: str
    study: Mapping[str, object]
    command: str
    versions: Mapping[str, str]
    device: str
    data: Mapping[str, object]
    budget: Mapping[str, float]
    lengths: tuple[int, ...]
    truth_nats: float | None
    reference: Mapping[str, float | None]
    reference_errors: Mapping[str, float | None]
    definitions: Mapping[str, str]
    arms: tuple[ArmRun, ...]
    paired: tuple[PairedDifference, ...]
