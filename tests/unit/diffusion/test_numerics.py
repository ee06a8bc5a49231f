"""log(exp(x) - 1) over the whole range of noise, and sums of exponentials that are zero by themselves."""

import math

import pytest
import torch

from cascaded_dllm.numerics import log_add, log_expm1, stable_log_add


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


def test_log_add() -> None:
    """With the gradient of PyTorch's own, also of equal numbers, of none and of those whose exp() is zero."""
    values = [-torch.inf, -1e4, -300.0, -200.0, -1.0, 0.0, 2.0, 2.0 + 1e-6, 90.0]
    a, b = (grid.flatten().requires_grad_() for grid in torch.meshgrid(*[torch.tensor(values)] * 2, indexing="ij"))
    expected, found = torch.logaddexp(a, b), stable_log_add(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(log_add(a, b), expected)
    is_number = expected.isfinite()
    slopes = [torch.autograd.grad(total[is_number].sum(), (a, b)) for total in (found, expected)]
    torch.testing.assert_close(*(torch.stack(pair)[:, is_number] for pair in slopes), rtol=1e-5, atol=1e-6)
    assert all(slope.isfinite().all() for slope in slopes[0])
    # What the formula as it stands would make of it.
    assert torch.log(torch.tensor(-200.0).exp() + torch.tensor(-300.0).exp()) == -torch.inf
