"""Known answers of the generator, the map to numbers in (0, 1), and times spread evenly."""

import pytest
import torch

from cascaded_dllm.diffusion import philox
from cascaded_dllm.diffusion.philox import Draws, low_discrepancy_times, philox4x32

# From the file of known answers of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words(counter))
    k0, k1 = words(key)
    found = philox4x32((c0, c1, c2, c3), (k0, k1))
    assert [int(word) for word in found] == words(answer)


def test_numbers_exclude_both_ends() -> None:
    """The words that would give 0 and 1 give 2^-53 and the largest float64 below 1."""
    low, high = torch.tensor(0), torch.tensor(0xFFFFFFFF)
    smallest, largest = philox._open_unit(low, low), philox._open_unit(high, high)
    assert float(smallest) == 2.0**-53
    assert float(largest) == 1 - 2.0**-53
    assert 0 < float(smallest) < float(largest) < 1


def test_a_number_depends_on_its_address_alone() -> None:
    draws = Draws(5, "x")
    sample, position = torch.arange(6)[:, None], torch.arange(4)
    whole = draws.uniform_pair(sample, 3, position)
    for row in range(6):
        for column in range(4):
            alone = draws.uniform_pair(torch.tensor(row), torch.tensor(3), torch.tensor(column))
            assert [float(u) for u in alone] == [float(u[row, column]) for u in whole]
    reverse = draws.uniform_pair(sample.flip(0), 3, position)
    assert torch.equal(reverse[0].flip(0), whole[0])


@pytest.mark.parametrize("other", [Draws(6, "x"), Draws(5, "y")], ids=["seed", "purpose"])
def test_streams_differ(other: Draws) -> None:
    address = (torch.arange(3), 0, torch.arange(3))
    assert not torch.equal(Draws(5, "x").uniform_pair(*address)[0], other.uniform_pair(*address)[0])


def test_samples_beyond_32_bits_are_told_apart() -> None:
    sample = torch.tensor([1, 1 + 2**32, 1 + 2**40])
    u, _ = Draws(0, "x").uniform_pair(sample, 0, torch.tensor(0))
    assert len(u.unique()) == 3


def test_times_are_stratified_over_the_interval() -> None:
    t = low_discrepancy_times(torch.tensor(0.37, dtype=torch.float64), torch.arange(10), 10, 1e-3)
    assert t.dtype == torch.float32
    assert t.min() > 1e-3
    assert t.max() <= 1
    # One in each tenth of (t_min, 1], at the same place in it.
    fraction = (1 - t.double()) / (1 - 1e-3) * 10
    assert sorted(fraction.long().tolist()) == list(range(10))
    torch.testing.assert_close(fraction % 1, torch.full_like(fraction, 0.7), rtol=0, atol=1e-5)


def test_times_of_a_part_are_those_of_the_whole() -> None:
    u = torch.tensor([0.9], dtype=torch.float64)
    whole = low_discrepancy_times(u, torch.arange(8), 8, 0.01)
    torch.testing.assert_close(low_discrepancy_times(u, torch.arange(3, 6), 8, 0.01), whole[3:6], rtol=0, atol=0)


def test_times_reach_the_ends() -> None:
    extremes = torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    first, last = low_discrepancy_times(extremes, torch.zeros(2, dtype=torch.int64), 1, 1e-3).tolist()
    assert first == 1.0
    assert abs(last - 1e-3) < 1e-7
