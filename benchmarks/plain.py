"""The plain reference: training and sampling as the formulas are written, with tensors of (B, L, N) throughout.

It shares the network and the noise with the package, so that the two can be compared, but nothing that makes the
package fast. Called without a prefix, on prefix and target as one sequence, it computes the same for joint attention
with tensors of (B, P + L, N), like code that does not distinguish a prefix.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from cascaded_dllm.model.score_model import ScoreModel


def plain_loss(
    model: ScoreModel, x0: Tensor, prefix: Tensor | None, xt: Tensor, sigma: Tensor, dsigma: Tensor
) -> Tensor:
    """Mean over sequences of dsigma * absorbing score entropy (Lou et al. 2024, arXiv:2310.16834, Eq. 9-10 and 16).

    At a masked position, with r = 1 / expm1(sigma):

        sum_{y != MASK} score[y]  -  r * log_score[x0]  +  r * (log r - 1)
    """
    mask_id = model.config.vocab_size
    log_score = model(xt, sigma, prefix)
    r = 1 / torch.expm1(sigma)[:, None]
    positive = log_score[..., :mask_id].exp().sum(-1)
    negative = r * log_score.gather(-1, x0[..., None])[..., 0]
    entropy = torch.where(xt == mask_id, positive - negative + r * (r.log() - 1), 0.0)
    return (dsigma[:, None] * entropy).sum(-1).mean()


@dataclass
class PlainTraining:
    """Training step by step: one kernel a tensor for the optimizer, a loop over tensors for the moving average.

    Attributes:
        model: the network in training.
        lr: learning rate.
        ema_decay: decay of the moving average.
        grad_clip: largest norm of the gradient.
        average: moving average of the weights.
    """

    model: ScoreModel
    lr: float
    ema_decay: float
    grad_clip: float
    _optimizer: torch.optim.AdamW = field(init=False)
    average: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.lr, weight_decay=0.0, foreach=False, fused=False
        )
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]

    def step(self, x0: Tensor, prefix: Tensor | None, xt: Tensor, sigma: Tensor, dsigma: Tensor) -> float:
        """One optimizer step; returns the loss in nats a sequence."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = plain_loss(self.model, x0, prefix, xt, sigma, dsigma)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip, foreach=False)
        self._optimizer.step()
        with torch.no_grad():
            for shadow, parameter in zip(self.average, self.model.parameters(), strict=True):
                shadow.sub_((1 - self.ema_decay) * (shadow - parameter))
        return float(loss.detach())


@torch.no_grad()
def plain_analytic_step(
    model: ScoreModel, xt: Tensor, prefix: Tensor | None, sigma_t: Tensor, sigma_s: Tensor
) -> Tensor:
    """The state at noise sigma_s drawn from Tweedie's step (Lou et al. 2024, Eq. 19-20) by a race in float64.

    P(xs = y) = (exp(-delta_sigma Q) score)[y] * exp(delta_sigma Q)[y, xt],   delta_sigma = sigma_t - sigma_s
    """
    mask_id, num_states = model.config.vocab_size, model.config.num_states
    delta = (sigma_t - sigma_s)[:, None]
    score = model(xt, sigma_t, prefix).exp()
    staggered = score * delta.exp()[..., None]
    staggered[..., mask_id] += (1 - delta.exp()) * score.sum(-1)
    transition = F.one_hot(xt, num_states) * (-delta).exp()[..., None]
    transition += torch.where(xt == mask_id, 1 - (-delta).exp(), 0.0)[..., None]
    probs = staggered * transition
    exponential = -torch.rand(probs.shape, dtype=torch.float64, device=probs.device).log()
    return (probs / exponential).argmax(-1)
