"""Two-line functions of one variable that both the mathematics and the network need, in a numerically safe form."""

import torch
from jaxtyping import Float
from torch import Tensor


def log_expm1(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(exp(x) - 1) for x > 0, exact for tiny x and free of overflow for large x."""
    return torch.where(x < 20, torch.log(torch.expm1(x.clamp_max(20))), x + torch.log1p(-torch.exp(-x)))
