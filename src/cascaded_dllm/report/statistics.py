"""Means with their errors, and how far an error of few seeds can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        standard_error: standard error of the mean, from the spread over seeds; None for one seed, which has no spread.
        num_seeds: number of seeds.
    """

    mean: float
    standard_error: float | None
    num_seeds: int


@dataclass(frozen=True, slots=True)
class TextEstimate(Estimate):
    """A figure of texts, mean over seeds, each with texts of its own; see `nested_estimate`.

    Attributes:
        over_seeds: standard error of the mean from the spread over seeds alone; None for one seed.
        over_texts: standard error of the mean from the scatter of texts within seeds alone; None if it is not known.
    """

    over_seeds: float | None
    over_texts: float | None


def nested_estimate(values: Sequence[float], errors: Sequence[float | None]) -> TextEstimate | None:
    """The mean of a figure over J seeds, each measured on texts of its own; None if there is no seed.

    A seed's figure is y_j = m + a_j + e_j, where a_j comes from the training with this seed and e_j from its texts. The
    texts of two seeds are independent, so

        Var(mean of y) = (Var a + mean of Var e_j) / J

    Var e_j is estimated from the texts of a seed, as the square v_j of its error. S^2, the sample variance of the y_j,
    is Var a + Var e on average, but with few seeds it is left to chance: two seeds that happen to agree make it 0. The
    analysis of variance estimates the two components as Var e = mean v_j and Var a = S^2 - mean v_j. The second one
    cannot be negative, so

        error^2 = (max(0, S^2 - mean v_j) + mean v_j) / J = max(S^2, mean v_j) / J

    This is never less than the scatter of texts alone gives. For one seed it is v_1, which does not include the
    variation between seeds. Adding S^2 / J and mean v_j / J would count the scatter of texts twice, since S^2 has it.

    If Var a is the larger part, error^2 has the J - 1 degrees of freedom of S^2, see `chance_beyond`.

    Args:
        values: the figure of each seed.
        errors: its standard error over the texts of each seed. If one is not known, only the spread over seeds counts.
    """
    plain, variances = estimate(values), [error**2 for error in known(errors)]
    if plain is None:
        return None
    over_texts = (
        math.sqrt(math.fsum(variances) / len(variances) / len(values)) if len(variances) == len(values) else None
    )
    over_seeds = plain.standard_error
    return TextEstimate(
        plain.mean, max(known([over_seeds, over_texts]), default=None), plain.num_seeds, over_seeds, over_texts
    )


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of `values`, one for each seed, with its standard error; None if there is no value.

    The error is s / sqrt(n) with s^2 = sum (x - mean)^2 / (n - 1).
    """
    if not values:
        return None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count)


def known(values: Sequence[float | None]) -> list[float]:
    """Those of `values` that are not None."""
    return [value for value in values if value is not None]


def chance_beyond(errors: float, num_seeds: int) -> float:
    """The chance that the mean of `num_seeds` normal values around 0 is more than `errors` standard errors away from 0.

    P(|t| > errors) of Student's t with n - 1 degrees of freedom, by the finite sums for whole degrees of freedom
    (Abramowitz & Stegun 26.7.3 and 26.7.4): for 2 errors, 0.295 with 2 seeds, and 0.046 with infinitely many.

    Args:
        errors: at least 0.
        num_seeds: at least 2.
    """
    freedom = num_seeds - 1
    angle = math.atan(errors / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for place in range(1, freedom - 1, 2):
            total += term
            term *= cosine**2 * (place + 1) / (place + 2)
        inside = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for place in range(0, freedom - 1, 2):
            total += term
            term *= cosine**2 * (place + 1) / (place + 2)
        inside = sine * total
    return 1.0 - inside
