"""Differences between arms of the same seed, judged window by window."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Nats = npt.NDArray[np.float64]


def paired_difference(nats: Nats, other: Nats) -> tuple[float, float | None]:
    """Mean of `nats` - `other` over the same windows, and its standard error; None for a single window.

    What is hard about a window is hard for both and cancels, so the error is usually smaller than that of either mean.
    """
    differences = nats - other
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(nats)) if len(nats) > 1 else None
    return float(np.mean(differences)), error


def pairs(nats: Mapping[tuple[str, int], Nats], compared: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Paired differences of arms of the same seed.

    Args:
        nats: bound of every window, by arm and seed.
        compared: pairs of an arm and the arm that it is compared with; those without a bound are left out.
    """
    seeds = sorted({seed for _, seed in nats})
    found = []
    for arm, other in compared:
        for seed in seeds:
            if (arm, seed) in nats and (other, seed) in nats:
                mean, error = paired_difference(nats[arm, seed], nats[other, seed])
                found.append(
                    {
                        "arm": arm,
                        "other": other,
                        "seed": seed,
                        "mean_nats_per_window": mean,
                        "standard_error_nats": error,
                    }
                )
    return found
