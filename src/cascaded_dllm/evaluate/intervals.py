"""Figures of a sample of texts with an interval: bootstrap over texts, and the jackknife where a bootstrap misleads."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.evaluate.token_runs import TokenTexts

LEVEL = 0.95
"""Probability with which an interval is to hold the true value."""

_AT_ONCE = 1 << 22
"""Resampled numbers that are in memory together."""

_NUM_GROUPS = 20
"""Groups of texts to leave out in turn where single texts take too long; the error is then known to 16 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, and the range that is to hold the true value.

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
        weights: of every text, for example its number of tokens; a text of weight 0 has no value.
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
        """The figure of these texts."""
        return float(self.values.sum() / self.weights.sum())

    @property
    def counted(self) -> "PerText":
        """The same without texts that have no value."""
        return PerText(self.values[self.weights > 0], self.weights[self.weights > 0])

    @property
    def without_each(self) -> Float[np.ndarray, " B"]:
        """The figure without each text in turn; every text must have a value."""
        # A figure beyond float64 has no error, see `jackknife_error`.
        with np.errstate(over="ignore", invalid="ignore"):
            found: Float[np.ndarray, " B"] = (self.values.sum() - self.values) / (self.weights.sum() - self.weights)
        return found

    @property
    def error(self) -> float | None:
        """The standard error, by the jackknife; for a mean it is exactly s / sqrt(B). None for fewer than 2 values."""
        counted = self.counted
        return jackknife_error(counted.without_each) if len(counted) > 1 else None

    def __len__(self) -> int:
        return len(self.values)


def resampled(sample: PerText, num_resamples: int, generator: np.random.Generator) -> Float[np.ndarray, " R"]:
    """The figure of each of `num_resamples` samples of as many texts, drawn from the sample with replacement.

    This is the bootstrap of Efron 1979 (Annals of Statistics 7). Its observations must be independent, as texts are and
    the tokens of a text are not.
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


def jackknife_error(without: Float[np.ndarray, " G"]) -> float | None:
    """The standard error of a figure of texts, from the figure without each of G equal parts of them in turn.

        error^2 = (G - 1) / G * sum over parts of (figure without it - mean of these)^2

    The parts are independent of one another, as texts are; a part is a single text unless that takes too long. On
    average the square is not below the true one (Efron and Stein 1981, Annals of Statistics 9), so the error is on the
    safe side for figures that are not sums over texts; for a mean it is exact: s / sqrt(B) with one text a part.

    Returns:
        The error; None where there are fewer than 2 parts, the figure is not finite without one of them, or the squares
        are beyond float64.
    """
    if len(without) < 2 or not np.isfinite(without).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.sqrt((len(without) - 1) / len(without) * ((without - without.mean()) ** 2).sum()))
    return error if np.isfinite(error) else None


def unseen_error(num_texts: int) -> float:
    """The standard error of the mean of a number from 0 to 1 that is 0 in every text, or 1 in every text.

    The scatter of such texts is 0, which does not mean that all of infinitely many texts are alike: if a share of
    1 - 0.05^(1/n) of them differs, nearly 3/n, then n texts still show none of it with a chance of 5 %. The error is
    half of that share, so that the mean with two errors reaches as far.

    Args:
        num_texts: n, at least 1.
    """
    return float((1 - (1 - LEVEL) ** (1 / num_texts)) / 2)


def grouped_error(figure: Callable[[TokenTexts], float | None], texts: TokenTexts) -> float | None:
    """The standard error of a figure that has to be recomputed without some of the texts, see `jackknife_error`.

    A part is every G-th text, with G = 20, or a single text if there are fewer than 20. Nothing is random.

    Args:
        figure: of any number of texts; None where they have none.
        texts: all of them.
    """
    rows = list(texts)
    num_groups = min(_NUM_GROUPS, len(rows))
    found = [figure([row for place, row in enumerate(rows) if place % num_groups != k]) for k in range(num_groups)]
    known = [value for value in found if value is not None]
    return jackknife_error(np.array(known)) if len(known) == num_groups else None


def normal_interval(estimate: float, error: float, *, level: float = LEVEL) -> Interval:
    """The interval of an estimate that is normally distributed with this standard error."""
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(estimate, estimate - reach, estimate + reach)


def _percentiles(estimate: float, values: Float[np.ndarray, " R"], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
