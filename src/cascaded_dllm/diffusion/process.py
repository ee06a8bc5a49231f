"""Forward processes: continuous-time Markov chains that noise each token on its own.

The kernel after total noise sigma is exp(sigma Q). The rate matrix Q of both processes leaves a clean token at rate 1
(the uniform one at 1 - 1 / N). The SEDD code calls processes graphs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.checks import one_of


def _column(sigma: Tensor, like: Tensor) -> Tensor:
    """`sigma` of shape (B,) with trailing axes of size one, to broadcast against a tensor of shape (B, ...)."""
    return sigma.reshape(sigma.shape + (1,) * (like.dim() - sigma.dim()))


@dataclass(frozen=True, slots=True)
class AbsorbingProcess:
    """Tokens turn into MASK and stay MASK (Lou et al. 2024, arXiv:2310.16834, Eq. 16).

        p(xt = MASK | x0) = 1 - exp(-sigma),    p(xt = x0 | x0) = exp(-sigma)

    The states are the `vocab_size` tokens and MASK, which is the last one.
    """

    vocab_size: int

    @property
    def num_states(self) -> int:
        """Number of states N = V + 1."""
        return self.vocab_size + 1

    @property
    def mask_id(self) -> int:
        """Index of the absorbing state."""
        return self.vocab_size

    def sample_xt(
        self, x0: Int[Tensor, "B L"], sigma: Float[Tensor, " B"], u: tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]
    ) -> Int[Tensor, "B L"]:
        """Noised ids drawn from p(xt | x0), using the first of two uniform numbers a token."""
        has_moved = u[0] < -torch.expm1(-sigma.to(u[0].dtype))[:, None]
        return torch.where(has_moved, self.mask_id, x0)

    def transition_probs(self, x: Int[Tensor, "B *L"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *L N"]:
        """Row x of exp(sigma Q): the law of xt given x0 = x."""
        stay = torch.exp(-_column(sigma, x))
        probs = F.one_hot(x, self.num_states).to(sigma) * stay[..., None]
        probs[..., self.mask_id] += 1 - stay
        return probs

    def transposed_transition_probs(
        self, x: Int[Tensor, "B *L"], sigma: Float[Tensor, " B"]
    ) -> Float[Tensor, "B *L N"]:
        """Column x of exp(sigma Q): p(xt = x | x0 = y) for every y."""
        stay = torch.exp(-_column(sigma, x))
        probs = F.one_hot(x, self.num_states).to(sigma) * stay[..., None]
        return probs + torch.where(x == self.mask_id, 1 - stay, torch.zeros_like(stay))[..., None]

    def transposed_rates(self, x: Int[Tensor, "B *L"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "B *L N"]:
        """Column x of Q off the diagonal: the rate y -> x for every y; zero at y = x."""
        into_mask = (x == self.mask_id)[..., None].expand(*x.shape, self.num_states)
        return (into_mask & (torch.arange(self.num_states, device=x.device) != self.mask_id)).to(dtype)

    def staggered_score(
        self, score: Float[Tensor, "B *L N"], delta_sigma: Float[Tensor, " B"]
    ) -> Float[Tensor, "B *L N"]:
        """exp(-delta_sigma Q) applied to a vector of ratios: p_s(y) / p_t(xt) from p_t(y) / p_t(xt) (Eq. 19-20)."""
        growth = torch.exp(_column(delta_sigma, score))
        staggered = score * growth
        staggered[..., self.mask_id] += ((1 - growth) * score.sum(-1, keepdim=True))[..., 0]
        return staggered


@dataclass(frozen=True, slots=True)
class UniformProcess:
    """Tokens jump to a uniformly chosen token (Lou et al. 2024, Eq. 15, scaled by 1 / N): Q = (1/N) 11^T - I.

    p(xt = j | x0 = i) = exp(-sigma) [i = j] + (1 - exp(-sigma)) / N
    """

    vocab_size: int

    @property
    def num_states(self) -> int:
        """Number of states N = V."""
        return self.vocab_size

    def sample_xt(
        self, x0: Int[Tensor, "B L"], sigma: Float[Tensor, " B"], u: tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]
    ) -> Int[Tensor, "B L"]:
        """Noised ids drawn from p(xt | x0): one uniform number says whether a token jumps, the other where to."""
        has_jumped = u[0] < -torch.expm1(-sigma.to(u[0].dtype))[:, None]
        jump = (u[1] * self.num_states).long().clamp_max(self.num_states - 1)
        return torch.where(has_jumped, jump, x0)

    def transition_probs(self, x: Int[Tensor, "B *L"], sigma: Float[Tensor, " B"]) -> Float[Tensor, "B *L N"]:
        """Row x of exp(sigma Q): the law of xt given x0 = x."""
        stay = torch.exp(-_column(sigma, x))[..., None]
        return F.one_hot(x, self.num_states).to(sigma) * stay + (1 - stay) / self.num_states

    def transposed_transition_probs(
        self, x: Int[Tensor, "B *L"], sigma: Float[Tensor, " B"]
    ) -> Float[Tensor, "B *L N"]:
        """Column x of exp(sigma Q), which equals row x because Q is symmetric."""
        return self.transition_probs(x, sigma)

    def transposed_rates(self, x: Int[Tensor, "B *L"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "B *L N"]:
        """Column x of Q off the diagonal: 1 / N for every y but x."""
        return (1 - F.one_hot(x, self.num_states).to(dtype)) / self.num_states

    def staggered_score(
        self, score: Float[Tensor, "B *L N"], delta_sigma: Float[Tensor, " B"]
    ) -> Float[Tensor, "B *L N"]:
        """exp(-delta_sigma Q) applied to a vector of ratios: p_s(y) / p_t(xt) from p_t(y) / p_t(xt) (Eq. 19-20)."""
        delta = _column(delta_sigma, score)
        return torch.exp(delta) * score - torch.expm1(delta) * score.mean(-1, keepdim=True)


Process = AbsorbingProcess | UniformProcess


def process_from_name(name: str, vocab_size: int) -> Process:
    """The forward process called `name` over `vocab_size` tokens.

    Raises:
        ConfigError: the name is neither absorbing nor uniform.
    """
    known: dict[str, type[Process]] = {"absorbing": AbsorbingProcess, "uniform": UniformProcess}
    return known[one_of("the process", name, known)](vocab_size)
