"""Settings of schedules: what is accepted, what is refused, and the way through a checkpoint."""

import math

import pytest
import torch

from cascaded_dllm.diffusion.schedule import (
    GeometricSchedule,
    LogLinearSchedule,
    Schedule,
    schedule_from_settings,
    schedule_settings,
)
from cascaded_dllm.errors import ConfigError


@pytest.mark.parametrize(
    "schedule", [LogLinearSchedule(), LogLinearSchedule(0.25), GeometricSchedule(), GeometricSchedule(0.5, 3.0)]
)
def test_settings_round_trip(schedule: Schedule) -> None:
    assert schedule_from_settings(schedule_settings(schedule)) == schedule


def test_numbers_are_optional_and_may_be_text() -> None:
    assert schedule_from_settings({"type": "loglinear"}) == LogLinearSchedule(1e-3)
    assert schedule_from_settings({"type": "geometric", "sigma_max": "1e1"}) == GeometricSchedule(1e-4, 10.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "cosine"}, r"noise\.type is 'cosine'; it must be one of loglinear, geometric"),
        ({"type": ["loglinear"]}, r"noise\.type is \['loglinear'\]"),
        ({}, r"noise\.type is None"),
        ({"type": "loglinear", "sigma_min": 1}, r"unknown keys \['sigma_min'\]; a loglinear schedule has eps"),
        ({"type": "geometric", "eps": 1}, r"unknown keys \['eps'\]; a geometric schedule has sigma_min, sigma_max"),
        ({"type": "loglinear", "eps": "small"}, r"noise\.eps is 'small'; it must be a number"),
        ({"type": "loglinear", "eps": None}, r"noise\.eps is None; it must be a number"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule_from_settings(settings)


@pytest.mark.parametrize("eps", [0.0, 1.0, -0.1, math.nan])
def test_eps_out_of_range(eps: float) -> None:
    with pytest.raises(ConfigError, match=r"noise\.eps is .*; it must lie between 0 and 1"):
        LogLinearSchedule(eps)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_sigmas_out_of_range(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="they must satisfy 0 < sigma_min < sigma_max"):
        GeometricSchedule(low, high)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", [LogLinearSchedule(), GeometricSchedule()])
def test_dtype_and_shape_are_those_of_the_time(schedule: Schedule, dtype: torch.dtype) -> None:
    for shape in ((), (3,), (2, 4)):
        noise = schedule(torch.full(shape, 0.5, dtype=dtype))
        for value in (*noise, schedule.time_at(noise.sigma)):
            assert (value.shape, value.dtype) == (shape, dtype)


def test_all_of_training_is_finite_in_float32() -> None:
    """At t = 1 the log-linear rate is 999, at t = 1e-5 the noise 1e-5: neither overflows nor vanishes."""
    t = torch.tensor([1e-5, 1e-3, 1.0])
    for schedule in (LogLinearSchedule(), GeometricSchedule()):
        noise = schedule(t)
        assert torch.isfinite(torch.cat([*noise])).all()
        assert (noise.sigma > 0).all()
    torch.testing.assert_close(LogLinearSchedule()(t).dsigma[2], torch.tensor(999.0), rtol=1e-4, atol=0)
