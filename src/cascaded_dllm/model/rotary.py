"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout that SEDD uses."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Rotary(nn.Module):
    """Cosines and sines of the rotation of every position; the buffer has the name that it has in SEDD checkpoints.

    Args:
        head_dim: width of one attention head, even.
        base: upper limit of the wavelengths, in units of 2 pi positions.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2).float() / head_dim
        self.register_buffer("inv_freq", 1.0 / base**exponent)

    def forward(
        self, position_S: Float[Tensor, " S"] | Int[Tensor, " S"]
    ) -> tuple[Float[Tensor, "S 1 E"], Float[Tensor, "S 1 E"]]:
        """Cosines and sines, repeated for the two halves of a head, ready to broadcast against (B, S, H, E)."""
        angle_SE = torch.outer(position_S.to(self.inv_freq), self.inv_freq)
        angle_SE = torch.cat([angle_SE, angle_SE], dim=-1)[:, None]
        return angle_SE.cos(), angle_SE.sin()


def rotate(
    x_BSHE: Float[Tensor, "B S H E"], cos_sin: tuple[Float[Tensor, "S 1 E"], Float[Tensor, "S 1 E"]]
) -> Float[Tensor, "B S H E"]:
    """Queries or keys rotated by the angle of their position; computed in float32 or wider, returned in their dtype."""
    rotated: Tensor = _Rotation.apply(x_BSHE, *cos_sin)
    return rotated


class _Rotation(torch.autograd.Function):
    """The rotation, whose gradient is the rotation by the opposite angle: one pass fewer than by its products."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_BSHE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One cast, one product, and one fused product in place for each half, since memory bounds it."""
        wide = x_BSHE.to(torch.promote_types(x_BSHE.dtype, cos.dtype))
        turned, half = wide * cos, wide.shape[-1] // 2
        # The two halves of cos and sin are equal.
        half_sin = sin[..., :half]
        turned[..., :half].addcmul_(wide[..., half:], half_sin, value=-1)
        turned[..., half:].addcmul_(wide[..., :half], half_sin)
        return turned.to(x_BSHE.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad_BSHE: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotation.apply(grad_BSHE, cos, -sin), None, None
