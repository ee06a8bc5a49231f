"""With the exact score the integral of the weighted score entropy is the information that the noise destroys.

The integral over t in [a, b] of dsigma times the mean score entropy equals I(x0; x_a) - I(x0; x_b), which is
H(x0) - I(x0; x_1) where nothing is lost at a = 0. One test for kernel, weight, constant term and schedule together.
"""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.bound import omitted_nats
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.diffusion.score_entropy import uniform_score_entropy
from tests.reference import enumerate as oracle
from tests.reference.plain_loss import absorbing_score_entropy

SIZES = [(3, 2), (2, 3), (4, 1)]
LOGLINEAR, GEOMETRIC = LogLinearSchedule(), GeometricSchedule(1e-3, 6.0)


class Chain:
    """A law of texts over all states of one process, and the mean score entropy of the package under it."""

    def __init__(self, process: str, vocab_size: int, length: int) -> None:
        law = oracle.random_law(vocab_size**length, seed=10 * vocab_size + length)
        absorbing = process == "absorbing"
        self.length, self.mask_id = length, vocab_size if absorbing else None
        self.rates = (oracle.absorbing_rates if absorbing else oracle.uniform_rates)(vocab_size)
        self.law = oracle.with_mask(law, vocab_size, length) if absorbing else law
        self.states = oracle.all_states(len(self.rates), length)
        self.clean = self.law.nonzero()[:, 0]

    def kernel(self, sigma: float) -> Tensor:
        return oracle.joint_kernel(self.rates, sigma, self.length)

    def exact_log_score(self, sigma: float) -> Tensor:
        return oracle.scores(self.law @ self.kernel(sigma), len(self.rates), self.length).log()

    def mean_score_entropy(self, sigma: float, log_score: Tensor) -> float:
        """The sum over all pairs (x0, xt) of p(x0, xt) times the score entropy."""
        joint = (self.law[:, None] * self.kernel(sigma))[self.clean]
        num_states, sigmas = len(self.states), torch.full((len(self.states),), sigma, dtype=torch.float64)
        mean = 0.0
        for row, x0 in zip(joint, self.states[self.clean], strict=True):
            x0 = x0.expand(num_states, -1)
            if self.mask_id is None:
                entropy = uniform_score_entropy(log_score, self.states, x0, sigmas)
            else:
                entropy = absorbing_score_entropy(log_score, self.states, x0, sigmas)
            mean += float(row @ entropy.sum(-1))
        return mean

    def integral(self, schedule: Schedule, low: float, high: float, time_of: Callable[[Tensor], Tensor]) -> float:
        """Over t in [low, high], with the nodes of Gauss and Legendre in the variable w of t = time_of(w)."""
        nodes, weights = oracle.gauss_legendre(40, low, high)
        w = nodes.requires_grad_()
        t = time_of(w)
        (slope,) = torch.autograd.grad(t.sum(), w)
        total = 0.0
        for time, weight in zip(t.detach(), (weights * slope).tolist(), strict=True):
            noise = schedule(time)
            sigma = float(noise.sigma)
            total += weight * float(noise.dsigma) * self.mean_score_entropy(sigma, self.exact_log_score(sigma))
        return total

    def information(self, schedule: Schedule, t: float) -> float:
        sigma = float(schedule(torch.tensor(t, dtype=torch.float64)).sigma)
        return oracle.mutual_information(self.law, self.kernel(sigma))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_integral_is_entropy_minus_what_is_left(process: str, size: tuple[int, int]) -> None:
    """Log-linear noise starts at zero, so the first term is H(x0). Found: 7e-16 absorbing, 6e-15 uniform."""
    chain = Chain(process, *size)
    # The uniform process has an integrand like log t at 0, which t = w^6 takes away.
    power = 1 if process == "absorbing" else 6
    expected = oracle.entropy(chain.law) - chain.information(LOGLINEAR, 1.0)
    assert math.isclose(chain.integral(LOGLINEAR, 0, 1, lambda w: w**power), expected, rel_tol=0, abs_tol=1e-10)


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_integral_under_geometric_noise(process: str) -> None:
    """Geometric noise starts above zero: between two times, the loss is the difference of the mutual information."""
    chain = Chain(process, 3, 2)
    for low, high in ((0.0, 1.0), (0.25, 0.8)):
        expected = chain.information(GEOMETRIC, low) - chain.information(GEOMETRIC, high)
        assert math.isclose(chain.integral(GEOMETRIC, low, high, lambda w: w), expected, rel_tol=0, abs_tol=1e-10)


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_exact_score_is_the_minimum(process: str) -> None:
    """Any other score costs more, so the identity is a floor; a flat error would show as a linear change."""
    chain = Chain(process, 3, 2)
    exact = chain.exact_log_score(0.8)
    noise = torch.randn(exact.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    floor = chain.mean_score_entropy(0.8, exact)
    costs = [chain.mean_score_entropy(0.8, exact + size * noise) - floor for size in (1e-3, 2e-3)]
    assert costs[0] > 0
    assert math.isclose(costs[1] / costs[0], 4, rel_tol=0.05)


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_score_entropy_is_the_sum_over_states(process: str) -> None:
    """Position by position, for scores that belong to nothing; found: 2e-14."""
    chain = Chain(process, 4, 1)
    generator = torch.Generator().manual_seed(3)
    for sigma in (1e-3, 0.5, 5.0):
        log_score = torch.randn(1, 1, len(chain.rates), dtype=torch.float64, generator=generator)
        for x0 in range(4):
            for xt in range(len(chain.rates)):
                at_xt = log_score.clone()
                at_xt[..., xt] = 0.0
                ids = (torch.tensor([[xt]]), torch.tensor([[x0]]), torch.tensor([sigma], dtype=torch.float64))
                if chain.mask_id is None:
                    found = uniform_score_entropy(at_xt, *ids)
                else:
                    found = absorbing_score_entropy(at_xt, *ids)
                expected = oracle.score_entropy(chain.rates, sigma, at_xt[0, 0].exp(), xt, x0)
                assert math.isclose(float(found), expected, rel_tol=1e-11, abs_tol=1e-10)


def test_omitted_terms_are_bounded() -> None:
    """What `omitted_nats` names is at least what an ideal model leaves out: the prior at t = 1 and t below t_min."""
    for size, process in itertools.product(SIZES, (AbsorbingProcess, UniformProcess)):
        is_absorbing = process is AbsorbingProcess
        chain = Chain("absorbing" if is_absorbing else "uniform", *size)
        for t_min in (1e-3, 0.2):
            counted = chain.information(LOGLINEAR, t_min) - chain.information(LOGLINEAR, 1.0)
            missing = oracle.entropy(chain.law) - counted
            omitted = omitted_nats(process(size[0]), LOGLINEAR, length=size[1], t_min=t_min)
            assert 0 < missing <= omitted
            if is_absorbing:  # and it is no more than the capacity of the tokens concerned
                assert omitted <= size[1] * math.log(size[0]) * (1e-3 + t_min)
