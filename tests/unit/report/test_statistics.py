import math

import pytest
from scipy.stats import t as student

from cascaded_dllm.report.statistics import TextEstimate, chance_beyond, estimate, known, nested_estimate


def test_mean_and_standard_error_over_seeds():
    # Deviations from 3 are -2, 0 and 2: variance 8 / 2 = 4, of the mean 4 / 3.
    found = estimate([1.0, 3.0, 5.0])
    assert found is not None
    assert (found.mean, found.num_seeds) == (3.0, 3)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 3), rel=1e-15)


def test_one_seed_has_no_spread_and_none_has_no_mean():
    found = estimate([2.5])
    assert found is not None
    assert (found.mean, found.standard_error, found.num_seeds) == (2.5, None, 1)
    assert estimate([]) is None
    assert known([1.0, None, 0.0]) == [1.0, 0.0]


def test_scatter_of_texts_and_of_seeds_by_hand():
    """Errors over texts of 3 and 1 have the mean square 5, which of two seeds is 2.5."""
    assert nested_estimate([4.0, 4.0], [3.0, 1.0]) == TextEstimate(4.0, math.sqrt(2.5), 2, 0.0, math.sqrt(2.5))
    # Deviations of -3 and 3: variance 18, of the mean 9, in which the texts are already.
    assert nested_estimate([1.0, 7.0], [3.0, 1.0]) == TextEstimate(4.0, 3.0, 2, 3.0, math.sqrt(2.5))
    assert nested_estimate([4.0], [0.5]) == TextEstimate(4.0, 0.5, 1, None, 0.5)


def test_what_is_not_known_is_in_no_error():
    assert nested_estimate([1.0, 7.0], [3.0, None]) == TextEstimate(4.0, 3.0, 2, 3.0, None)
    assert nested_estimate([4.0], [None]) == TextEstimate(4.0, None, 1, None, None)
    assert nested_estimate([], []) is None


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5, 6, 9, 10, 31])
@pytest.mark.parametrize("errors", [0.0, 0.5, 2.0, 4.0])
def test_chance_is_that_of_students_t(errors, num_seeds):
    assert chance_beyond(errors, num_seeds) == pytest.approx(2 * student.sf(errors, num_seeds - 1), abs=1e-12)
