"""Figures of a sample of texts with an interval: bootstrap over texts, and the jackknife where a bootstrap misleads."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

LEVEL = 0.95
"""Probability with which an interval is to hold the true value."""

_AT_ONCE = 1 << 22
"""Resampled numbers that are in memory together."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and where the true value is to be looked for.

    Attributes:
        estimate: of the texts at hand.
        low: lower end.
        high: upper end.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PerText:
    """A figure that is a quotient of sums over texts: sum of `values` / sum of `weights`; a mean for weights of 1.

    Attributes:
        values: of every text.
        weights: what each counts; a text of weight 0 has no value.
    """

    values: Float[np.ndarray, " B"]
    weights: Float[np.ndarray, " B"]

    @classmethod
    def mean(cls, values: Float[Tensor, " B"]) -> "PerText":
        """The mean of a number of every text."""
        found = values.double().cpu().numpy()
        return cls(found, np.ones(len(found)))

    @property
    def estimate(self) -> float:
        """Of the texts at hand."""
        return float(self.values.sum() / self.weights.sum())

    @property
    def counted(self) -> "PerText":
        """The same without texts that have no value."""
        return PerText(self.values[self.weights > 0], self.weights[self.weights > 0])

    def __len__(self) -> int:
        return len(self.values)


def resampled(sample: PerText, num_resamples: int, generator: np.random.Generator) -> Float[np.ndarray, " R"]:
    """The figure of as many texts, drawn from the sample with replacement, `num_resamples` times.

    Efron 1979 (Annals of Statistics 7), the bootstrap of independent observations: texts, whose tokens are not.
    """
    found = []
    per_part = max(1, _AT_ONCE // len(sample))
    for start in range(0, num_resamples, per_part):
        number = min(per_part, num_resamples - start)
        chosen = generator.integers(len(sample), size=(number, len(sample)))
        found.append(sample.values[chosen].sum(-1) / sample.weights[chosen].sum(-1))
    return np.concatenate(found)


def bootstrap_interval(
    sample: PerText, num_resamples: int, generator: np.random.Generator, *, level: float = LEVEL
) -> Interval:
    """The figure of a sample with its percentile interval."""
    return _percentiles(sample.estimate, resampled(sample, num_resamples, generator), level)


def bootstrap_difference(
    first: PerText, second: PerText, num_resamples: int, generator: np.random.Generator, *, level: float = LEVEL
) -> Interval:
    """`second` minus `first` with its percentile interval; the texts of the two are independent of each other."""
    differences = resampled(second, num_resamples, generator) - resampled(first, num_resamples, generator)
    return _percentiles(second.estimate - first.estimate, differences, level)


def distinct_share_and_error(ids: Int[Tensor, "B L"], n: int) -> tuple[float, float]:
    """Different runs of `n` neighbouring tokens over all of them in all texts together, with its standard error.

    A bootstrap repeats texts, and with them their runs, so that its samples are less varied than any real one. So the
    error is the jackknife's, from leaving out each text in turn,

        error^2 = (B - 1) / B * sum over texts of (share without it - mean of these)^2

    which on average is not below the true one (Efron and Stein 1981, Annals of Statistics 9).

    Args:
        ids: of at least 2 texts of at least `n` tokens.
        n: length of a run.
    """
    num_texts, runs_per_text = len(ids), ids.shape[1] - n + 1
    runs = ids.unfold(1, n, 1).flatten(0, 1)
    code = runs.unique(dim=0, return_inverse=True)[1]
    num_different = int(code.max()) + 1
    text = torch.arange(num_texts).repeat_interleave(runs_per_text)
    pairs = torch.stack([code, text]).unique(dim=1)
    num_holders = pairs[0].bincount(minlength=num_different)
    # What only one text has is gone without it.
    is_alone = num_holders[pairs[0]] == 1
    num_own = pairs[1][is_alone].bincount(minlength=num_texts).double()
    without = (num_different - num_own) / ((num_texts - 1) * runs_per_text)
    variance = (num_texts - 1) / num_texts * float((without - without.mean()).square().sum())
    return num_different / len(runs), variance**0.5


def normal_interval(estimate: float, error: float, *, level: float = LEVEL) -> Interval:
    """The interval of an estimate that is normally distributed with this standard error."""
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(estimate, estimate - reach, estimate + reach)


def _percentiles(estimate: float, values: Float[np.ndarray, " R"], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
