"""The content of a report, as numbers and sentences, before any of it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from cascaded_dllm.report.arms import Arm, arms_of
from cascaded_dllm.report.comparison import NEEDED_ERRORS, Ranking, listed, ranking
from cascaded_dllm.report.curves import Curve, bound_curves, joint_curves, loss_curves
from cascaded_dllm.report.results import Results
from cascaded_dllm.report.statistics import chance_beyond

_EQUAL_BUDGETS = 0.02
"""Share by which the costs of two arms may differ and still count as equal, since training ends with a whole step."""

_FEW_SEEDS = 10


@dataclass(frozen=True, slots=True)
class ReportContent:
    """The content of a report.

    Attributes:
        results: the results that it is computed from.
        arms: the arms, in the order of the study.
        ranking: the ranking of their bounds.
        notes: what a reader must know to judge the ranking.
        losses: curves of the losses of single stages, nats a token.
        bounds: curves of the bounds of single stages, nats a window.
        joint: curves of the bounds of whole arms, nats a window.
    """

    results: Results
    arms: tuple[Arm, ...]
    ranking: Ranking
    notes: tuple[str, ...]
    losses: tuple[Curve, ...]
    bounds: tuple[Curve, ...]
    joint: tuple[Curve, ...]


def report(results: Results) -> ReportContent:
    """The content of the report on the results of a study."""
    arms = arms_of(results)
    ranked = ranking(arms, results)
    return ReportContent(
        results=results,
        arms=arms,
        ranking=ranked,
        notes=(
            *_unfinished(arms),
            *_budgets(arms, results),
            *_certainty(arms),
            *_omitted(arms, ranked),
            *_truth(arms, results),
            *_numbers_of_texts(results),
        ),
        losses=loss_curves(results),
        bounds=bound_curves(results),
        joint=joint_curves(results),
    )


def _unfinished(arms: Sequence[Arm]) -> list[str]:
    """Notes on arms that are not ranked, or ranked by some of their seeds."""
    notes = []
    for arm in arms:
        if not arm.problems:
            continue
        lost = listed([f"seed {run.seed} {_WORDS[run.status]}" for run in arm.problems])
        rest = "; it is judged by its other seeds, which may flatter it" if arm.bound is not None else "; not ranked"
        notes.append(f'"{arm.name}": {lost}{rest}.')
    unmeasured = [f'"{arm.name}"' for arm in arms if arm.bound is None and not arm.problems]
    if unmeasured:
        notes.append(f"{listed(unmeasured)}: no bound was measured; not ranked.")
    return notes


_WORDS = {"diverged": "diverged", "failed": "failed", "missing": "has not been run"}


def _budgets(arms: Sequence[Arm], results: Results) -> list[str]:
    """Notes on whether the ranked arms spent the same."""
    notes = []
    for unit in results.budget:
        spent = {arm.name: _spent(arm, unit) for arm in arms if arm.bound is not None}
        amounts = [amount for amount in spent.values() if amount is not None]
        if len(amounts) < len(spent):
            notes.append(f"What every arm spent is not known in the unit of the budget, {unit}.")
        elif len(amounts) > 1:
            notes.append(_equality({name: amount for name, amount in spent.items() if amount is not None}, unit))
    return notes


def _equality(spent: dict[str, float], unit: str) -> str:
    least, most = min(spent, key=lambda name: spent[name]), max(spent, key=lambda name: spent[name])
    name = unit.replace("_", "-")
    if spent[most] <= spent[least] * (1 + _EQUAL_BUDGETS):
        return f"All ranked arms spent the same {name}, to within {_EQUAL_BUDGETS:.0%}."
    return (
        f'Budgets are not equal: "{most}" spent {spent[most]:.4g} {name} and "{least}" {spent[least]:.4g}; a '
        "lower bound may come from that."
    )


def _spent(arm: Arm, unit: str) -> float | None:
    if arm.cost is None:
        return None
    return {"token_forwards": arm.cost.token_forwards, "flops": arm.cost.flops}[unit]


def _certainty(arms: Sequence[Arm]) -> list[str]:
    """Notes on how far the errors can be trusted."""
    counts = [arm.bound.nats.num_seeds for arm in arms if arm.bound is not None]
    if not counts:
        return []
    notes = []
    if min(counts) == 1:
        notes.append(
            "Where an arm has one seed there is no spread over seeds: its errors are those of the windows alone, and "
            "whether another seed would say the same is not known."
        )
    few = min((count for count in counts if count > 1), default=_FEW_SEEDS)
    if few < _FEW_SEEDS:
        chance = chance_beyond(NEEDED_ERRORS, few)
        notes.append(
            f"With {few} seeds the spread over seeds is itself known only roughly: a difference without a cause "
            f"exceeds {NEEDED_ERRORS:g} standard errors of it with a chance of {chance:.0%}, not 5%."
        )
    if len(counts) > 2:
        notes.append(
            f"{len(counts)} arms are compared: the more there are, the likelier it is that one stands out by chance."
        )
    return notes


def _omitted(arms: Sequence[Arm], ranked: Ranking) -> list[str]:
    """Notes on differences that count, between arms that leave out different terms, and are no larger than these.

    Arms that leave out the same, such as two prefix cascades, have nearly the same terms, which cancel.
    """
    omitted = {arm.name: arm.bound.omitted_nats for arm in arms if arm.bound is not None}
    notes = []
    for pair in (*ranked.against_best, *ranked.other_pairs):
        if pair.nats is None or pair.verdict == "not seen":
            continue
        one, two = omitted[pair.arm], omitted[pair.other]
        if one != two and abs(pair.nats.mean) <= max(one, two):
            notes.append(
                f'Bounds leave out the ends of time, at most {one:.3g} nats a window of "{pair.arm}" and {two:.3g} of '
                f'"{pair.other}"; their difference may come from that.'
            )
    return notes


def _truth(arms: Sequence[Arm], results: Results) -> list[str]:
    """A note on arms whose bound lies below the true surprisal, which no model can reach."""
    truth = results.truth_nats
    below = [
        f'"{arm.name}"'
        for arm in arms
        if truth is not None
        and arm.bound is not None
        and arm.bound.nats.mean + arm.bound.omitted_nats + NEEDED_ERRORS * (arm.bound.standard_error or 0.0) < truth
    ]
    if not below:
        return []
    return [
        f"The bound of {listed(below)} lies below the true surprisal of the windows, {truth:.4g} nats a window, by "
        f"more than {NEEDED_ERRORS:g} standard errors. No model can do that on text it has not seen: do not believe it "
        "before you know why."
    ]


_DEPENDENT = ("distinct_", "self_bleu_", "mauve")
"""Beginnings of the names of figures that depend on the number of texts."""


def _numbers_of_texts(results: Results) -> list[str]:
    """A note on figures that depend on the number of texts, if they are of different numbers."""
    drawn = [sampling for run in results.arms for sampling in run.samplings]
    if not any(name.startswith(_DEPENDENT) for sampling in drawn for name in sampling.figures):
        return []
    numbers = {f'"{sampling.name}"': sampling.num_samples for sampling in drawn}
    if (real := results.reference.get("num_texts")) is not None:
        numbers["real text"] = int(real)
    if len({*numbers.values()}) == 1:
        return []
    told = listed([f"{number:,} for {name}" for name, number in numbers.items()])
    return [
        f"Distinct shares, self-BLEU and MAUVE depend on the number of texts, which is {told}: they do not compare "
        "between different numbers."
    ]
