"""The score entropy of the absorbing process for large vocabularies: loss and gradients in one pass over the logits.

No tensor of (B, L, N) ever exists. Only the rows of masked positions go through the output layer, a chunk at a time,
and their gradients are formed while their logits exist. The loss must equal tests/reference/plain_loss.py.
"""

from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cascaded_dllm.blocked_softmax import Block, BlockedSoftmax, Tiles
from cascaded_dllm.diffusion.row_softmax import RowSoftmax
from cascaded_dllm.diffusion.score_entropy import require_full_precision
from cascaded_dllm.numerics import log_add, log_expm1

Parameterization = Literal["score", "normalized"]

_COLUMN_MULTIPLE = {"cuda": 64}
"""By device, the multiple to which the number of columns is padded; other devices have a column for every token.

The fast matrix products of a GPU need aligned rows, and 50,257, the vocabulary size of GPT-2, is odd.
"""


class Mixture(NamedTuple):
    """A mixture of the softmax with another law, for every row: p(x0) = share * softmax[x0] + exp(log_other).

    Attributes:
        log_share: log of the share of the softmax.
        log_other: log of (share of the other law * its probability of the clean token); -inf if that is zero.
    """

    log_share: Float[Tensor, " M"]
    log_other: Float[Tensor, " M"]


class LossExecution(NamedTuple):
    """How the loss is computed on its device.

    Attributes:
        gradient_dtype: dtype of the products over the vocabulary that form the gradients; None for the dtype of the
            hidden states, in which the products are always summed. It does not affect the logits, the loss, and the
            clean token's part of the gradients, which nearly cancels that of all others when its probability is near 1.
        compiles: whether the work of a GPU on the logits goes through torch.compile.
    """

    gradient_dtype: torch.dtype | None = None
    compiles: bool = False


PLAIN_EXECUTION = LossExecution()
"""Everything in the dtype of the hidden states, without compilation."""


def fused_absorbing_score_entropy(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "N D"],
    bias: Float[Tensor, " N"],
    x0: Int[Tensor, " M"],
    sigma: Float[Tensor, " M"],
    row_weight: Float[Tensor, " M"],
    *,
    parameterization: Parameterization,
    log_scale: Float[Tensor, " M"] | None = None,
    mixture: Mixture | None = None,
    execution: LossExecution = PLAIN_EXECUTION,
) -> tuple[Float[Tensor, ""], Float[Tensor, " M"]]:
    """Weighted sum of the absorbing score entropy over masked positions, straight from the last hidden states.

    Both parameterisations depend on the logits over the V tokens only through their logsumexp and the logit of x0:

        score:       exp(lse - c) - r (logit[x0] - c) + r (log r - 1),   c = log_scale
        normalized:  r (lse - logit[x0]),   with a mixture  -r logaddexp(log_share + logit[x0] - lse, log_other)

    so neither a (B, L, N) tensor nor the rows of unmasked positions ever exist. Logits live for one chunk of rows (with
    `score` for one block of columns), and the gradients with respect to `hidden`, `weight` and `bias` are formed from
    them in the same pass. A mixture is computed beforehand, so the share rho of the softmax in p(x0) is known as soon
    as lse is. It scales the slope of the row, and -r rho and -r (1 - rho) are the slopes with respect to `log_share`
    and `log_other`. The clean token's part of the gradients is computed apart from that of all other tokens, because
    the two nearly cancel when the fit is good.

    Args:
        hidden: final hidden states at the masked positions only; the loss is computed in its dtype.
        weight: output weights; the row of MASK (the last) is ignored and gets gradient zero.
        bias: output bias; the entry of MASK is ignored too.
        x0: clean ids at those positions.
        sigma: total noise of each row's sequence, > 0.
        row_weight: factor of each row in the sum, for example dsigma / batch size.
        parameterization: how logits become scores.
        log_scale: c of the formula, log(expm1(sigma)) + log V for a network scaled by sigma and zero for one that is
            not; read for `score` only.
        mixture: what the softmax is mixed with, for `normalized` only; None for the softmax alone.
        execution: how the loss is computed.

    Returns:
        The weighted sum, which carries the gradient, and every row's score entropy, which does not.

    Raises:
        TypeError: `hidden` is in half precision, or the parameterization is `score` and `log_scale` is missing or
            `mixture` is given.
    """
    require_full_precision(hidden, "hidden")
    if parameterization == "score" and log_scale is None:
        raise TypeError("log_scale is None; the score parameterization needs it: zeros where scores are not scaled")
    if parameterization == "score" and mixture is not None:
        raise TypeError("mixture is given and the parameterization is score, whose softmax is not a law: give None")
    log_r = -log_expm1(sigma.to(hidden.dtype))
    scale = log_scale.to(hidden.dtype) if log_scale is not None and parameterization == "score" else None
    if not torch.is_grad_enabled():
        # Parameters require a gradient even when none is recorded, and computing it is two thirds of the work.
        hidden, weight, bias = hidden.detach(), weight.detach(), bias.detach()
    share, other = (None, None) if mixture is None else mixture
    arguments = (hidden, weight, bias, share, other, x0, log_r, row_weight.to(hidden.dtype), scale, execution)
    total, rows = _FusedScoreEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return total, rows


