"""Conditioning augmentation: prefix tokens replaced, so that a stage learns to write from imperfect prefixes.

Ho et al. 2021 (arXiv:2106.15282), Sec. 3, add noise to the low-resolution image that a stage reads. Here a token is
replaced by a uniformly random one, which the stage must learn to doubt, or by MASK, which says that it is missing.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.process import AbsorbingProcess, Process


def noised_prefix(
    prefix: Int[Tensor, "B P"],
    u: tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]],
    *,
    prob: float,
    kind: str,
    process: Process,
) -> Int[Tensor, "B P"]:
    """`prefix` with every token replaced with probability `prob`, independently of the others.

    The first of two uniform numbers a token says whether it is replaced, the second by which token. A random token may
    equal the one that it replaces, as under the uniform process.

    Args:
        prefix: ids of the stage before.
        u: uniform numbers in (0, 1).
        prob: of every token.
        kind: `random`, or `mask`, for which `process` must have a MASK (the caller checks it).
        process: of the stage that reads the prefix.
    """
    assert kind in ("random", "mask"), kind
    if kind == "mask":
        token = masked_prefix(prefix, process)
    else:
        token = (u[1] * process.vocab_size).long().clamp_max(process.vocab_size - 1)
    return torch.where(u[0] < prob, token, prefix)


def masked_prefix(prefix: Int[Tensor, "B P"], process: Process) -> Int[Tensor, "B P"]:
    """A prefix of the same length that says nothing: every token is MASK. Only for the absorbing process."""
    assert isinstance(process, AbsorbingProcess)
    return torch.full_like(prefix, process.mask_id)
