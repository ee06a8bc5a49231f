"""The rate is the derivative of the total noise, and times can be found again from the noise."""

import math

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule

times = st.floats(0.0, 1.0)
loglinear = st.builds(LogLinearSchedule, st.floats(1e-6, 0.9))
geometric = st.tuples(st.floats(1e-6, 1.0), st.floats(1.01, 1e5)).map(
    lambda pair: GeometricSchedule(pair[0], pair[0] * pair[1])
)
schedules: st.SearchStrategy[Schedule] = st.one_of(loglinear, geometric)


@given(schedules, times)
def test_rate_is_the_derivative(schedule: Schedule, time: float) -> None:
    t = torch.tensor(time, dtype=torch.float64, requires_grad=True)
    sigma, dsigma = schedule(t)
    (derivative,) = torch.autograd.grad(sigma, t)
    assert sigma.dtype == dsigma.dtype == torch.float64
    torch.testing.assert_close(dsigma, derivative, rtol=1e-9, atol=1e-9)


@given(schedules, times)
def test_time_of_noise(schedule: Schedule, time: float) -> None:
    t = torch.tensor(time, dtype=torch.float64)
    # Close to t = 1 a log-linear schedule with tiny eps maps many times to one noise; 1e-9 is far above that.
    torch.testing.assert_close(schedule.time_at(schedule(t).sigma), t, rtol=0, atol=1e-9)


@given(schedules, times, times)
def test_noise_grows(schedule: Schedule, first: float, second: float) -> None:
    assume(first < second - 1e-9)
    earlier, later = (schedule(torch.tensor(t, dtype=torch.float64)).sigma for t in (first, second))
    assert 0 <= earlier < later


@given(st.floats(1e-6, 0.9), times)
def test_loglinear_moves_linearly(eps: float, time: float) -> None:
    sigma, _ = LogLinearSchedule(eps)(torch.tensor(time, dtype=torch.float64))
    assert math.isclose(-math.expm1(-float(sigma)), (1 - eps) * time, rel_tol=1e-9, abs_tol=1e-12)


def test_ends_of_the_geometric_schedule() -> None:
    schedule = GeometricSchedule(0.25, 8.0)
    sigma, _ = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(sigma, torch.tensor([0.25, 8.0], dtype=torch.float64), rtol=1e-12, atol=0)
    # Noise below sigma_min has no time; the first is given.
    assert float(schedule.time_at(torch.tensor(0.01, dtype=torch.float64))) == 0.0
