"""Replaced prefix tokens: how many, by what, and none where nothing is asked for."""

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.prefix_noise import masked_prefix, noised_prefix
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from tests.statistical.chi_square import fits, is_refuted

V, B, P = 5, 20_000, 6
PREFIX = torch.arange(P).remainder(V).expand(B, P)
U = Draws(0, "prefix-noise").uniform_pair(torch.arange(B)[:, None], 0, torch.arange(P))


def law_of(position, prob):
    """A token keeps its place with probability 1 - prob + prob / V, and becomes each other one with prob / V."""
    law = torch.full((V,), prob / V, dtype=torch.float64)
    law[position % V] += 1 - prob
    return law


@pytest.mark.parametrize("process", [AbsorbingProcess(V), UniformProcess(V)])
@pytest.mark.parametrize("prob", [0.02, 0.4, 1.0])
def test_random_tokens(process, prob):
    found = noised_prefix(PREFIX, U, prob=prob, kind="random", process=process)
    for position in range(P):
        counts = torch.bincount(found[:, position], minlength=process.num_states)
        assert counts.sum() == counts[:V].sum(), "no MASK"
        assert fits(counts[:V], law_of(position, prob))
        if prob == 0.4:
            # Power: a tenth more is told apart, and so is a random token that is never the one it replaces.
            assert is_refuted(counts[:V], law_of(position, 1.1 * prob))
            assert is_refuted(counts[:V], law_of(position, prob * V / (V - 1)))


@pytest.mark.parametrize("prob", [0.02, 0.4, 1.0])
def test_mask(prob):
    found = noised_prefix(PREFIX, U, prob=prob, kind="mask", process=AbsorbingProcess(V))
    is_masked = found == V
    assert torch.equal(found[~is_masked], PREFIX[~is_masked])
    counts = torch.tensor([int(is_masked.sum()), int((~is_masked).sum())])
    assert fits(counts, torch.tensor([prob, 1 - prob], dtype=torch.float64))
    if prob < 1:
        assert is_refuted(counts, torch.tensor([1.2 * prob, 1 - 1.2 * prob], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["random", "mask"])
def test_nothing_is_replaced_without_need(kind):
    assert torch.equal(noised_prefix(PREFIX, U, prob=0.0, kind=kind, process=AbsorbingProcess(V)), PREFIX)


def test_positions_are_replaced_independently():
    """The number of replaced tokens of a prefix is binomial; one draw a prefix would replace all or none."""
    prob = 0.3
    found = noised_prefix(PREFIX, U, prob=prob, kind="mask", process=AbsorbingProcess(V))
    counts = torch.bincount((found == V).sum(-1), minlength=P + 1)
    binomial = torch.distributions.Binomial(P, torch.tensor(prob, dtype=torch.float64))
    assert fits(counts, binomial.log_prob(torch.arange(P + 1.0, dtype=torch.float64)).exp())
    assert counts[0] < 0.2 * B


def test_masked_prefix():
    assert masked_prefix(PREFIX[:2], AbsorbingProcess(V)).tolist() == [[V] * P] * 2
