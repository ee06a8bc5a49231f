"""The addressed random numbers look uniform and independent along every axis of their address."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from tests.statistical.chi_square import fits, is_refuted

COUNT = 100_000
CELLS = 16


def numbers(*, sample: int = 0, step: int = 0, position: int = 0, seed: int = 0, purpose: str = "a") -> Tensor:
    """Both numbers of a pair, (2, COUNT), for addresses in a block of 100 x 10 x 100 that starts at the given one."""
    samples = torch.arange(100).view(-1, 1, 1) + sample
    steps = torch.arange(10).view(-1, 1) + step
    pair = Draws(seed, purpose).uniform_pair(samples, steps, torch.arange(100) + position)
    return torch.stack([u.flatten() for u in pair])


def joint_counts(first: Tensor, second: Tensor) -> Tensor:
    cells = (first * CELLS).long() * CELLS + (second * CELLS).long()
    return torch.bincount(cells, minlength=CELLS * CELLS)


EVEN = torch.full((CELLS * CELLS,), CELLS**-2, dtype=torch.float64)


@pytest.mark.parametrize("which", [0, 1])
def test_uniform(which: int) -> None:
    u = numbers()[which]
    assert u.dtype == torch.float64
    assert fits(torch.bincount((u * 1000).long(), minlength=1000), torch.full((1000,), 1e-3, dtype=torch.float64))
    # The digits below the first ten bits as well, which the second word of a number fills.
    low = (u * 2**30) % 1
    assert fits(torch.bincount((low * 64).long(), minlength=64), torch.full((64,), 1 / 64, dtype=torch.float64))
    # Power: numbers squeezed a little to the left are told apart.
    squeezed = torch.bincount((u**1.1 * 1000).long(), minlength=1000)
    assert is_refuted(squeezed, torch.full((1000,), 1e-3, dtype=torch.float64))


@pytest.mark.parametrize(
    "other",
    [
        {"sample": 2},
        {"step": 1},
        {"position": 2},
        {"sample": 2, "position": 0},
        {"sample": 2**32 + 1},
        {"seed": 1},
        {"purpose": "b"},
    ],
    ids=str,
)
def test_neighbours_are_independent(other: dict[str, int | str]) -> None:
    """Shifting an address by one, or changing the stream, gives numbers that know nothing of the first ones."""
    start = {"sample": 1, "position": 1}
    here, there = numbers(**start), numbers(**(start | other))  # type: ignore[arg-type]
    for first in (0, 1):
        for second in (0, 1):
            assert fits(joint_counts(here[first], there[second]), EVEN)


def test_pair_is_independent() -> None:
    first, second = numbers()
    assert fits(joint_counts(first, second), EVEN)
    # Power: numbers that share a tenth of their value are told apart, and so is a number with itself.
    assert is_refuted(joint_counts(first, (0.9 * second + 0.1 * first) % 1), EVEN)
    assert is_refuted(joint_counts(first, first), EVEN)


def test_no_number_repeats() -> None:
    """Of 200,000 numbers with 52 random bits two agree with probability 4e-6."""
    every = numbers().flatten()
    assert len(every.unique()) == len(every)
