"""How much of a prefix a stage has kept: two shares a text, which differ in whether order counts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def multiset_overlap_per_text(prefix: Int[Tensor, "B P"], target: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The share of prefix tokens that are found in the target, each target token counting once; float64.

        sum over tokens v of min(count of v in prefix, count of v in target) / P

    1 for the true text of a prefix, which is a part of it.
    """
    size = int(torch.maximum(prefix.max(), target.max())) + 1
    (entries, asked), (others, there) = _counts(prefix, size), _counts(target, size)
    place = torch.searchsorted(others, entries).clamp_max(len(others) - 1)
    found = torch.where(others[place] == entries, torch.minimum(there[place], asked), 0)
    per_text = torch.zeros(len(prefix), dtype=torch.int64, device=prefix.device).index_add(0, entries // size, found)
    return per_text.double() / prefix.shape[1]


def ordered_coverage_per_text(prefix: Int[Tensor, "B P"], target: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The share of the prefix that stands in the target in its order, with anything in between; float64.

        length of the longest common subsequence / P

    1 for the true text of a prefix. Never above the multiset overlap.
    """
    num_texts, length = target.shape
    longest = torch.zeros(num_texts, length + 1, dtype=torch.int64, device=target.device)
    for token in prefix.T:
        # c[j] is the longest for the prefix so far and the first j target tokens. Either it ends in a match of this
        # token at some place up to j, one more than the longest before that place, or it stays as it was.
        extended = torch.where(target == token[:, None], longest[:, :-1] + 1, 0)
        longest[:, 1:] = torch.maximum(longest[:, 1:], extended.cummax(-1).values)
    return longest[:, -1].double() / prefix.shape[1]


def _counts(ids: Int[Tensor, "B _"], size: int) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
    """Every token of every text once, as text * size + token in rising order, and how often it occurs there."""
    texts = torch.arange(len(ids), device=ids.device)[:, None]
    entries, counts = (texts * size + ids).unique(return_counts=True)
    return entries, counts
