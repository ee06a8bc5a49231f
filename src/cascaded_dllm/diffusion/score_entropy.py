"""Score entropy, the training loss of discrete diffusion: the plain forms, and the fused form for large vocabularies.

Lou et al. 2024 (arXiv:2310.16834v3), Eq. 9-10: at a noised token xt with clean token x0,

    sum_{y != xt} Q[xt, y] ( exp(log_score[y]) - a_y log_score[y] + a_y (log a_y - 1) ),   a_y = p(y | x0) / p(xt | x0)

Times dsigma(t), summed over positions and integrated over t in [0, 1] it bounds -log p(x0) from above, in nats.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cascaded_dllm.numerics import log_expm1

Parameterization = Literal["score", "normalized"]

_CHUNK_ELEMENTS = 1 << 24
"""Logits held at once by the fused loss, 64 MB in float32. Every chunk goes through the output weights twice and
through their gradient once, so smaller ones are slower."""
_CHUNK_ELEMENTS_ON_GPU = 1 << 26
"""The same on a GPU, 256 MB; a tenth of a step of `small` is the price of a quarter of it, larger ones gain nothing."""
_COLUMN_MULTIPLE = {"cuda": 64}
"""By device, what the number of columns is filled up to; elsewhere they are as many as tokens.

The fast products of a GPU want rows that begin at round addresses, and 50,257 tokens are odd.
"""


def _require_full_precision(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} is {tensor.dtype}; it must be float32 or float64, because exp() in half precision loses "
            "the small ratios that carry the signal: cast it with .float()"
        )


def absorbing_score_entropy(
    log_score: Float[Tensor, "B L N"],
    xt: Int[Tensor, "B L"],
    x0: Int[Tensor, "B L"],
    sigma: Float[Tensor, " B"],
    *,
    mask_id: int,
) -> Float[Tensor, "B L"]:
    """Score entropy of every position under the absorbing process; zero where `xt` is not MASK.

    With Q of Eq. 16 and r = 1 / expm1(sigma), at a masked position:

        sum_{y != MASK} exp(log_score[y])  -  r log_score[x0]  +  r (log r - 1)

    which is >= 0, and 0 only if exp(log_score) is r at x0 and 0 elsewhere.

    Args:
        log_score: natural log of the concrete score. Column `mask_id` is ignored.
        xt: noised ids.
        x0: clean ids; none of them is `mask_id` (the data layer guarantees it; reading them here would stall a GPU).
        sigma: total noise, > 0.
        mask_id: index of the absorbing state, the last one.

    Returns:
        Nats per unit of total noise.

    Raises:
        TypeError: `log_score` is in half precision.
    """
    _require_full_precision(log_score, "log_score")
    log_r = -log_expm1(sigma.to(log_score.dtype))[:, None]
    r = log_r.exp()
    entropy = log_score[..., :mask_id].exp().sum(-1) - r * log_score.gather(-1, x0[..., None])[..., 0] + r * (log_r - 1)
    return torch.where(xt == mask_id, entropy, torch.zeros_like(entropy))


def uniform_score_entropy(
    log_score: Float[Tensor, "B L N"],
    xt: Int[Tensor, "B L"],
    x0: Int[Tensor, "B L"],
    sigma: Float[Tensor, " B"],
) -> Float[Tensor, "B L"]:
    """Score entropy of every position under the uniform process, with Q[xt, y] = 1 / N (Eq. 15 scaled by 1 / N).

    With rho = p(j | i) / p(i | i) = expm1(sigma) / (N + expm1(sigma)) for j != i, the ratios a_y are rho for every y
    if xt = x0; otherwise they are 1 except 1 / rho at y = x0.

    Returns:
        Nats per unit of total noise.

    Raises:
        TypeError: `log_score` is in half precision.
    """
    _require_full_precision(log_score, "log_score")
    num_states = log_score.shape[-1]
    grown = torch.expm1(sigma.to(log_score.dtype))[:, None]
    log_rho = torch.log(grown / (num_states + grown))
    rho = log_rho.exp()
    is_clean = xt == x0

    at_xt = log_score.gather(-1, xt[..., None])[..., 0]
    at_x0 = log_score.gather(-1, x0[..., None])[..., 0]
    others = log_score.sum(-1) - at_xt
    positive = log_score.exp().sum(-1) - at_xt.exp()
    cross = torch.where(is_clean, rho * others, others - at_x0 + at_x0 / rho)
    constant = torch.where(
        is_clean,
        (num_states - 1) * rho * (log_rho - 1),
        -(log_rho + 1) / rho - (num_states - 2),
    )
    return (positive - cross + constant) / num_states


class Mixture(NamedTuple):
    """What the softmax over the tokens is mixed with at every row: p(x0) = share * softmax[x0] + exp(log_other).

    Attributes:
        log_share: log of the share of the softmax.
        log_other: log of what another distribution, times its own share, gives the clean token; -inf for nothing.
    """

    log_share: Float[Tensor, " M"]
    log_other: Float[Tensor, " M"]


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
) -> tuple[Float[Tensor, ""], Float[Tensor, " M"]]:
    """Weighted sum of the absorbing score entropy over masked positions, straight from the last hidden states.

    Both parameterisations depend on the logits over the V tokens only through their logsumexp and the logit of x0:

        score:       exp(lse - c) - r (logit[x0] - c) + r (log r - 1),   c = log_scale
        normalized:  r (lse - logit[x0]),   with a mixture  -r logaddexp(log_share + logit[x0] - lse, log_other)

    so neither a (B, L, N) tensor nor the rows of unmasked positions ever exist. Logits live for one chunk of rows at a
    time, and the gradients with respect to `hidden`, `weight` and `bias` are formed from them in the same pass. What a
    mixture holds is there before, so that the share rho of the softmax in p(x0) is known as soon as lse is. It scales
    the slope of the row, and -r rho and -r (1 - rho) are the slopes with respect to `log_share` and `log_other`.

    Args:
        hidden: final hidden states at the masked positions only; its dtype is that of the arithmetic.
        weight: output weights; the row of MASK (the last) is ignored and gets gradient zero.
        bias: output bias, likewise.
        x0: clean ids at those positions.
        sigma: total noise of each row's sequence, > 0.
        row_weight: factor of each row in the sum, for example dsigma / batch size.
        parameterization: how logits become scores.
        log_scale: c of the formula, log(expm1(sigma)) + log V for a network scaled by sigma and zero for one that is
            not; read for `score` only.
        mixture: what the softmax is mixed with, for `normalized` only; None for nothing.

    Returns:
        The weighted sum, which carries the gradient, and every row's score entropy, which does not.

    Raises:
        TypeError: `hidden` is in half precision, or the parameterization lacks what it needs or is given what it has no
            use for.
    """
    _require_full_precision(hidden, "hidden")
    if parameterization == "score" and log_scale is None:
        raise TypeError("log_scale is None; the score parameterization needs it: zeros where scores are not scaled")
    if parameterization == "score" and mixture is not None:
        raise TypeError("mixture is given and the parameterization is score, whose softmax is no law: give None")
    log_r = -log_expm1(sigma.to(hidden.dtype))
    scale = log_scale.to(hidden.dtype) if log_scale is not None and parameterization == "score" else None
    if not torch.is_grad_enabled():
        # Parameters ask for a gradient even where none is kept, and it is two thirds of the work.
        hidden, weight, bias = hidden.detach(), weight.detach(), bias.detach()
    share, other = (None, None) if mixture is None else mixture
    arguments = (hidden, weight, bias, share, other, x0, log_r, row_weight.to(hidden.dtype), scale)
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
    ) -> tuple[Tensor, Tensor]:
        num_rows, num_states = hidden.shape[0], weight.shape[0]
        token_weight, token_bias = _of_tokens(weight, bias, hidden.dtype)
        num_columns = len(token_bias)
        needs_grad = any(ctx.needs_input_grad[:5])  # type: ignore[attr-defined]
        rows, own = torch.empty_like(row_weight), torch.empty_like(row_weight)
        grads: tuple[Tensor, ...] = _new_gradients(hidden, num_states, num_columns) if needs_grad else ()
        size = _rows_of_a_chunk(num_rows, num_columns, _CHUNK_ELEMENTS_ON_GPU if hidden.is_cuda else _CHUNK_ELEMENTS)
        # One piece of memory for the logits of all chunks: on a CPU, fresh pages cost as much as a pass over them.
        buffer = hidden.new_empty(size, num_columns)
        for start in range(0, max(1, num_rows), size):
            part = slice(start, start + size)
            states = hidden[part]
            logits = torch.addmm(token_bias, states, token_weight.T, out=buffer[: len(states)])
            at_x0 = logits.gather(-1, x0[part, None])[:, 0]
            weights, total, log_sum = _exp_in_place(logits)
            given = (None if values is None else values[part] for values in (scale, log_share, log_other))
            rows[part], mass, own[part] = _entropy(at_x0, log_sum, log_r[part], *given)
            if grads:
                # d row / d logits = mass * softmax(logits) - own [y = x0], weighted by the row's factor
                slope = weights.mul_((mass * row_weight[part] / total)[:, None])
                slope.scatter_add_(-1, x0[part, None], -(own[part] * row_weight[part])[:, None])
                hidden_grad, weight_grad, bias_grad = grads[0], grads[1][:num_columns], grads[2][:num_columns]
                torch.mm(slope, token_weight, out=hidden_grad[part])
                # The first chunk writes, since beta = 0 ignores what the memory held before; the others add.
                torch.addmm(weight_grad, slope.T, states, beta=min(start, 1), out=weight_grad)
                bias_grad += slope.sum(0)
        if grads:
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
        # A product with one would cost a CPU as many fresh pages as the weights have; a GPU would have to wait to know.
        if grad_total.device.type != "cpu" or grad_total != 1:
            grads = tuple(grad * grad_total for grad in grads)
        hidden_grad, weight_grad, bias_grad, *mixture_grads = grads
        share_grad, other_grad = mixture_grads or (None, None)
        weight_grad, bias_grad = weight_grad.to(weight_dtype), bias_grad.to(bias_dtype)
        return hidden_grad, weight_grad, bias_grad, share_grad, other_grad, None, None, None, None


def _entropy(
    at_x0: Float[Tensor, " M"],
    log_sum: Float[Tensor, " M"],
    log_r: Float[Tensor, " M"],
    scale: Float[Tensor, " M"] | None,
    log_share: Float[Tensor, " M"] | None,
    log_other: Float[Tensor, " M"] | None,
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Score entropy of rows, and the factors of softmax(logits) and of [y = x0] in its slope.

    Args:
        at_x0: logit of the clean token.
        log_sum: logsumexp of the logits.
        log_r: log of 1 / expm1(sigma).
        scale: c of the `score` parameterization; None for `normalized`.
        log_share: of a mixture; None without one.
        log_other: likewise.
    """
    r = log_r.exp()
    if scale is not None:
        mass = torch.exp(log_sum - scale)
        return mass - r * (at_x0 - scale) + r * (log_r - 1), mass, r
    if log_share is None or log_other is None:
        return r * (log_sum - at_x0), r, r
    log_own = log_share + at_x0 - log_sum
    log_prob = torch.logaddexp(log_own, log_other)
    own = r * torch.exp(log_own - log_prob)
    return -r * log_prob, own, own


