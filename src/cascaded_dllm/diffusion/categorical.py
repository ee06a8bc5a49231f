"""The one place where tokens are drawn: inverse CDF over logits, in two levels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 256
"""Columns in a block; about the square root of the size of GPT-2's vocabulary."""


def sample_tokens(
    logits: Float[Tensor, "M V"], u: tuple[Float[Tensor, " M"], Float[Tensor, " M"]]
) -> Int[Tensor, " M"]:
    """One id a row, drawn from softmax(logits): `u[0]` chooses a block of columns, `u[1]` a column inside it.

    The id is -1 where the logits do not define a law: one is NaN or +inf, or all are -inf. There is no error here,
    because to read the logits the host would have to wait for a GPU.

    Two uniform numbers reach tails that one number of the same precision cannot. Only the sums of the blocks and the
    chosen block are held in the dtype of `u`, never a whole row. A single Gumbel race in float32 would cut the tail,
    which lowers the temperature (Zheng et al. 2024, arXiv:2409.02908, Sec. 5).
    """
    num_rows, num_columns = logits.shape
    precise = u[0].dtype
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    padding = -num_columns % _BLOCK
    weights = torch.nn.functional.pad(weights, (0, padding)).view(num_rows, (num_columns + padding) // _BLOCK, _BLOCK)
    of_blocks = weights.sum(-1, dtype=precise)
    block = _inverse_cdf(of_blocks, u[0])
    inside = weights[torch.arange(num_rows, device=logits.device), block].to(precise)
    token = block * _BLOCK + _inverse_cdf(inside, u[1])
    return torch.where(of_blocks.sum(-1).isfinite(), token, -1)


def sample_states(probs: Float[Tensor, "... N"], u: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
    """One state for every row of probabilities, which need not be normalised; an arbitrary one where they are NaN.

    Negative probabilities count as zero.
    """
    flat = probs.reshape(-1, probs.shape[-1]).clamp_min(0).to(u.dtype)
    return _inverse_cdf(flat, u.reshape(-1)).view(u.shape)


def _inverse_cdf(weights: Float[Tensor, "M C"], u: Float[Tensor, " M"]) -> Int[Tensor, " M"]:
    """The first column whose cumulated weight exceeds `u` times the total; never a column of weight zero."""
    cumulated = running_sums(weights)
    total = cumulated[:, -1:]
    # u * total may round up to the total, which no column exceeds. The last column that has weight exceeds the number
    # just below the total.
    threshold = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # The search may end past the last column if the sums are NaN.
    return torch.searchsorted(cumulated, threshold, right=True)[:, 0].clamp_max(weights.shape[-1] - 1)


def running_sums(weights: Float[Tensor, "M C"]) -> Float[Tensor, "M C"]:
    """`weights.cumsum(-1)`, which also works while torch accepts deterministic algorithms only.

    Torch then refuses every cumsum of floating-point numbers on CUDA. Only that of a single row is not deterministic:
    it is cut into blocks, and the sum depends on which block ends first. Several rows are summed one by one, so a copy
    of the first row is added, and a row is never alone.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return weights.cumsum(-1)
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        return torch.cat([weights, weights[:1]]).cumsum(-1)[: len(weights)]
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warns)
