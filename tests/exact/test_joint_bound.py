"""The joint bound of a cascade, by enumeration: never below -log p(x), and on average H(x) for exact conditionals.

A text x of 3 tokens over V = 3 has one shorter version z, chosen by a fixed rule. Stage 1 models z, stage 2 models x
given z. The p of the model is the exact law of its reverse process, p(x) = sum over z of p(z) p(x | z), with masks
removed one at a time in any order (`any_order_law`; tests/exact/test_first_hitting.py shows that the sampler has it).
N comes from the package: its fused loss and its schedule, integrated over t.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascaded_dllm.diffusion.bound import nll_bound, omitted_nats
from cascaded_dllm.diffusion.fused_loss import fused_absorbing_score_entropy
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule, Schedule
from tests.reference import enumerate as oracle

V, MASK = 3, 3
TEXTS = oracle.all_states(V, 3)
# At t = 1 this schedule leaves nothing unmasked, so that the bound holds without a prior term.
COMPLETE = LogLinearSchedule(eps=1e-13)


def shortened(text: list[int], length: int) -> list[int]:
    """The `length` rarest tokens (the largest ids), ties to the earlier one, in text order."""
    order = sorted(range(len(text)), key=lambda i: (-text[i], i))
    return [text[i] for i in sorted(order[:length])]


def score_entropies(conditionals: Tensor, x0: Tensor, xt: Tensor, sigma: Tensor, weight: Tensor) -> Tensor:
    """weight * score entropy of every row of `xt`, from the fused loss whose logits are rows of a table."""
    length = x0.shape[-1]
    place = torch.tensor([(V + 1) ** (length - 1 - i) for i in range(length)])
    flat = conditionals.log().flatten(0, 1)
    batch, position = (xt == MASK).nonzero(as_tuple=True)
    _, rows = fused_absorbing_score_entropy(
        F.one_hot((xt @ place)[batch] * length + position, len(flat)).double(),
        F.pad(flat.T, (0, 0, 0, 1)),
        torch.zeros(V + 1, dtype=torch.float64),
        x0[batch, position],
        sigma[batch],
        weight[batch],
        parameterization="normalized",
    )
    return torch.zeros_like(weight).index_add(0, batch, rows * weight[batch])


def integral(conditionals: Tensor, text: list[int], schedule: Schedule = COMPLETE, low: float = 0.0) -> float:
    """N: over t in [low, 1], of the mean over all masks. Exact, since the integrand is a polynomial in t."""
    length = len(text)
    nodes, weights = oracle.gauss_legendre(4, low, 1)
    masks = oracle.all_states(2, length).bool()
    x0 = torch.tensor(text).expand(len(masks), -1)
    total = 0.0
    for t, node_weight in zip(nodes, weights, strict=True):
        sigma, dsigma = (value.expand(len(masks)) for value in schedule(t))
        move_prob = -torch.expm1(-sigma)[:, None]
        probability = torch.where(masks, move_prob, 1 - move_prob).prod(-1)
        values = score_entropies(conditionals, x0, torch.where(masks, MASK, x0), sigma, dsigma)
        total += float(node_weight) * float(probability @ values)
    return total


class TinyCascade:
    """Conditional tables of both stages; those of stage 2 for every z."""

    def __init__(self, z_length: int, law: Tensor | None, seed: int = 0) -> None:
        self.z_length = z_length
        self.versions = oracle.all_states(V, z_length).tolist()
        if law is None:
            self.first = oracle.random_conditionals(V, z_length, seed)
            self.second = [oracle.random_conditionals(V, 3, 1000 * seed + i) for i in range(len(self.versions))]
            return
        given = [torch.zeros_like(law) for _ in self.versions]
        for i, text in enumerate(TEXTS.tolist()):
            given[oracle.index_of(shortened(text, z_length), V)][i] = law[i]
        marginal = torch.stack([part.sum() for part in given])
        self.first = self.tiny_everywhere(oracle.exact_conditionals(marginal + 1e-300, V, z_length))
        self.second = [self.tiny_everywhere(oracle.exact_conditionals(part + 1e-300, V, 3)) for part in given]

    @staticmethod
    def tiny_everywhere(conditionals: Tensor) -> Tensor:
        """No zeros, whose logarithm would be infinite; nothing that a text of the law sees is changed."""
        return conditionals.clamp_min(1e-290)

    def bound(self, text: list[int], schedule: Schedule = COMPLETE, low: float = 0.0) -> float:
        z = shortened(text, self.z_length)
        second = self.second[oracle.index_of(z, V)]
        return integral(self.first, z, schedule, low) + integral(second, text, schedule, low)

    def model_law(self) -> Tensor:
        prior = oracle.any_order_law(self.first, V, self.z_length)
        return sum(p * oracle.any_order_law(table, V, 3) for p, table in zip(prior, self.second, strict=True))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_integral_of_a_table_in_closed_form(length: int) -> None:
    """The package's loss against the sum over masks with Beta weights. Found: 1e-12, from eps."""
    conditionals = oracle.random_conditionals(V, length, seed=length)
    for text in oracle.all_states(V, length).tolist():
        expected = oracle.denoising_integral(conditionals, text, V)
        assert math.isclose(integral(conditionals, text), expected, rel_tol=0, abs_tol=1e-10)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("z_length", [1, 2])
