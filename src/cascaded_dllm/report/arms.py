"""The seeds of an arm taken together: its bound, stage by stage, what it cost, and its texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cascaded_dllm.report.results import ArmRun, Bound, Results, Sampling, StageBound
from cascaded_dllm.report.statistics import Estimate, TextEstimate, estimate, known, nested_estimate


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """The part of a bound that one stage pays, nats a window; `over_windows` is as in `ArmBound`."""

    stage: int
    nats: Estimate
    over_windows: float | None
    unigram: Estimate | None
    layout: Estimate | None


@dataclass(frozen=True, slots=True)
class ArmBound:
    """The bound of an arm, over the seeds that have one.

    Attributes:
        nats: a window.
        over_windows: standard error over windows, mean over seeds. All seeds are measured on the same windows, so that
            more seeds do not make it smaller.
        nats_per_token: the same, a token.
        ppl: bound on the perplexity, where every seed has one.
        omitted_nats: how far below the truth the integral may lie, at most, nats a window.
        num_windows: of one seed.
        stages: in order.
    """

    nats: Estimate
    over_windows: float | None
    nats_per_token: Estimate
    ppl: Estimate | None
    omitted_nats: float
    num_windows: int
    stages: tuple[StageEstimate, ...]

    @property
    def standard_error(self) -> float | None:
        """Both errors together, as the root of the sum of their squares; None where neither is known."""
        return together(self.nats.standard_error, self.over_windows)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the stages of an arm took together, mean over seeds that are done."""

    parameters: float | None
    num_steps: float
    token_forwards: float
    flops: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Texts drawn in one way, over the seeds that drew them.

    Attributes:
        name: of the way.
        num_samples: texts of all seeds.
        nfe: network calls a batch of texts.
        token_forwards: tokens that go through the network, a text.
        seconds: a text.
        figures: by name; None where no seed has it.
    """

    name: str
    num_samples: int
    nfe: Estimate
    token_forwards: Estimate
    seconds: Estimate
    figures: dict[str, TextEstimate | None]


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm of a study.

    Attributes:
        name: of the arm.
        description: in the words of the study.
        runs: one entry a seed.
        bound: None where no seed that is done has one.
        cost: None where no seed is done.
        qualities: one entry for a way of drawing.
    """

    name: str
    description: str
    runs: tuple[ArmRun, ...]
    bound: ArmBound | None
    cost: Cost | None
    qualities: tuple[Quality, ...]

    @property
    def problems(self) -> tuple[ArmRun, ...]:
        """The seeds that did not end as they should."""
        return tuple(run for run in self.runs if run.status != "done")


def together(*errors: float | None) -> float | None:
    """The root of the sum of the squares of those errors that are known; None where none is."""
    squares = [error**2 for error in known(errors)]
    return sum(squares) ** 0.5 if squares else None


def arms_of(results: Results) -> tuple[Arm, ...]:
    """The arms in the order in which they first stand in the results."""
    names = list(dict.fromkeys(run.arm for run in results.arms))
    return tuple(_arm(name, [run for run in results.arms if run.arm == name]) for name in names)


def _arm(name: str, runs: Sequence[ArmRun]) -> Arm:
    done = [run for run in runs if run.status == "done"]
    bounds = [run.bound for run in done if run.bound is not None]
    return Arm(
        name=name,
        description=next((run.description for run in runs if run.description), ""),
        runs=tuple(runs),
        bound=_bound(bounds) if bounds else None,
        cost=_cost(done) if done else None,
        qualities=_qualities(done),
    )


def _bound(bounds: Sequence[Bound]) -> ArmBound:
    by_stage: dict[int, list[StageBound]] = {}
    for bound in bounds:
        for stage in bound.stages:
            by_stage.setdefault(stage.stage, []).append(stage)
    return ArmBound(
        nats=_sure([bound.nats for bound in bounds]),
        over_windows=_mean(known([bound.standard_error for bound in bounds])),
        nats_per_token=_sure([bound.nats_per_token for bound in bounds]),
        ppl=_of_all([bound.ppl for bound in bounds]),
        omitted_nats=max(bound.omitted_nats for bound in bounds),
        num_windows=min(bound.num_windows for bound in bounds),
        stages=tuple(_stage(number, by_stage[number]) for number in sorted(by_stage)),
    )


def _stage(number: int, stages: Sequence[StageBound]) -> StageEstimate:
    return StageEstimate(
        stage=number,
        nats=_sure([stage.nats for stage in stages]),
        over_windows=_mean(known([stage.standard_error for stage in stages])),
        unigram=_of_all([stage.unigram_nats for stage in stages]),
        layout=_of_all([stage.layout_nats for stage in stages]),
    )


def _cost(runs: Sequence[ArmRun]) -> Cost:
    count = len(runs)
    parameters = [None if (n := stage.parameters) is None else float(n) for run in runs for stage in run.runs]
    flops = [stage.flops for run in runs for stage in run.runs]
    return Cost(
        parameters=None if None in parameters else sum(known(parameters)) / count,
        num_steps=sum(stage.num_steps for run in runs for stage in run.runs) / count,
        token_forwards=sum(stage.token_forwards for run in runs for stage in run.runs) / count,
        flops=None if None in flops else sum(known(flops)) / count,
        seconds=sum(stage.seconds for run in runs for stage in run.runs) / count,
    )


def _qualities(runs: Sequence[ArmRun]) -> tuple[Quality, ...]:
    by_name: dict[str, list[Sampling]] = {}
    for run in runs:
        for sampling in run.samplings:
            by_name.setdefault(sampling.name, []).append(sampling)
    return tuple(_quality(name, samplings) for name, samplings in by_name.items())


def _quality(name: str, samplings: Sequence[Sampling]) -> Quality:
    def over_seeds(value: Callable[[Sampling], float]) -> Estimate:
        return _sure([value(sampling) for sampling in samplings])

    figures = dict.fromkeys(figure for sampling in samplings for figure in sampling.figures)
    return Quality(
        name=name,
        num_samples=sum(sampling.num_samples for sampling in samplings),
        nfe=over_seeds(lambda sampling: sampling.nfe),
        token_forwards=over_seeds(lambda sampling: sampling.token_forwards_per_text),
        seconds=over_seeds(lambda sampling: sampling.seconds_per_text),
        figures={figure: _figure(figure, samplings) for figure in figures},
    )


def _figure(name: str, samplings: Sequence[Sampling]) -> TextEstimate | None:
    """A figure of texts over the seeds that have it, with both kinds of scatter."""
    found = [(value, s.errors.get(name)) for s in samplings if (value := s.figures.get(name)) is not None]
    return nested_estimate([value for value, _ in found], [error for _, error in found])


def _sure(values: Sequence[float]) -> Estimate:
    """The estimate of values of which there is at least one."""
    found = estimate(values)
    assert found is not None
    return found


def _of_all(values: Sequence[float | None]) -> Estimate | None:
    """The estimate where every seed has a value; the mean of some of them would be one of other seeds."""
    return None if None in values else estimate(known(values))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
