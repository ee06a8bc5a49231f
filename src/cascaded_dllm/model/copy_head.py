"""The copy head: the clean token comes from the vocabulary or, with a learned probability, from the prefix.

A prefix holds many of the words that its target needs. A softmax over the vocabulary can only repeat them once the
network has learnt to carry a token from its place in the prefix to the output layer, and to tell it from all others
there. A pointer into the prefix names it directly (Vinyals et al. 2015, arXiv:1506.03134). A gate mixes the two, as in
See et al. 2017 (arXiv:1704.04368, Eq. 9).

Dimension letters: B batch, L target positions, P prefix positions, M rows, D width, V tokens, N states.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cascaded_dllm.model.ddit import LayerNorm
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.numerics import log_add

_CLOSED = -3.0
"""Bias of the gate before training, which opens it by 5 %.

So a network begins nearly as one without the head, at the same loss. With a gate that began half open, it would first
have to unlearn a pointer that points nowhere; a shut one would get no gradient to open it.
"""


class Copies(NamedTuple):
    """Output of the copy head at some positions of the target.

    Attributes:
        ids: the prefix of each position, MASK included.
        log_keep: log(1 - g), the share of the softmax over the vocabulary; 0 where the whole prefix is MASK.
        log_copy: log g, the share of the pointer; -inf where the whole prefix is MASK.
        log_pointer: log a_j of every token of the prefix; -inf where it is MASK.
    """

    ids: Int[Tensor, "*M P"]
    log_keep: Float[Tensor, "*M"]
    log_copy: Float[Tensor, "*M"]
    log_pointer: Float[Tensor, "*M P"]

    def select(self, kept: Bool[Tensor, " M"] | slice) -> "Copies":
        """The output at some of the rows."""
        return Copies(*(values[kept] for values in self))

    def log_prob_copied(self, x0: Int[Tensor, "*M"]) -> Float[Tensor, "*M"]:
        """log g + log sum_{j: prefix[j] = x0} a_j; -inf where the prefix does not hold `x0`."""
        is_x0 = (self.ids == x0[..., None]) & (self.log_pointer > -torch.inf)
        is_there = is_x0.any(-1)
        # The logsumexp of a row that is all -inf has a NaN gradient, so such rows are replaced before it.
        places = self.log_pointer.masked_fill(~is_x0, -torch.inf).masked_fill(~is_there[..., None], 0.0)
        log_prob = self.log_copy + torch.logsumexp(places, dim=-1)
        return log_prob.masked_fill(~is_there, -torch.inf)

    def mixed(self, logits: Float[Tensor, "*M N"], vocab_size: int) -> Float[Tensor, "*M N"]:
        """log p(x0) of every token, which sums to one over the tokens; the column of MASK is -inf.

        p(x0) = (1 - g) softmax_V(logits)[x0] + g sum_{j: prefix[j] = x0} a_j
        """
        own = self.log_keep[..., None] + F.log_softmax(logits[..., :vocab_size], dim=-1)
        is_same = self.ids[..., :, None] == self.ids[..., None, :]
        mass = torch.where(is_same, self.log_pointer.exp()[..., None, :], 0.0).sum(-1)
        # Every token is written once, from its first place in the prefix. Other places write -inf to MASK's column.
        is_first = ~is_same.tril(-1).any(-1) & (mass > 0)
        column = torch.where(is_first, self.ids, vocab_size)
        log_copied = mass.masked_fill(~is_first, 1.0).log() + self.log_copy[..., None].masked_fill(~is_first, 0.0)
        own = F.pad(own, (0, 1), value=-torch.inf)
        before = own.gather(-1, column).masked_fill(~is_first, 0.0)
        both = log_add(before, log_copied).masked_fill(~is_first, -torch.inf)
        return own.scatter(-1, column, both)


class States(NamedTuple):
    """Everything that determines the law of the clean token at some positions.

    Attributes:
        hidden: last hidden states, the input of the output layer.
        copies: output of the copy head; None for a network without one, and where there is no prefix.
    """

    hidden: Float[Tensor, "*M D"]
    copies: Copies | None

    def select(self, kept: Bool[Tensor, " M"] | slice) -> "States":
        """The states of some of the rows."""
        return States(self.hidden[kept], None if self.copies is None else self.copies.select(kept))


class CopyHead(nn.Module):
    """A pointer over the tokens of the prefix, and the gate between it and the vocabulary.

    a = softmax_j( q(h) . k(p_j) / sqrt(D) ) over the tokens of the prefix that are not MASK, g = sigmoid(w . h + b),
    with h the last hidden state of a position and p_j the residual stream of a prefix token before the last block.

    Args:
        width: D.
        mask_id: index of MASK.
    """

    def __init__(self, width: int, mask_id: int) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.norm_key = LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, _CLOSED)

    def keys(self, x_BPD: Float[Tensor, "B P D"]) -> Float[Tensor, "B P D"]:
        """The keys of a prefix, from its residual stream before the last block."""
        return self.key(self.norm_key(x_BPD))

    def forward(
        self,
        hidden: Float[Tensor, "*M D"],
        keys_BPD: Float[Tensor, "B P D"],
        ids_BP: Int[Tensor, "B P"],
        *,
        length: int,
        rows: Rows | None,
    ) -> Copies:
        """The pointer and the gate at every position of the target, or at some `rows` of it.

        Args:
            hidden: last hidden states, (B, L, D), or (M, D) with `rows`.
            keys_BPD: keys of the prefixes.
            ids_BP: ids of the prefixes.
            length: positions L of the target.
            rows: the positions of `hidden`; None for all.
        """
        query = self.query(hidden) / math.sqrt(hidden.shape[-1])
        if rows is None:
            scores, ids = torch.bmm(query, keys_BPD.transpose(1, 2)), ids_BP[:, None].expand(-1, length, -1)
        else:
            # One product for every sequence: keys gathered for every row would be P times as large as the rows.
            whole = query.new_zeros(len(keys_BPD), length, query.shape[-1])
            whole = whole.index_put((rows.batch, rows.position), query)
            scores, ids = rows.of(torch.bmm(whole, keys_BPD.transpose(1, 2))), ids_BP[rows.batch]
        is_absent = ids == self.mask_id
        is_empty = is_absent.all(-1)
        gate = self.gate(hidden)[..., 0].masked_fill(is_empty, -torch.inf)
        scores = scores.masked_fill(is_absent & ~is_empty[..., None], -torch.inf)
        log_pointer = F.log_softmax(scores, dim=-1).masked_fill(is_absent, -torch.inf)
        return Copies(ids, F.logsigmoid(-gate), F.logsigmoid(gate), log_pointer)