def test_bound_is_above_for_any_network(z_length: int, seed: int) -> None:
    cascade = TinyCascade(z_length, None, seed)
    law = cascade.model_law()
    assert math.isclose(float(law.sum()), 1, abs_tol=1e-12)
    slack = [cascade.bound(text) + math.log(p) for text, p in zip(TEXTS.tolist(), law.tolist(), strict=True)]
    assert min(slack) >= 0
    # The flat bound of the second stage's own network is one, too.
    flat = cascade.second[0]
    flat_law = oracle.any_order_law(flat, V, 3).tolist()
    assert min(integral(flat, text) + math.log(p) for text, p in zip(TEXTS.tolist(), flat_law, strict=True)) >= 0


@pytest.mark.parametrize("z_length", [1, 2])
def test_bound_is_the_entropy_for_exact_conditionals(z_length: int) -> None:
    """z is a function of x, so H(z) + H(x | z) = H(x): splitting a text into stages costs nothing. Found: 3e-13."""
    law = oracle.random_law(len(TEXTS), seed=4)
    cascade = TinyCascade(z_length, law)
    mean = sum(p * cascade.bound(text) for text, p in zip(TEXTS.tolist(), law.tolist(), strict=True))
    assert math.isclose(mean, oracle.entropy(law), rel_tol=0, abs_tol=1e-10)
    torch.testing.assert_close(cascade.model_law(), law, rtol=0, atol=1e-12)


@pytest.mark.parametrize("z_length", [1, 2])
def test_what_real_noise_omits_is_named(z_length: int) -> None:
    """With log-linear noise and t > 1e-3, as in training, the mean lies below H(x), by no more than is reported."""
    law = oracle.random_law(len(TEXTS), seed=4)
    cascade = TinyCascade(z_length, law)
    schedule, t_min = LogLinearSchedule(), 1e-3
    mean = sum(p * cascade.bound(text, schedule, t_min) for text, p in zip(TEXTS.tolist(), law.tolist(), strict=True))
    omitted = sum(omitted_nats(AbsorbingProcess(V), schedule, length=n, t_min=t_min) for n in (z_length, 3))
    assert oracle.entropy(law) - omitted <= mean < oracle.entropy(law)


def test_estimate_converges_to_the_integral() -> None:
    """`nll_bound` at many times, for several texts: within 5 standard errors, and these are small."""
    conditionals = oracle.random_conditionals(V, 3, seed=9)
    schedule, t_min, copies = LogLinearSchedule(), 1e-3, 500
    texts = TEXTS[::5]
    x0 = texts.repeat_interleave(copies, 0)

    def weighted_entropy(x0: Tensor, xt: Tensor, sigma: Tensor, dsigma: Tensor) -> Tensor:
        return score_entropies(conditionals, x0, xt, sigma.double(), dsigma.double())

    estimate = nll_bound(
        weighted_entropy,
        x0,
        process=AbsorbingProcess(V),
        schedule=schedule,
        draws=Draws(0, "bound-test"),
        sample_index=torch.arange(len(x0)),
        num_times=64,
        t_min=t_min,
    )
    means = estimate.nll_nats.view(-1, copies).mean(-1)
    deviations = estimate.nll_nats.view(-1, copies).std(-1) / math.sqrt(copies)
    exact = [integral(conditionals, text, schedule, t_min) for text in texts.tolist()]
    expected = torch.tensor(exact, dtype=torch.float64)
    assert deviations.max() < 0.03 * expected.min()
    assert ((means - expected).abs() < 5 * deviations).all()
    # The reported standard error is that of independent times, and the times are better than independent.
    reported = estimate.standard_error.view(-1, copies).square().mean(-1).sqrt() / math.sqrt(copies)
    assert (deviations < 1.3 * reported).all()
