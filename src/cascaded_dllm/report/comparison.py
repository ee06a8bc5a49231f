"""Which arm wins: differences between arms with the same seed on the same windows, and the conclusions from them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cascaded_dllm.report.arms import Arm, together
from cascaded_dllm.report.axes import measured_text
from cascaded_dllm.report.results import Bound, PairedDifference, Results
from cascaded_dllm.report.statistics import Estimate, estimate, known

NEEDED_ERRORS = 2.0
"""Standard errors that a difference must exceed to count as one."""

Verdict = Literal["lower", "higher", "not seen", "not known"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The bound of `arm` minus that of `other`, nats a window, over the seeds that both have.

    Attributes:
        arm: name of the first arm.
        other: name of the arm whose bound is subtracted.
        nats: mean difference over seeds; None if the arms have no seed in common.
        over_windows: its standard error over windows, mean over seeds; None if it is not known.
        is_paired: whether this is the error of differences window by window. Otherwise the errors of both arms are
            added as if they were independent, which overstates it.
        verdict: "lower" or "higher" if the difference exceeds `NEEDED_ERRORS` standard errors, "not seen" if it does
            not, "not known" if there is no seed in common or no error.
    """

    arm: str
    other: str
    nats: Estimate | None
    over_windows: float | None
    is_paired: bool
    verdict: Verdict

    @property
    def standard_error(self) -> float | None:
        """Both errors together, over seeds and over windows."""
        return None if self.nats is None else together(self.nats.standard_error, self.over_windows)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The arms that have a bound.

    Attributes:
        names: names of the arms, lowest mean bound first.
        against_best: comparisons of the first arm with each of the others.
        other_pairs: all other comparisons.
        sentence: says which arm wins, or that the study does not show it.
    """

    names: tuple[str, ...]
    against_best: tuple[Comparison, ...]
    other_pairs: tuple[Comparison, ...]
    sentence: str


def ranking(arms: Sequence[Arm], results: Results) -> Ranking:
    """The arms ranked by their bounds, with all pairs compared."""
    ranked = sorted((arm for arm in arms if arm.bound is not None), key=lambda arm: arm.bound.nats.mean)  # type: ignore[union-attr]
    pairs = [compare(arm, other, results.paired) for arm, other in itertools.combinations(ranked, 2)]
    against_best = tuple(pairs[: max(len(ranked) - 1, 0)])
    names = tuple(arm.name for arm in ranked)
    return Ranking(names, against_best, tuple(pairs[len(against_best) :]), _sentence(names, against_best))


def compare(arm: Arm, other: Arm, paired: Sequence[PairedDifference]) -> Comparison:
    """The difference of two arms.

    The error of one seed is that over windows. With several seeds, the error from the spread of their differences is
    added: all seeds are measured on the same windows, so the mean over seeds does not reduce the error over windows.
    """
    one, two = _bounds(arm), _bounds(other)
    measured = {(pair.arm, pair.other, pair.seed): (pair.nats, pair.standard_error) for pair in paired}
    measured |= {(pair.other, pair.arm, pair.seed): (-pair.nats, pair.standard_error) for pair in paired}
    seeds = sorted(one.keys() & two.keys())
    keys = [(arm.name, other.name, seed) for seed in seeds]
    is_paired = all(key in measured for key in keys)
    found = [measured[key] for key in keys] if is_paired else [_unpaired(one[seed], two[seed]) for seed in seeds]
    nats = estimate([difference for difference, _ in found])
    errors = known([error for _, error in found])
    over_windows = sum(errors) / len(errors) if errors else None
    error = None if nats is None else together(nats.standard_error, over_windows)
    return Comparison(arm.name, other.name, nats, over_windows, is_paired, _verdict(nats, error))


def _bounds(arm: Arm) -> dict[int, Bound]:
    return {run.seed: run.bound for run in arm.runs if run.status == "done" and run.bound is not None}


def _unpaired(one: Bound, two: Bound) -> tuple[float, float | None]:
    has_both = one.standard_error is not None and two.standard_error is not None
    return one.nats - two.nats, together(one.standard_error, two.standard_error) if has_both else None


def _verdict(nats: Estimate | None, error: float | None) -> Verdict:
    if nats is None or error is None:
        return "not known"
    if abs(nats.mean) <= NEEDED_ERRORS * error:
        return "not seen"
    return "lower" if nats.mean < 0 else "higher"


def _sentence(names: Sequence[str], against_best: Sequence[Comparison]) -> str:
    """The conclusion about the first arm."""
    if not names:
        return "No arm has a bound, so none is ranked."
    best = f'"{names[0]}"'
    if len(names) == 1:
        return f"{best} is the only arm with a bound; there is nothing to compare it with."
    beaten = [pair for pair in against_best if pair.verdict == "lower"]
    alike = [pair for pair in against_best if pair.verdict in ("not seen", "higher")]
    unknown = [pair for pair in against_best if pair.verdict == "not known"]
    if not alike and not unknown:
        return f"{best} wins: its bound is {_differences(beaten)}."
    sentences = []
    if alike:
        sentences.append(
            f"There is no difference that this study can see between {best}, whose bound is the lowest, and the next: "
            f"it is {_differences(alike)}."
        )
    if unknown:
        names_of = listed([f'"{pair.other}"' for pair in unknown])
        sentences.append(
            f"Whether the bound of {best}, the lowest, is lower than that of {names_of} cannot be said: they have no "
            "seed in common, or errors that are not known."
        )
    if beaten:
        sentences.append(f"By more than {NEEDED_ERRORS:g} standard errors it is {_differences(beaten)}.")
    return " ".join(sentences)


def _differences(pairs: Sequence[Comparison]) -> str:
    """How far the bound of the first arm lies below those of others, in words."""
    return listed(
        [
            f'{measured_text(-pair.nats.mean, pair.standard_error)} nats a window below that of "{pair.other}"'
            for pair in pairs
            if pair.nats is not None
        ]
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
