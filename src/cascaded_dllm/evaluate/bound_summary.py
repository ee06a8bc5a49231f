"""A joint bound as plain numbers with units in their names, for files."""

import math

from cascaded_dllm.evaluate.likelihood import JointBound, StageBound, mean_and_error


def _known(value: float) -> float | None:
    """The value; None if JSON has no number for it: the error of a single window, a perplexity beyond float64."""
    return value if math.isfinite(value) else None


def bound_summary(bound: JointBound) -> dict[str, object]:
    """The numbers of a joint bound, with units in their names; without the sum over stages if one is missing."""
    total, error = mean_and_error(bound.nll_nats)
    joint = {
        "bound_nats_per_window": total,
        "standard_error_nats": _known(error),
        "bound_nats_per_token": total / bound.length,
        "bound_ppl": _known(bound.ppl),
        "bound_bits_per_character": bound.bits_per_character,
        "num_characters": bound.num_characters,
        "omitted_nats_per_window_at_most": bound.omitted_nats,
    }
    return {
        **(joint if bound.is_whole else {}),
        **_sequential_summary(bound),
        "num_windows": len(bound.nll_nats),
        "length": bound.length,
        "num_stages": bound.num_stages,
        "stages": [
            {
                "stage": stage.stage,
                "bound_nats_per_window": mean_and_error(stage.nll_nats)[0],
                "standard_error_nats": _known(mean_and_error(stage.nll_nats)[1]),
                "omitted_nats_per_window_at_most": stage.omitted_nats,
                "unigram_nats_per_window": stage.unigram_nats,
                **_layout_summary(stage),
            }
            for stage in bound.stages
        ],
    }


def _sequential_summary(bound: JointBound) -> dict[str, object]:
    """The bound token by token beside the integral over time of the same windows; nothing where there is none."""
    sequential = bound.sequential_nats
    if sequential is None:
        return {}
    mean, error = mean_and_error(bound.nll_nats[: len(sequential)] - sequential)
    return {
        "sequential": {
            "num_windows": len(sequential),
            "bound_nats_per_window": float(sequential.mean()),
            "integral_minus_sequential_nats": mean,
            "standard_error_nats": _known(error),
        }
    }


def _layout_summary(stage: StageBound) -> dict[str, object]:
    """The part of a placed stage's bound that its layout costs; nothing for any other stage."""
    return {} if stage.layout_nats is None else {"layout_nats_per_window": mean_and_error(stage.layout_nats)[0]}
