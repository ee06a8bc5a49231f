"""Differences between arms, judged window by window, and what they say of all seeds together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Nats = npt.NDArray[np.float64]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and the standard deviation of single values; None for one value."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread


def paired_difference(nats: Nats, other: Nats) -> tuple[float, float | None]:
    """Mean of `nats` - `other` over the same windows, and its standard error; no error for a single window.

    What is hard about a window is hard for both, so that the error is smaller than that of either mean.
    """
    mean, spread = mean_and_spread((nats - other).tolist())
    return mean, None if spread is None else spread / math.sqrt(len(nats))


def pairs(nats: Mapping[tuple[str, int], Nats], against: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Paired differences of arms of the same seed.

    Args:
        nats: bound of every window, by arm and seed.
        against: an arm, and the one that it is compared with.
    """
    seeds = sorted({seed for _, seed in nats})
    found = []
    for arm, other in against:
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


def comparisons(nats: Mapping[tuple[str, int], Nats], against: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The same over all seeds that both arms have.

    The error is that of the windows, of which each is averaged over seeds, and that of the seeds, of which each is
    averaged over windows, together: the root of the sum of both squares. For one seed it is that of the windows.
    """
    found = []
    for arm, other in against:
        seeds = [seed for name, seed in sorted(nats) if name == arm and (other, seed) in nats]
        if not seeds:
            continue
        differences = np.stack([nats[arm, seed] - nats[other, seed] for seed in seeds])
        mean, spread_of_windows = mean_and_spread(differences.mean(axis=0).tolist())
        _, spread_of_seeds = mean_and_spread(differences.mean(axis=1).tolist())
        of_windows = None if spread_of_windows is None else spread_of_windows / math.sqrt(differences.shape[1])
        of_seeds = None if spread_of_seeds is None else spread_of_seeds / math.sqrt(len(seeds))
        known = [error for error in (of_windows, of_seeds) if error is not None]
        found.append(
            {
                "arm": arm,
                "other": other,
                "seeds": seeds,
                "mean_nats_per_window": mean,
                "standard_error_nats": math.hypot(*known) if known else None,
                "standard_error_of_windows_nats": of_windows,
                "standard_error_of_seeds_nats": of_seeds,
            }
        )
    return found
