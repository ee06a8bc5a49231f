"""Names of predictors, and the types of what they return; their mathematics is in tests/exact."""

import math
from typing import Any

import pytest
import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.numerics import log_expm1
from cascaded_dllm.sample.predictors import (
    PREDICTORS,
    AncestralPredictor,
    EulerPredictor,
    FirstHittingPredictor,
    RemaskPredictor,
    SurestPredictor,
    TweediePredictor,
    denoise_probs,
    has_grid,
    predictor_from_name,
)


def test_names() -> None:
    assert predictor_from_name("euler") == EulerPredictor()
    assert predictor_from_name("analytic") == predictor_from_name("tweedie") == TweediePredictor()
    assert predictor_from_name("first_hitting") == FirstHittingPredictor(1)
    assert predictor_from_name("first_hitting", tokens_per_call=4) == FirstHittingPredictor(4)
    assert predictor_from_name("entropy", tokens_per_call=2) == SurestPredictor("entropy", 2)
    assert predictor_from_name("remask", eta=0.5) == RemaskPredictor(0.5)
    assert [predictor_from_name(name).name for name in PREDICTORS] == list(PREDICTORS)
    assert [has_grid(predictor_from_name(name)) for name in PREDICTORS] == [True] * 4 + [False] * 3
    with pytest.raises(ConfigError, match="predictor is 'ddim'; it must be one of euler, analytic, ancestral, remask"):
        predictor_from_name("ddim")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "euler",
            {"tokens_per_call": 2},
            "tokens_per_call is 2 and the predictor euler, which walks along a time grid",
        ),
        ("tweedie", {"tokens_per_call": 1}, "tokens_per_call is 1 and the predictor tweedie"),
        ("first_hitting", {"tokens_per_call": 0}, "tokens_per_call is 0; it must be at least 1"),
        ("confidence", {"tokens_per_call": -1}, "tokens_per_call is -1; it must be at least 1"),
        ("first_hitting", {"eta": 0.1}, "eta is 0.1 and the predictor first_hitting; only remask masks tokens again"),
        ("remask", {"eta": 1.5}, "eta is 1.5; it must lie between 0, which never masks again, and 1"),
    ],
)
def test_numbers_that_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor_from_name(name, **options)


def test_sureness_of_a_token_of_probability_zero() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [3.0, 0.0, 0.0]])
    assert SurestPredictor("entropy").sureness(logits)[0] == pytest.approx(-math.log(2))
    assert SurestPredictor("confidence").sureness(logits).tolist() == pytest.approx(
        [math.log(0.5), -math.log(1 + 2 * math.exp(-3))]
    )


@pytest.mark.parametrize("schedule", [LogLinearSchedule(), GeometricSchedule(0.02, 2.5)])
def test_masking_again_keeps_the_marginals(schedule: Schedule) -> None:
    """A token that is masked with probability move_prob(t) is so with move_prob(s) after a step, whatever eta."""
    t, s = torch.linspace(1, 0.1, 10, dtype=torch.float64), torch.linspace(0.9, 0.0, 10, dtype=torch.float64)
    moved_t, moved_s = (-torch.expm1(-schedule(time).sigma) for time in (t, s))
    for eta in (0.0, 0.3, 1.0):
        leave, again = RemaskPredictor(eta).probs(schedule, t, s)
        assert ((leave >= 0) & (leave <= 1 + 1e-12) & (again >= 0) & (again <= 1)).all()
        torch.testing.assert_close(moved_t * (1 - leave) + (1 - moved_t) * again, moved_s, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        RemaskPredictor(0.0).probs(schedule, t, s)[0], AncestralPredictor().leave_prob(schedule, t, s)
    )


@pytest.mark.parametrize("process", [AbsorbingProcess(4), UniformProcess(4)])
def test_dtype_is_that_of_the_score(process: AbsorbingProcess | UniformProcess) -> None:
    xt = torch.tensor([[0, 3], [1, process.num_states - 1]])
    t, s = torch.tensor([0.9, 0.5]), torch.tensor([0.8, 0.4])
    schedule = LogLinearSchedule(0.1)
    for dtype in (torch.float32, torch.float64):
        log_score = torch.zeros(2, 2, process.num_states, dtype=dtype)
        found = [p.step_probs(process, schedule, log_score, xt, t, s) for p in (EulerPredictor(), TweediePredictor())]
        found.append(denoise_probs(process, log_score, xt, schedule(t).sigma))
        for probs in found:
            assert (probs.shape, probs.dtype) == (log_score.shape, dtype)
        torch.testing.assert_close(found[-1].sum(-1), torch.ones(2, 2, dtype=dtype))


def test_negative_probabilities_of_the_last_step_are_cut() -> None:
    """A network's scores are not exact, and Tweedie's formula then leaves the simplex."""
    process, xt = UniformProcess(3), torch.tensor([[0]])
    log_score = torch.tensor([[[0.0, -30.0, 2.0]]])
    probs = denoise_probs(process, log_score, xt, torch.tensor([3.0]))
    assert probs.min() == 0
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 1))


def test_noise_whose_exponential_is_infinite() -> None:
    """In float32 the probability of leaving MASK stays that of float64."""
    schedule, times = GeometricSchedule(1e-4, 400.0), torch.linspace(1, 1e-3, 9, dtype=torch.float64)
    t, s = times[:-1], times[1:]
    moved_t, moved_s = (-torch.expm1(-schedule(time).sigma) for time in (t, s))
    expected = (1 - moved_s / moved_t).float()
    found = AncestralPredictor().leave_prob(schedule, t.float(), s.float())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    log_rate = TweediePredictor().log_unmask_factor(schedule, t.float(), s.float())
    found = torch.exp(log_rate - log_expm1(schedule(t.float()).sigma))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_factor_of_one_time_and_of_many() -> None:
    schedule = LogLinearSchedule()
    t, s = torch.tensor([0.9, 0.4]), torch.tensor([0.8, 0.1])
    for predictor in (EulerPredictor(), TweediePredictor()):
        many = predictor.log_unmask_factor(schedule, t, s)
        assert many.shape == (2,)
        torch.testing.assert_close(predictor.log_unmask_factor(schedule, t[1], s[1]), many[1])
