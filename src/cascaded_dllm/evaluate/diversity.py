"""How varied texts are: what must stand beside every generative perplexity, which rewards saying the same thing."""

import torch
from jaxtyping import Int
from torch import Tensor


def mean_token_entropy_nats(ids: Int[Tensor, "B L"]) -> float:
    """The entropy of the tokens of a text under their own frequencies, in nats, averaged over texts.

    At most log L; near 0 for a text that repeats one token.
    """
    counts = (ids[:, :, None] == ids[:, None, :]).sum(-1).double()
    # Every place contributes -log(share) / L, so that a token that occurs n times contributes its n / L of it.
    return float(torch.log(ids.shape[1] / counts).mean())


def distinct_bigram_share(ids: Int[Tensor, "B L"]) -> float:
    """The number of different pairs of neighbouring tokens over that of all pairs, over all texts together.

    Texts of one token have no pair, and the share is 1: nothing is repeated.
    """
    pairs = torch.stack([ids[:, :-1], ids[:, 1:]], -1).flatten(0, 1)
    if len(pairs) == 0:
        return 1.0
    return len(pairs.unique(dim=0)) / len(pairs)