class _FusedScoreEntropy(torch.autograd.Function):
    """The fused loss; gradients are computed in the forward pass because the logits are gone afterwards."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        log_share: Tensor | None,
        log_other: Tensor | None,
        x0: Tensor,
        log_r: Tensor,
        row_weight: Tensor,
        scale: Tensor | None,
        execution: LossExecution,
    ) -> tuple[Tensor, Tensor]:
        num_rows, num_states = hidden.shape[0], weight.shape[0]
        token_weight, token_bias = _of_tokens(weight, bias, hidden.dtype)
        num_columns = len(token_bias)
        needs_grad = any(ctx.needs_input_grad[:5])  # type: ignore[attr-defined]
        exps = (execution.gradient_dtype or hidden.dtype) if needs_grad else hidden.dtype
        rows, own, clean = (torch.empty_like(row_weight) for _ in range(3))
        grads: tuple[Tensor, ...] = _new_gradients(hidden, num_states, num_columns) if needs_grad else ()
        weight_factor = token_weight.to(exps)
        # The slopes of `score` do not need the logsumexp, so a block is finished before the next one is made.
        tiles = Tiles.of(
            num_rows, num_columns, hidden.device, hidden.dtype, exps=exps, apart=needs_grad and scale is None
        )
        memory = tiles.memory(hidden)
        Softmax = RowSoftmax if execution.compiles and needs_grad and hidden.is_cuda else BlockedSoftmax
        for part in tiles.chunks:
            grads_of_part = (grads[0][part], *grads[1:]) if grads else ()
            add = partial(_add_others, grads_of_part, weight_factor, is_first=part.start == 0)
            sloped = partial(Sloped.of, hidden[part], dtype=exps)
            shift = None if scale is None else scale[part]
            softmax, kept = Softmax(hidden[part], token_weight, token_bias, x0[part], shift), []
            slope = sloped(row_weight[part]) if needs_grad and scale is not None else None
            for block in softmax.blocks(tiles, memory):
                if slope is not None:
                    add(block, slope)
                elif needs_grad:
                    kept.append(block)
            given = (None if values is None else values[part] for values in (log_share, log_other))
            rows[part], mass, own[part] = _entropy(
                softmax.at_x0, softmax.log_sum, log_r[part], *given, is_score=scale is not None
            )
            if needs_grad:
                clean[part] = (mass * softmax.of_x0 - own[part]) * row_weight[part]
            for block in kept:
                add(block, sloped(softmax.factor(block) * mass * row_weight[part]))
        if grads:
            # A clean id that is not a token has already made the loss NaN.
            _add_clean(grads, clean, x0.clamp(0, num_states - 2), hidden, token_weight)
            grads = (grads[0], grads[1][:num_states], grads[2][:num_states])
        if grads and log_share is not None:
            grads = (*grads, -own * row_weight, (own - log_r.exp()) * row_weight)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(rows)
        ctx.dtypes = (weight.dtype, bias.dtype)  # type: ignore[attr-defined]
        return torch.dot(rows, row_weight), rows

    @staticmethod
    def backward(ctx: FunctionCtx, grad_total: Tensor, grad_rows: Tensor) -> tuple[Tensor | None, ...]:
        weight_dtype, bias_dtype = ctx.dtypes  # type: ignore[attr-defined]
        grads = ctx.saved_tensors  # type: ignore[attr-defined]
        # A product with one would cost a CPU as many fresh pages as the weights have. On a GPU, the comparison would
        # make the host wait.
        if grad_total.device.type != "cpu" or grad_total != 1:
            grads = tuple(grad * grad_total for grad in grads)
        hidden_grad, weight_grad, bias_grad, *mixture_grads = grads
        share_grad, other_grad = mixture_grads or (None, None)
        weight_grad, bias_grad = weight_grad.to(weight_dtype), bias_grad.to(bias_dtype)
        return hidden_grad, weight_grad, bias_grad, share_grad, other_grad, None, None, None, None, None


def _entropy(
    at_x0: Float[Tensor, " M"],
    log_sum: Float[Tensor, " M"],
    log_r: Float[Tensor, " M"],
    log_share: Float[Tensor, " M"] | None,
    log_other: Float[Tensor, " M"] | None,
    *,
    is_score: bool,
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Score entropy of every row, and the factors (mass, own) of its slope mass * softmax(logits)[y] - own * [y = x0].

    Args:
        at_x0: logit of the clean token; with `is_score`, minus c.
        log_sum: logsumexp of the logits; with `is_score`, minus c.
        log_r: log of 1 / expm1(sigma).
        log_share: `log_share` of a mixture; None without one.
        log_other: `log_other` of a mixture; None without one.
        is_score: whether the parameterization is `score` rather than `normalized`.
    """
    r = log_r.exp()
    if is_score:
        mass = log_sum.exp()
        return mass - r * at_x0 + r * (log_r - 1), mass, r
    if log_share is None or log_other is None:
        return r * (log_sum - at_x0), r, r
    log_own = log_share + at_x0 - log_sum
    log_prob = log_add(log_own, log_other)
    own = r * torch.exp(log_own - log_prob)
    return -r * log_prob, own, own


