"""The report as JSON: the numbers of its tables and curves, under names that include their units."""

from collections.abc import Sequence

from cascaded_dllm.report.arms import Arm, ArmBound, Quality
from cascaded_dllm.report.comparison import NEEDED_ERRORS, Comparison
from cascaded_dllm.report.content import ReportContent
from cascaded_dllm.report.curves import Curve
from cascaded_dllm.report.statistics import Estimate, TextEstimate

FORMAT = "cascaded-dllm-report/1"


def summary(content: ReportContent) -> dict[str, object]:
    """The content of `report.json`."""
    results, ranking = content.results, content.ranking
    return {
        "format": FORMAT,
        "name": results.name,
        "verdict": ranking.sentence,
        "needed_standard_errors": NEEDED_ERRORS,
        "notes": list(content.notes),
        "ranking": list(ranking.names),
        "comparisons": [_comparison(pair) for pair in (*ranking.against_best, *ranking.other_pairs)],
        "truth_nats_per_window": results.truth_nats,
        "arms": [_arm(arm) for arm in content.arms],
        "reference_figures": dict(results.reference),
        "reference_standard_errors": dict(results.reference_errors),
        "definitions": dict(results.definitions),
        "curves": {
            "loss_nats_per_token": _curves(content.losses),
            "bound_nats_per_window": _curves(content.bounds),
            "bound_of_all_stages_nats_per_window": _curves(content.joint),
        },
        "repeat": {
            "command": results.command,
            "study": dict(results.study),
            "versions": dict(results.versions),
            "device": results.device,
            "data": dict(results.data),
            "budget": dict(results.budget),
            "lengths": list(results.lengths),
            "settings": {arm.name: dict(arm.runs[0].settings) for arm in content.arms},
        },
    }


def _arm(arm: Arm) -> dict[str, object]:
    cost = arm.cost
    return {
        "arm": arm.name,
        "description": arm.description,
        "seeds": [{"seed": run.seed, "status": run.status, "reason": run.reason or None} for run in arm.runs],
        "bound": None if arm.bound is None else _bound(arm.bound),
        "cost": None
        if cost is None
        else {
            "parameters": cost.parameters,
            "num_steps": cost.num_steps,
            "token_forwards": cost.token_forwards,
            "flops": cost.flops,
            "seconds": cost.seconds,
        },
        "sampling": [_quality(quality) for quality in arm.qualities],
    }


def _bound(bound: ArmBound) -> dict[str, object]:
    return {
        "nats_per_window": _estimate(bound.nats),
        "standard_error_over_windows_nats": bound.over_windows,
        "nats_per_token": _estimate(bound.nats_per_token),
        "ppl": _estimate(bound.ppl),
        "omitted_nats_per_window_at_most": bound.omitted_nats,
        "num_windows": bound.num_windows,
        "stages": [
            {
                "stage": stage.stage,
                "nats_per_window": _estimate(stage.nats),
                "standard_error_over_windows_nats": stage.over_windows,
                "unigram_nats_per_window": _estimate(stage.unigram),
                "layout_nats_per_window": _estimate(stage.layout),
            }
            for stage in bound.stages
        ],
    }


def _quality(quality: Quality) -> dict[str, object]:
    return {
        "name": quality.name,
        "num_samples": quality.num_samples,
        "nfe": _estimate(quality.nfe),
        "token_forwards_per_text": _estimate(quality.token_forwards),
        "seconds_per_text": _estimate(quality.seconds),
        "figures": {name: _text_estimate(value) for name, value in quality.figures.items()},
    }


def _comparison(pair: Comparison) -> dict[str, object]:
    return {
        "arm": pair.arm,
        "other": pair.other,
        "difference_nats_per_window": _estimate(pair.nats),
        "standard_error_over_windows_nats": pair.over_windows,
        "standard_error_nats": pair.standard_error,
        "is_paired": pair.is_paired,
        "verdict": pair.verdict,
    }


def _estimate(value: Estimate | None) -> dict[str, object] | None:
    if value is None:
        return None
    return {"mean": value.mean, "standard_error_over_seeds": value.standard_error, "num_seeds": value.num_seeds}


def _text_estimate(value: TextEstimate | None) -> dict[str, object] | None:
    """A figure of texts with its error, and with the errors over seeds alone and over texts alone."""
    if value is None:
        return None
    return {
        "mean": value.mean,
        "standard_error": value.standard_error,
        "standard_error_over_seeds": value.over_seeds,
        "standard_error_over_texts": value.over_texts,
        "num_seeds": value.num_seeds,
    }


def _curves(curves: Sequence[Curve]) -> list[dict[str, object]]:
    return [
        {
            "arm": curve.arm,
            "seed": curve.seed,
            "stage": curve.stage or None,
            "points": [list(point) for point in curve.points],
            "num_not_finite": curve.num_not_finite,
        }
        for curve in curves
    ]
