"""How much of a prefix a stage has kept: two shares a text, which differ in whether order counts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def multiset_overlap_per_text(prefix: Int[Tensor, "B P"], target: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The share of prefix tokens that are found in the target, each target token counting once; float64.

        sum over tokens v of min(count of v in prefix, count of v in target) / P

    1 for the true text of a prefix, which is a part of it.
    """
    ids, prefix_counts = _counts(prefix)
    found = (target[:, :, None] == ids[:, None, :]).sum(1)
    return torch.minimum(found, prefix_counts).sum(-1).double() / prefix.shape[1]


def ordered_coverage_per_text(prefix: Int[Tensor, "B P"], target: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
    """The share of the prefix that stands in the target in its order, with anything in between; float64.

        length of the longest common subsequence / P

    1 for the true text of a prefix. Never above the multiset overlap.
    """
    num_texts, length = target.shape
    longest = torch.zeros(num_texts, length + 1, dtype=torch.int64, device=target.device)
    for token in prefix.T:
        # With c[j] the longest for the prefix so far and j target tokens: either it ends here, in a match at some
        # place up to j, which adds one to what lies before that place, or it stays as it was.
        extended = torch.where(target == token[:, None], longest[:, :-1] + 1, 0)
        longest[:, 1:] = torch.maximum(longest[:, 1:], extended.cummax(-1).values)
    return longest[:, -1].double() / prefix.shape[1]


def _counts(ids: Int[Tensor, "B P"]) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """The ids of every text, and how often each occurs there, at its first place; 0 at its others."""
    is_same = ids[:, :, None] == ids[:, None, :]
    is_first = is_same.int().argmax(-1) == torch.arange(ids.shape[1], device=ids.device)
    return ids, is_same.sum(-1) * is_first
