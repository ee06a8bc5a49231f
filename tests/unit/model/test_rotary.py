"""Rotary positions: turned by the angle of the position, so that products depend on distances alone."""

import torch

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
