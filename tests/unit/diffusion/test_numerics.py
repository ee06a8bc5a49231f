"""log(exp(x) - 1) over the whole range of noise."""

import math

import pytest
import torch

from cascaded_dllm.numerics import log_expm1


@pytest.mark.parametrize("x", [1e-300, 1e-10, 1e-3, 0.7, 19.999, 20.0, 20.001, 50.0, 700.0, 1e6])
def test_log_expm1(x: float) -> None:
    exact = math.log(math.expm1(x)) if x < 700 else x
    found = log_expm1(torch.tensor(x, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64), rtol=1e-14, atol=1e-15)


def test_gradient_is_finite_everywhere() -> None:
    """d/dx = 1 / (1 - exp(-x)); the branch that is not taken must not leak its infinities."""
    x = torch.tensor([1e-6, 1.0, 20.0, 100.0, 1e4], requires_grad=True)
    (slope,) = torch.autograd.grad(log_expm1(x).sum(), x)
    torch.testing.assert_close(slope, 1 / -torch.expm1(-x.detach()), rtol=1e-5, atol=0)
