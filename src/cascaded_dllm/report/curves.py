"""Curves of training: those of single stages, and the bound of all stages together."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from cascaded_dllm.report.results import ArmRun, Point, Results, StageRun


@dataclass(frozen=True, slots=True)
class Curve:
    """A line against token-forwards.

    Attributes:
        arm: name of the arm.
        seed: its seed.
        stage: 1..K; 0 for all stages together, or for a flat network.
        points: pairs of token-forwards and a finite value.
        num_not_finite: number of points that were left out because they were not finite.
    """

    arm: str
    seed: int
    stage: int
    points: tuple[tuple[float, float], ...]
    num_not_finite: int = 0


def loss_curves(results: Results) -> tuple[Curve, ...]:
    """The losses of every stage, nats a token."""
    return tuple(_curve(run, stage, stage.curve) for run in results.arms for stage in run.runs if stage.curve)


def bound_curves(results: Results) -> tuple[Curve, ...]:
    """The bounds of every stage, nats a window."""
    return tuple(
        _curve(run, stage, stage.bound_curve) for run in results.arms for stage in run.runs if stage.bound_curve
    )


def joint_curves(results: Results) -> tuple[Curve, ...]:
    """The bound of all stages, nats a window.

    Only for arms and seeds that are done, whose runs all have a curve, and whose stages do not share a network.

    Stages are trained separately. A point is the sum over stages of bounds and of token-forwards, each at the same
    share of its own training. Between two measurements of a stage, its bound is interpolated linearly.
    """
    found = []
    for run in results.arms:
        curves = [_curve(run, stage, stage.bound_curve) for stage in run.runs]
        if run.status == "done" and curves and all(curve.points for curve in curves) and not run.shares_network:
            left_out = sum(curve.num_not_finite for curve in curves)
            found.append(Curve(run.arm, run.seed, 0, _summed([curve.points for curve in curves]), left_out))
    return tuple(found)


def _curve(run: ArmRun, stage: StageRun, points: Sequence[Point]) -> Curve:
    finite = sorted((point.token_forwards, point.value) for point in points if point.value is not None)
    return Curve(run.arm, run.seed, stage.stage, tuple(finite), len(points) - len(finite))


def _summed(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[tuple[float, float], ...]:
    """The sum of curves at each share of training at which one of them has a point and all of them have begun."""
    ends = [points[-1][0] or 1.0 for points in curves]
    shares = {place / end for points, end in zip(curves, ends, strict=True) for place, _ in points}
    begin = max(points[0][0] / end for points, end in zip(curves, ends, strict=True))
    return tuple(
        (
            sum(share * end for end in ends),
            sum(value_at(points, share * end) for points, end in zip(curves, ends, strict=True)),
        )
        for share in sorted(share for share in shares if share >= begin)
    )


def value_at(points: Sequence[tuple[float, float]], place: float) -> float:
    """The value at `place`, interpolated linearly between `points`; outside them, that of the nearest end."""
    places = [point[0] for point in points]
    after = bisect.bisect_left(places, place)
    if after == len(points):
        return points[-1][1]
    if after == 0:
        return points[0][1]
    (one, low), (two, high) = points[after - 1], points[after]
    return low + (high - low) * (place - one) / (two - one)