def _of_tokens(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights and bias of the tokens, padded with columns of weight 0 and bias -inf, whose probability is zero."""
    weight, bias = weight[:-1].to(dtype), bias[:-1].to(dtype)
    missing = -len(bias) % _COLUMN_MULTIPLE.get(weight.device.type, 1)
    if missing == 0:
        return weight, bias
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=-torch.inf)


def _new_gradients(hidden: Tensor, num_states: int, num_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the gradients of hidden states, weights and bias; the latter two have a row for each state and column.

    All of it is zero except the weight rows of the columns, which the first chunk overwrites (`_add_others`).
    """
    num_rows = max(num_states, num_columns)
    weight_grad = hidden.new_empty(num_rows, hidden.shape[1])
    weight_grad[num_columns:] = 0
    return torch.zeros_like(hidden), weight_grad, hidden.new_zeros(num_rows)


class Sloped(NamedTuple):
    """The slopes slope * exps of a block, which are never formed: `slope` goes to what the exps are multiplied with.

    Attributes:
        slope: factor of every row.
        hidden: slope * hidden, in the dtype of the exps.
    """

    slope: Float[Tensor, " M"]
    hidden: Float[Tensor, "M D"]

    @classmethod
    def of(cls, hidden: Float[Tensor, "M D"], slope: Float[Tensor, " M"], *, dtype: torch.dtype) -> "Sloped":
        """The slopes of some rows, for exps of this dtype."""
        return cls(slope, (slope[:, None] * hidden).to(dtype))


def _add_others(
    grads: tuple[Tensor, ...], weight: Float[Tensor, "V D"], block: Block, sloped: Sloped, *, is_first: bool
) -> None:
    """Add to the gradients the part of all tokens of a block except the clean one.

    With `is_first`, the gradient of the weights is uninitialised memory and is overwritten.
    """
    hidden_grad, weight_grad, bias_grad = grads
    columns, exps = block.columns, block.exps
    hidden_grad.addcmul_(sloped.slope[:, None], exps @ weight[columns])
    total = weight_grad[columns]
    if exps.dtype == total.dtype:
        torch.addmm(total, exps.T, sloped.hidden, beta=0 if is_first else 1, out=total)
    elif is_first:
        total.copy_(exps.T @ sloped.hidden)
    else:
        total += exps.T @ sloped.hidden
    bias_grad[columns] += exps.T @ sloped.slope.to(exps.dtype)


def _add_clean(
    grads: tuple[Tensor, ...],
    slope: Float[Tensor, " M"],
    x0: Int[Tensor, " M"],
    hidden: Float[Tensor, "M D"],
    token_weight: Float[Tensor, "V D"],
) -> None:
    """Add to the gradients the part of every row's clean token; its slope is mass * softmax(logits)[x0] - own."""
    hidden_grad, weight_grad, bias_grad = grads
    hidden_grad.addcmul_(slope[:, None], token_weight[x0])
    weight_grad.index_add_(0, x0, slope[:, None] * hidden)
    bias_grad.index_add_(0, x0, slope)
