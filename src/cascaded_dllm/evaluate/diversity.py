"""How varied texts are: what must stand beside every generative perplexity, which rewards saying the same thing.

Texts may have different lengths. One without what a figure counts, tokens or runs of n tokens, has no part in it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.evaluate.token_runs import TokenTexts, token_runs


def mean_token_entropy_nats(texts: TokenTexts) -> float | None:
    """The entropy of the tokens of a text under their own frequencies, in nats, averaged over texts that have a token.

    At most log L; near 0 for a text that repeats one token.

    Returns:
        The mean; None if no text has a token.
    """
    tokens = token_runs(texts, 1)
    text, _, times = tokens.counts()
    lengths = tokens.per_text[text].double()
    # A token that occurs n times in a text of L has the share n / L, which contributes -n / L log(n / L).
    entropy = _summed(-times / lengths * (times / lengths).log(), text, len(tokens.per_text))
    return _mean(entropy[tokens.per_text > 0])


def distinct_ngram_share(texts: TokenTexts, n: int) -> float | None:
    """The number of different runs of `n` neighbouring tokens over that of all such runs, over all texts together.

    Known as distinct-n (Li et al. 2016, arXiv:1510.03055). Counted over the corpus and not text by text, it falls with
    the number of texts, so that only figures of as many texts of the same length compare. No run spans two texts.
    Differs from the paper: divided by the number of runs, not of tokens, so that 1 is the most for every n.

    Returns:
        The share; None if no text has `n` tokens.
    """
    runs = token_runs(texts, n)
    return len(runs.code.unique()) / len(runs.code) if len(runs.code) else None


def mean_repeated_ngram_share(texts: TokenTexts, n: int) -> float | None:
    """The share of runs of `n` tokens that the same text has had before, averaged over texts of at least `n` tokens.

        1 - different runs of the text / all runs of the text

    Known as seq-rep-n (Welleck et al. 2020, arXiv:1908.04319). 0 for a text that repeats no run, near 1 for
    one that goes round in a circle; longer texts repeat more.

    Returns:
        The mean; None if no text has `n` tokens.
    """
    runs = token_runs(texts, n)
    num_different = runs.counts().text.bincount(minlength=len(runs.per_text))
    has_run = runs.per_text > 0
    return _mean(1 - num_different[has_run].double() / runs.per_text[has_run])


def _summed(values: Float[Tensor, " E"], text: Tensor, num_texts: int) -> Float[Tensor, " B"]:
    """The sum of the values of every text."""
    return torch.zeros(num_texts, dtype=torch.float64).index_add(0, text, values)


def _mean(values: Float[Tensor, " B"]) -> float | None:
    return float(values.mean()) if len(values) else None
