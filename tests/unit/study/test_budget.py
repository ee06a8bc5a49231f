"""Budgets are shared out to the last step."""

import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study.budget import shared_first, steps_of_runs, with_first
from cascaded_dllm.study_config import BudgetSettings
from cascaded_dllm.train.meter import StepCost

COSTS = [StepCost(8, 100.0), StepCost(24, 700.0), StepCost(56, 1200.0)]


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"token_forwards": 879}, [9, 9, 9]),
        ({"token_forwards": 880}, [10, 10, 10]),
        ({"flops": 20_000.0}, [10, 10, 10]),
        ({"flops": 19_999.0}, [9, 9, 9]),
        ({"token_forwards": 504, "split": "equal"}, [21, 7, 3]),
    ],
)
def test_steps(budget, steps):
    assert steps_of_runs(BudgetSettings(**budget), COSTS, "placed") == steps


def test_too_little_for_a_step():
    message = r"budget.token_forwards is 87, and a step of every run of arm placed costs 88 \(8, 24, 56\); give more"
    with pytest.raises(ConfigError, match=message):
        steps_of_runs(BudgetSettings(token_forwards=87), COSTS, "placed")


def test_a_first_stage_that_is_nearly_as_long_is_shared():
    assert shared_first([2130, 2083, 2130]) == 2083
    assert shared_first([95, 100]) == 95
    assert shared_first([94, 100]) is None


def test_what_the_first_stage_leaves_goes_to_the_others():
    """880 - 9 * 8 = 808 positions for steps of 24 + 56: 10, of which 8 are left."""
    assert with_first(BudgetSettings(token_forwards=880), COSTS, 9) == [9, 10, 10]
    assert with_first(BudgetSettings(token_forwards=871), COSTS, 9) == [9, 9, 9]
