"""The seeds of an arm taken together: its bound by stages, its cost, and the quality of its texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cascaded_dllm.report.results import ArmRun, Bound, Results, Sampling, StageBound
from cascaded_dllm.report.statistics import Estimate, TextEstimate, estimate, known, nested_estimate


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """The part of a bound that comes from one stage, nats a window; `over_windows` is as in `ArmBound`."""

    stage: int
    nats: Estimate
    over_windows: float | None
    unigram: Estimate | None
    layout: Estimate | None


@dataclass(frozen=True, slots=True)
class ArmBound:
    """The bound of an arm, over the seeds that have one.

    Attributes:
        nats: the bound, nats a window.
        over_windows: standard error over windows, mean over seeds. All seeds are measured on the same windows, so more
            seeds do not make it smaller.
        nats_per_token: the bound, nats a token.
        ppl: bound on the perplexity; None if a seed has none.
        omitted_nats: how far below the true bound the integral may lie at most, nats a window.
        num_windows: windows that every seed was measured on, at least.
        stages: the parts of the stages, in order.
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
        """Both errors together, as the root of the sum of their squares; None if neither is known."""
        return together(self.nats.standard_error, self.over_windows)


@dataclass(frozen=True, slots=True)
class Cost:
    """The training cost of all stages of an arm together, mean over the seeds that are done."""

    parameters: float | None
    num_steps: float
    token_forwards: float
    flops: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Texts drawn in one way, over the seeds that drew them.

    Attributes:
        name: name of this way of drawing.
        num_samples: texts of all seeds.
        nfe: network calls for a text, all stages together, without those of layout networks.
        token_forwards: positions that go through the networks for a text.
        seconds: seconds for a text.
        figures: figures by name; None if no seed has one.
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
        name: name of the arm.
        description: the study's description of it.
        runs: one entry for each seed.
        bound: bound over the seeds; None if no seed that is done has one.
        cost: cost of training; None if no seed is done.
        qualities: one entry for each way of drawing.
    """

    name: str
    description: str
    runs: tuple[ArmRun, ...]
    bound: ArmBound | None
    cost: Cost | None
    qualities: tuple[Quality, ...]

    @property
    def problems(self) -> tuple[ArmRun, ...]:
        """The seeds that are not done."""
        return tuple(run for run in self.runs if run.status != "done")


def together(*errors: float | None) -> float | None:
    """The root of the sum of the squares of the errors that are known; None if none is."""
    squares = [error**2 for error in known(errors)]
    return sum(squares) ** 0.5 if squares else None


def arms_of(results: Results) -> tuple[Arm, ...]:
    """The arms, in the order of their first entries in the results."""
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
    """The estimate if every seed has a value, else None: a mean of some seeds is not comparable with one of all."""
    return None if None in values else estimate(known(values))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
