"""Self-BLEU: how much texts are like one another (Zhu et al. 2018, arXiv:1802.01886)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.evaluate.token_runs import RunCounts, TokenTexts, token_runs

MAX_N = 4
"""BLEU-4: runs of one to four tokens, with equal weight."""

_EPSILON = 0.1
"""Matches that a text is given where it has none of some length: method 1 of Chen & Cherry 2014, as NLTK has it."""


def self_bleu_per_text(texts: TokenTexts) -> Float[Tensor, " B"]:
    """BLEU-4 of every text with all others as its references, float64; 1 for a duplicate of 4 or more tokens.

        BP * exp(mean over n = 1..4 of log p_n)
        p_n = sum over runs of min(count in the text, most that any other text has) / number of runs
        BP  = 1 if the text is longer than the other one nearest in length (of two, the shorter), else exp(1 - r / c)

    as in Papineni et al. 2002, with 0.1 for a count of matches that is 0; without a single common token BLEU is 0. No
    reference is left out: the two largest counts of a run give the largest among the others of every text, so the time
    for all texts grows with the number of tokens, not with its square.

    Differs from the paper in what is counted: tokens, not words. The figure grows with the number of texts.

    Args:
        texts: at least two; `mean_self_bleu` ensures it.
    """
    rows = list(texts)
    assert len(rows) > 1, "a text is compared with others"
    lengths = torch.tensor([len(row) for row in rows])
    log_precision = torch.zeros(len(rows), dtype=torch.float64)
    for n in range(1, MAX_N + 1):
        runs = token_runs(rows, n)
        matched = _matched(runs.counts(), len(rows))
        if n == 1:
            has_match = matched > 0
        precision = torch.where(matched > 0, matched.double(), _EPSILON) / runs.per_text.clamp_min(1)
        log_precision += precision.log() / MAX_N
    shortfall = 1 - _nearest_length(lengths) / lengths.clamp_min(1).double()
    return torch.where(has_match, (log_precision + shortfall.clamp_max(0)).exp(), 0.0)


def mean_self_bleu(texts: TokenTexts) -> float | None:
    """The mean of `self_bleu_per_text`; None for fewer than 2 texts."""
    return float(self_bleu_per_text(texts).mean()) if len(texts) > 1 else None


def _matched(counts: RunCounts, num_texts: int) -> Int[Tensor, " B"]:
    """How many runs of every text are in others, each counted at most as often as the other text that has it most."""
    # Every run's entries together, those with the largest counts first.
    most = int(counts.times.max()) + 1 if len(counts.times) else 1
    order = (counts.code * most + (most - 1 - counts.times)).argsort()
    text, code, times = (values[order] for values in counts)
    is_same_run = code[1:] == code[:-1]
    is_first = torch.cat([torch.ones(min(1, len(code)), dtype=torch.bool), ~is_same_run])
    following = torch.cat([torch.where(is_same_run, times[1:], 0), times.new_zeros(min(1, len(code)))])
    largest = times[is_first][is_first.long().cumsum(0) - 1]
    of_others = torch.where(is_first, following, largest)
    return torch.zeros(num_texts, dtype=torch.int64).index_add(0, text, torch.minimum(times, of_others))


def _nearest_length(lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """For every text the length of the other one that is nearest to it in length; of two such, the shorter."""
    values, order = lengths.double().sort()
    far = values.new_full((1,), math.inf)
    below, above = torch.cat([-far, values[:-1]]), torch.cat([values[1:], far])
    nearest = torch.where(values - below <= above - values, below, above)
    return torch.empty_like(nearest).index_copy(0, order, nearest)
