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


def distinct_ngram_share(ids: Int[Tensor, "B L"], n: int) -> float:
    """The number of different runs of `n` neighbouring tokens over that of all such runs, over all texts together.

    Known as distinct-n (Li et al. 2016, arXiv:1510.03055). Counted over the corpus and not text by text, it falls with
    the number of texts, so that only figures of as many texts of the same length compare. No run spans two texts.
    Differs from the paper: divided by the number of runs, not of tokens, so that 1 is the most for every n.

    Texts shorter than `n` have no run, and the share is 1: nothing is repeated.
    """
    if ids.shape[1] < n:
        return 1.0
    runs = ids.unfold(1, n, 1).flatten(0, 1)
    return len(runs.unique(dim=0)) / len(runs)
