"""Means with their errors, and how far an error of few seeds can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: over seeds.
        standard_error: of the mean, from the spread over seeds; None for one seed, which has no spread.
        num_seeds: how many there are.
    """

    mean: float
    standard_error: float | None
    num_seeds: int


@dataclass(frozen=True, slots=True)
class TextEstimate(Estimate):
    """A figure of texts, mean over seeds, each with texts of its own; see `nested_estimate`.

    Attributes:
        over_seeds: standard error of the mean from the spread over seeds alone; None for one seed.
        over_texts: that from the scatter of texts within seeds alone; None where it is not known.
    """

    over_seeds: float | None
    over_texts: float | None


def nested_estimate(values: Sequence[float], errors: Sequence[float | None]) -> TextEstimate | None:
    """The mean of a figure over J seeds, each measured on texts of its own; None where there is no seed.

    A seed's figure is y_j = m + a_j + e_j: a_j is what the training with this seed adds, e_j what its texts add. Texts
    of two seeds are independent, so

        Var(mean of y) = (Var a + mean of Var e_j) / J

    Var e_j is known from the texts of a seed, as the square v_j of its error. S^2, the spread of the y_j with J - 1
    below it, is Var a + Var e on average, but of few seeds it is a coin: two seeds that agree by chance make it 0. Of
    the two components that the analysis of variance gives, Var e = mean v_j and Var a = S^2 - mean v_j, the second one
    cannot be below 0, so that

        error^2 = (max(0, S^2 - mean v_j) + mean v_j) / J = max(S^2, mean v_j) / J

    which is never below what the scatter of texts amounts to, and v_1 for one seed: that another seed may write other
    texts is then in it nowhere. Adding S^2 / J and mean v_j / J would count the texts twice, for S^2 has them.

    Where Var a is the larger part, error^2 has the J - 1 degrees of freedom of S^2, see `chance_beyond`.

    Args:
        values: of each seed.
        errors: standard errors of these over the texts of the seed. Where one is not known, the spread over seeds is
            all there is.
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
    """The mean of `values`, one a seed, with its standard error; None where there is none.

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
    """Those of `values` that are there."""
    return [value for value in values if value is not None]


def chance_beyond(errors: float, num_seeds: int) -> float:
    """Chance that a mean of `num_seeds` normal values around 0 is more than `errors` standard errors away from 0.

    P(|t| > errors) of Student's t with n - 1 degrees of freedom, by the finite sums for a whole number of them
    (Abramowitz & Stegun 26.7.3 and 26.7.4): 0.295 for 2 errors of 2 seeds, 0.046 with infinitely many.

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
