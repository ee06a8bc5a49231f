"""Rotary positions: turned by the angle of the position, so that products depend on distances alone."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.model.rotary import Rotary, rotate


def test_products_depend_on_distance() -> None:
    rotary = Rotary(8).double()
    q, k = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def product(i: int, j: int) -> float:
        turned = [
            rotate(x.expand(1, 1, 1, 8), rotary(torch.tensor([position]))).flatten() for x, position in ((q, i), (k, j))
        ]
        return float(turned[0] @ turned[1])

    assert abs(product(3, 10) - product(103, 110)) < 1e-9
    assert abs(product(3, 10) - product(10, 3)) > 1e-3
    assert abs(product(5, 5) - float(q @ k)) < 1e-12


def test_angles_and_layout() -> None:
    """Element i and element i + E/2 turn together, by position / base^(2 i / E)."""
    cos, sin = Rotary(4, base=100.0)(torch.tensor([0, 3]))
    assert cos.shape == sin.shape == (2, 1, 4)
    angles = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 0.3, 3.0, 0.3]])
    torch.testing.assert_close(cos[:, 0], angles.cos())
    torch.testing.assert_close(sin[:, 0], angles.sin())
    x = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 2, 1, 4)
    expected = torch.tensor([[1.0, 0.0, 0.0, 0.0], [angles[1, 0].cos(), 0.0, angles[1, 0].sin(), 0.0]])
    torch.testing.assert_close(rotate(x, (cos, sin))[0, :, 0], expected)


def test_half_precision_is_turned_in_single() -> None:
    rotary = Rotary(16)
    x = torch.randn(1, 64, 2, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    turned = rotate(x, rotary(torch.arange(64)))
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), rotary(torch.arange(64))).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradient(dtype: torch.dtype) -> None:
    """That of the products written out, also of rows that are strided in memory; computed in single if half."""
    generator = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    x, grad = x.transpose(1, 2).requires_grad_(), grad.transpose(1, 2)
    wide = torch.promote_types(dtype, torch.float32)
    cos, sin = (table.to(wide) for table in Rotary(8).double()(torch.arange(5)))
    x_wide = x.to(wide)
    first, second = x_wide.chunk(2, dim=-1)
    turned = x_wide * cos + torch.cat([-second, first], dim=-1) * sin
    (expected,) = torch.autograd.grad(turned, x, grad.to(wide))
    (found,) = torch.autograd.grad(rotate(x, (cos, sin)), x, grad)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_gradients_and_of_single_examples() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    cos_sin = Rotary(8).double()(torch.arange(5))
    assert torch.autograd.gradcheck(lambda y: rotate(y, cos_sin), x.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda y: rotate(y, cos_sin), x)

    def loss(example: Tensor) -> Tensor:
        return (rotate(example[None], cos_sin) ** 3).sum()

    each = torch.func.vmap(torch.func.grad(loss))(x.detach())
    (together,) = torch.autograd.grad((rotate(x, cos_sin) ** 3).sum(), x)
    torch.testing.assert_close(each, together, rtol=1e-12, atol=1e-12)
