"""Score entropy, the training loss of discrete diffusion, for the uniform process; `fused_loss` has the absorbing one.

Lou et al. 2024 (arXiv:2310.16834v3), Eq. 9-10: at a noised token xt with clean token x0,

    sum_{y != xt} Q[xt, y] ( exp(log_score[y]) - a_y log_score[y] + a_y (log a_y - 1) ),   a_y = p(y | x0) / p(xt | x0)

Multiplied by dsigma(t), summed over positions and integrated over t in [0, 1], it bounds -log p(x0) from above, in
nats, up to the prior term (see `bound`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def require_full_precision(tensor: Tensor, name: str) -> None:
    """Raise TypeError unless `tensor` is float32 or float64."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} is {tensor.dtype}; it must be float32 or float64, because exp() in half precision loses "
            "the small ratios that carry the signal: cast it with .float()"
        )


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
    require_full_precision(log_score, "log_score")
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
