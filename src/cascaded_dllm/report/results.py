"""The results of a study, with types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

UNITS = ("token_forwards", "flops")
"""Units of a budget."""


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
        stage: 1..K; 0 for a flat network, which is the whole arm or shared by its stages.
        folder: run folder.
        num_steps: optimizer steps.
        token_forwards: positions that went through the network.
        flops: FLOPs of training; None if they are not known.
        seconds: time of training.
        parameters: parameters of the network; None before it is done.
        curve: loss, nats a token.
        bound_curve: bound of this stage, nats a window.
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
    """The part of a bound that comes from one stage, nats a window; `layout_nats` is the part of it for the layout."""

    stage: int
    nats: float
    standard_error: float | None
    unigram_nats: float | None
    layout_nats: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of all stages on real text, as a sum and by stages; errors are over windows."""

    nats: float
    standard_error: float | None
    nats_per_token: float
    ppl: float | None
    omitted_nats: float
    num_windows: int
    stages: tuple[StageBound, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Texts that were drawn in one way: their cost and their figures.

    Attributes:
        name: name of this way of drawing.
        options: options of drawing.
        num_samples: number of texts.
        nfe: network calls for a text, all stages together, without those of layout networks.
        token_forwards_per_text: positions that go through the networks for a text.
        seconds_per_text: time of drawing a text.
        figures: figures by name; None if these texts do not have one.
        errors: standard errors over texts, for the figures that have one; empty in older results.
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
    """The text of one stage of a sample."""

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
        """Whether stages share a flat network, which has a run of its own."""
        return len(self.runs) > 1 and any(run.stage == 0 for run in self.runs)


class PairedDifference(NamedTuple):
    """The bound of `arm` minus that of `other`, nats a window, for one seed; the error is over windows."""

    arm: str
    other: str
    seed: int
    nats: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """A whole study.

    Attributes:
        name: name of the study.
        study: the study file, with all defaults filled in.
        command: the command that ran the study.
        versions: versions of programs by name.
        device: the device that it ran on.
        data: path, fingerprint and counts of the corpus.
        budget: budget of every arm, by unit.
        lengths: stage lengths.
        truth_nats: true surprisal of the measured windows, nats a window; None if the law of the corpus is not known.
        reference: figures of real text.
        reference_errors: standard errors of these over texts, for those that have one.
        definitions: what the figures mean, by name.
        arms: one entry for each arm and seed.
        paired: differences between two arms, measured window by window.
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
