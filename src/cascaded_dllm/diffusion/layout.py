"""Layouts: where the tokens of a text stand in a longer one, and the absorbing diffusion over gaps that is their law.

A text of n tokens stands, in order, in a text of m tokens. Its layout is the gaps g_0 ... g_n, the numbers of new
tokens before, between and after its own: g_i >= 0, and their sum is m - n. From the known gaps, a network gives each
hidden gap a law over the labels 0 ... m - n. Labels larger than what is left have probability zero, and the last hidden
gap is what is left. Gaps that are revealed one by one in a uniformly random order follow a normalised law over layouts.
The bound on -log p(g) is that of absorbing diffusion with a time-agnostic network (Ou et al. 2024, arXiv:2406.03736,
Eq. 14):

    N(g) = sum over k = 1 ... n + 1 of the mean, over sets of k hidden gaps, of (1 / k) sum over hidden i of -log p(g_i)
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def gaps_of(places: Int[Tensor, "B n"], length: int) -> Int[Tensor, "B G"]:
    """The gaps around tokens that stand at rising `places` of a text of `length` tokens; G = n + 1."""
    ends = F.pad(F.pad(places, (1, 0), value=-1), (0, 1), value=length)
    return ends.diff(dim=-1) - 1


def places_of(gaps: Int[Tensor, "B G"]) -> Int[Tensor, "B n"]:
    """The inverse of `gaps_of`: where the tokens between the gaps stand."""
    return gaps[:, :-1].cumsum(-1) + torch.arange(gaps.shape[1] - 1, device=gaps.device)


def gap_log_law(
    logits: Float[Tensor, "*M S"], left: Int[Tensor, "*M"], is_last: Bool[Tensor, "*M"]
) -> Float[Tensor, "*M S"]:
    """Log law of each hidden gap: -inf for labels above `left`, and for all labels but `left` if it is the last one.

    Args:
        logits: of the labels 0 ... S - 1.
        left: sum of the hidden gaps of the text.
        is_last: whether no other gap of the text is hidden.
    """
    label = torch.arange(logits.shape[-1], device=logits.device)
    is_possible = torch.where(is_last[..., None], label == left[..., None], label <= left[..., None])
    return F.log_softmax(logits.masked_fill(~is_possible, -torch.inf), dim=-1)


def hidden_gaps(order: Float[Tensor, "B G"], share: Float[Tensor, " B"]) -> Bool[Tensor, "B G"]:
    """Which gaps are hidden: the ceil(share G) ones of lowest `order`, at least one.

    Args:
        order: a number for every gap.
        share: in (0, 1]; if it is uniform, every number of hidden gaps is equally frequent.
    """
    num_gaps = order.shape[-1]
    num_hidden = torch.ceil(share * num_gaps).clamp(1, num_gaps)
    return order.argsort(dim=-1).argsort(dim=-1) < num_hidden[:, None]


def layout_nats(
    logits: Float[Tensor, "B G S"], gaps: Int[Tensor, "B G"], is_hidden: Bool[Tensor, "B G"]
) -> Float[Tensor, " B"]:
    """Unbiased estimate of the bound N(g) on a layout, from one set of hidden gaps, in nats.

        (G / number of hidden gaps) * sum over hidden i of -log p(g_i | known gaps)

    Args:
        logits: of every gap, given the known ones.
        gaps: the true ones.
        is_hidden: which gaps the network did not see; at least one in every text.
    """
    num_hidden = is_hidden.sum(-1)
    left = (gaps * is_hidden).sum(-1)
    is_last = (num_hidden == 1)[:, None].expand_as(is_hidden)
    # A known gap may be larger than what is left. It gets the law of an unconstrained gap, and is not counted below.
    bound = torch.where(is_hidden, left[:, None], logits.shape[-1] - 1)
    log_law = gap_log_law(logits, bound, is_last & is_hidden)
    nats = -log_law.gather(-1, gaps[..., None])[..., 0]
    # The last hidden gap is certain: its law would have the gradient 0 * inf.
    nats = torch.where(is_hidden & ~is_last, nats, 0.0)
    return nats.sum(-1) * gaps.shape[1] / num_hidden
