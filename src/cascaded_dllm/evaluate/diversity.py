"""How varied texts are. This belongs beside every generative perplexity, which rewards repetition.

Texts may have different lengths. A text without anything that a figure counts, tokens or runs of n tokens, is left out.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.evaluate.intervals import jackknife_error
from cascaded_dllm.evaluate.token_runs import TokenTexts, token_runs


def token_entropy_nats_per_text(texts: TokenTexts) -> Float[Tensor, "_"]:
    """The entropy of the tokens of every text that has one under their own frequencies, in nats; float64.

    At most log L; near 0 for a text that repeats one token.
    """
    tokens = token_runs(texts, 1)
    text, _, times = tokens.counts()
    lengths = tokens.per_text[text].double()
    # A token that occurs n times in a text of L has the share n / L, which contributes -n / L log(n / L).
    entropy = _summed(-times / lengths * (times / lengths).log(), text, len(tokens.per_text))
    return entropy[tokens.per_text > 0]


def distinct_share_and_error(texts: TokenTexts, n: int) -> tuple[float | None, float | None]:
    """The number of different runs of `n` neighbouring tokens over that of all such runs, and its standard error.

    Known as distinct-n (Li et al. 2016, arXiv:1510.03055). It is counted over all texts together and falls with
    their number, so only figures of equally many texts of the same length compare. No run spans two texts.
    Differs from the paper: divided by the number of runs, not of tokens, so that 1 is the most for every n.

    A bootstrap repeats texts, and with them their runs, so its samples are less varied than real ones. The error is
    therefore the jackknife's, from leaving out each text in turn.

    Args:
        texts: any number.
        n: length of a run.

    Returns:
        The share, None if no text has `n` tokens; and the error, None where fewer than 2 texts have.
    """
    runs = token_runs(texts, n)
    has_run = runs.per_text > 0
    num_runs, num_texts = len(runs.code), int(has_run.sum())
    if num_runs == 0:
        return None, None
    counts = runs.counts()
    num_holders = counts.code.bincount()
    num_different = int((num_holders > 0).sum())
    if num_texts < 2:
        return num_different / num_runs, None
    # Runs that only one text has disappear without it.
    is_alone = num_holders[counts.code] == 1
    num_own = counts.text[is_alone].bincount(minlength=len(runs.per_text))
    without = (num_different - num_own[has_run]).double() / (num_runs - runs.per_text[has_run])
    return num_different / num_runs, jackknife_error(without.numpy())


def repeated_ngram_share_per_text(texts: TokenTexts, n: int) -> Float[Tensor, "_"]:
    """For every text of at least `n` tokens, the share of its runs of `n` tokens that it has had before; float64.

        1 - different runs of the text / all runs of the text

    Known as seq-rep-n (Welleck et al. 2020, arXiv:1908.04319). 0 for a text that repeats no run, near 1 for
    one that loops; longer texts repeat more.
    """
    runs = token_runs(texts, n)
    num_different = runs.counts().text.bincount(minlength=len(runs.per_text))
    has_run = runs.per_text > 0
    return 1 - num_different[has_run].double() / runs.per_text[has_run]


def _summed(values: Float[Tensor, " E"], text: Tensor, num_texts: int) -> Float[Tensor, " B"]:
    """The sum of the values of every text."""
    return torch.zeros(num_texts, dtype=torch.float64).index_add(0, text, values)
