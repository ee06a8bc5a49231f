"""Frequencies of noised tokens against the matrix exponential of the rates."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process, UniformProcess
from tests.reference.enumerate import absorbing_rates, kernel, uniform_rates
from tests.statistical.chi_square import fits, is_refuted

V = 5
NUM_TEXTS, LENGTH = 100_000, 5
SIGMAS = (0.003, 0.4, 3.0)


def counts(process: Process, sigma: float, *, dtype: torch.dtype) -> Tensor:
    """How often position i, whose clean token is i, shows each state."""
    x0 = torch.arange(LENGTH).expand(NUM_TEXTS, -1)
    u = Draws(3, "noise").uniform_pair(torch.arange(NUM_TEXTS)[:, None], 0, torch.arange(LENGTH))
    xt = process.sample_xt(x0, torch.full((NUM_TEXTS,), sigma, dtype=dtype), u)
    return torch.stack([torch.bincount(column, minlength=process.num_states) for column in xt.T])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize(
    ("process", "rates"), [(AbsorbingProcess(V), absorbing_rates(V)), (UniformProcess(V), uniform_rates(V))]
)
def test_frequencies(process: Process, rates: Tensor, sigma: float, dtype: torch.dtype) -> None:
    found, expected = counts(process, sigma, dtype=dtype), kernel(rates, sigma)
    for token in range(LENGTH):
        assert fits(found[token], expected[token])
    stays = torch.stack([found.diagonal().sum(), found.sum() - found.diagonal().sum()])
    assert fits(stays, torch.tensor([expected[0, 0], 1 - expected[0, 0]]))
    # Power: a quarter more noise, which is also what a uniform process scaled to leave at rate 1 would have.
    wrong = kernel(rates, 1.25 * sigma)[0, 0]
    assert is_refuted(stays, torch.tensor([wrong, 1 - wrong]))


def test_tiny_noise_still_moves() -> None:
    """A move of probability 1e-9 happens exactly for the u below it, in float32 noise as well."""
    u = (torch.tensor([[0.9e-9, 1.1e-9]], dtype=torch.float64), torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    for process in (AbsorbingProcess(V), UniformProcess(V)):
        xt = process.sample_xt(torch.zeros(1, 2, dtype=torch.int64), torch.tensor([1e-9]), u)
        assert xt[0, 0] != 0
        assert xt[0, 1] == 0


def test_every_state_can_be_jumped_to() -> None:
    """The largest u below 1 gives the last state and the smallest the first."""
    low, high = 2.0**-53, 1 - 2.0**-53
    u = (torch.full((1, 2), low, dtype=torch.float64), torch.tensor([[low, high]], dtype=torch.float64))
    for num_states in (3, 50_257):
        xt = UniformProcess(num_states).sample_xt(torch.ones(1, 2, dtype=torch.int64), torch.tensor([1.0]), u)
        assert xt.tolist() == [[0, num_states - 1]]
