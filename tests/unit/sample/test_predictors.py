"""Names of predictors, and the types of what they return; their mathematics is in tests/exact."""

import pytest
import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.predictors import (
    PREDICTORS,
    EulerPredictor,
    FirstHittingPredictor,
    TweediePredictor,
    denoise_probs,
    predictor_from_name,
)


def test_names() -> None:
    assert predictor_from_name("euler") == EulerPredictor()
    assert predictor_from_name("analytic") == predictor_from_name("tweedie") == TweediePredictor()
    assert predictor_from_name("first_hitting") == FirstHittingPredictor()
    assert [type(predictor_from_name(name)) for name in PREDICTORS] == [
        EulerPredictor,
        TweediePredictor,
        FirstHittingPredictor,
    ]
    with pytest.raises(ConfigError, match="predictor is 'ddim'; it must be one of euler, analytic, first_hitting"):
        predictor_from_name("ddim")


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


def test_factor_of_one_time_and_of_many() -> None:
    schedule = LogLinearSchedule()
    t, s = torch.tensor([0.9, 0.4]), torch.tensor([0.8, 0.1])
    for predictor in (EulerPredictor(), TweediePredictor()):
        many = predictor.unmask_factor(schedule, t, s)
        assert many.shape == (2,)
        torch.testing.assert_close(predictor.unmask_factor(schedule, t[1], s[1]), many[1])