def _of_tokens(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights and bias of the tokens; columns that no row chooses fill them up, of weight 0 and bias -inf."""
    weight, bias = weight[:-1].to(dtype), bias[:-1].to(dtype)
    missing = -len(bias) % _COLUMN_MULTIPLE.get(weight.device.type, 1)
    if missing == 0:
        return weight, bias
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=-torch.inf)


def _new_gradients(hidden: Tensor, num_states: int, num_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the gradients, of as many states as there are columns at least.

    Zeros in the row of MASK, where it is not written, and in the bias, which is summed up.
    """
    num_rows = max(num_states, num_columns)
    weight_grad = hidden.new_empty(num_rows, hidden.shape[1])
    weight_grad[num_columns:] = 0
    return torch.empty_like(hidden), weight_grad, hidden.new_zeros(num_rows)


def _rows_of_a_chunk(num_rows: int, num_columns: int, most_elements: int) -> int:
    """Rows whose logits are held at once, the same for every chunk but for rounding: a short last one costs much."""
    most = max(1, most_elements // num_columns)
    num_chunks = max(1, math.ceil(num_rows / most))
    return max(1, math.ceil(num_rows / num_chunks))


def _exp_in_place(
    logits: Float[Tensor, "M V"],
) -> tuple[Float[Tensor, "M V"], Float[Tensor, " M"], Float[Tensor, " M"]]:
    """exp(logits - their largest) in the memory of `logits`, its sum over each row, and logsumexp(logits)."""
    top = logits.amax(-1)
    weights = logits.sub_(top[:, None]).exp_()
    total = weights.sum(-1)
    return weights, total, top + total.log()
