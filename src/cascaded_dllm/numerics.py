"""Numerically safe forms of short functions that both the mathematics and the network need."""

import torch
from jaxtyping import Float
from torch import Tensor


def log_expm1(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(exp(x) - 1) for x > 0, exact for tiny x and free of overflow for large x."""
    return torch.where(x < 20, torch.log(torch.expm1(x.clamp_max(20))), x + torch.log1p(-torch.exp(-x)))


def log_add(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(exp(a) + exp(b)), also for numbers so low that exp() of them underflows to zero."""
    # Up to torch 2.9, MPS evaluates the formula literally, which gives -inf below -88.
    return torch.logaddexp(a, b) if a.device.type != "mps" else stable_log_add(a, b)


def stable_log_add(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`log_add` in operations that every device has, with the gradient of `torch.logaddexp`, also where a equals b."""
    difference = torch.where(a == b, 0.0, a - b)
    return torch.maximum(a, b) + torch.log1p(torch.exp(-difference.abs()))
