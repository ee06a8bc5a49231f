"""Draws of tokens and states: frequencies, far tails, and vocabularies of more than one block of 256 columns."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.categorical import sample_states, sample_tokens
from cascaded_dllm.diffusion.philox import Draws
from tests.statistical.chi_square import fits, is_refuted

NUM_DRAWS = 60_000


def uniform_pairs(count: int, purpose: str = "tokens") -> tuple[Tensor, Tensor]:
    return Draws(1, purpose).uniform_pair(torch.arange(count), 0, torch.zeros((), dtype=torch.int64))


def peaked_logits(vocab_size: int) -> Tensor:
    return 1.5 * torch.randn(vocab_size, generator=torch.Generator().manual_seed(vocab_size))


@pytest.mark.parametrize("vocab_size", [1, 2, 255, 256, 257, 512, 700])
def test_token_frequencies(vocab_size: int) -> None:
    logits = peaked_logits(vocab_size)
    u = uniform_pairs(NUM_DRAWS)
    parts = [slice(start, start + 20_000) for start in range(0, NUM_DRAWS, 20_000)]
    drawn = torch.cat([sample_tokens(logits.expand(20_000, -1), (u[0][p], u[1][p])) for p in parts])
    counts = torch.bincount(drawn, minlength=vocab_size)
    assert counts.shape == (vocab_size,)
    assert fits(counts, logits.double().softmax(-1))
    if vocab_size > 2:
        # Power: a temperature of 0.95, a vocabulary turned by one and one block less are told apart.
        assert is_refuted(counts, (logits.double() / 0.95).softmax(-1))
        assert is_refuted(counts, logits.double().softmax(-1).roll(1))
    if vocab_size > 300:
        assert is_refuted(counts, logits.double().index_fill(0, torch.arange(256, vocab_size), -99.0).softmax(-1))


@pytest.mark.parametrize("vocab_size", [3, 256, 600])
def test_logits_that_are_no_law(vocab_size: int) -> None:
    """They are told from all others, row by row, and no state is out of range."""
    logits = peaked_logits(vocab_size).expand(5, -1).clone()
    logits[1, 2], logits[2, 0], logits[3] = torch.nan, torch.inf, -torch.inf
    logits[4, 1:] = -torch.inf
    u = torch.full((5,), 0.999, dtype=torch.float64)
    drawn = sample_tokens(logits, (u, u))
    assert (drawn < 0).tolist() == [False, True, True, True, False]
    assert drawn[4] == 0
    states = sample_states(torch.tensor([[torch.nan, 1.0], [torch.inf, torch.inf], [0.0, 0.0]]), u[:3])
    assert (states >= 0).all()
    assert (states < 2).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_reach_far_tails(dtype: torch.dtype) -> None:
    """Tokens of probability 1e-9 are drawn by the u that are theirs, as a column of a block and as a block."""
    weights = torch.zeros(600, dtype=torch.float64)
    weights[0] = 1.0
    weights[10] = weights[300] = 1e-9
    inside, outside = 1 - 0.9e-9, 1 - 1.1e-9
    u0, u1 = torch.tensor(
        [[0.5, inside], [0.5, outside], [inside, 0.5], [outside, 0.5], [inside, inside]], dtype=torch.float64
    ).T
    drawn = sample_tokens(weights.log().to(dtype).expand(5, -1), (u0, u1))
    assert drawn.tolist() == [10, 0, 300, 0, 300]


def in_the_tail(width: float) -> Tensor:
    """Uniform numbers given that they lie within `width` of 1, in float64."""
    return 1 - width * uniform_pairs(NUM_DRAWS, "tail")[0]


@pytest.mark.parametrize("column", [10, 300, 511])
def test_tail_has_its_share(column: int) -> None:
    """Among u within 1e-7 of 1 an event of probability 1e-9 has a share of 1 %; float32 arithmetic loses it."""
    probs = torch.full((512,), 0.0, dtype=torch.float64)
    probs[0], probs[column] = 1 - 1e-9, 1e-9
    logits = probs.clamp_min(1e-300).log().float().expand(NUM_DRAWS, -1)
    ordinary = uniform_pairs(NUM_DRAWS)[0]
    tail = in_the_tail(1e-7)
    u = (ordinary, tail) if column < 256 else (tail, ordinary)
    hits = int((sample_tokens(logits, u) == column).sum())
    share = torch.tensor([0.01, 0.99], dtype=torch.float64)
    assert fits(torch.tensor([hits, NUM_DRAWS - hits]), share)
    # Power: the same inversion with one cumulated sum in float32.
    cumulated = probs.float().cumsum(-1)
    single = torch.searchsorted(cumulated, tail.float() * cumulated[-1], right=True).clamp_max(511)
    naive = int((single == column).sum())
    assert is_refuted(torch.tensor([naive, NUM_DRAWS - naive]), share)


def test_columns_without_weight_are_never_drawn() -> None:
    """Not by the extreme u either, even if rounding made them 0 or 1, at either end of a block or of the vocabulary."""
    logits = torch.full((1, 520), -torch.inf)
    logits[0, [3, 255, 300]] = 0.0
    ends = torch.tensor([0.0, 2.0**-53, 0.3, 0.5, 0.9, 1 - 2.0**-53, 1.0], dtype=torch.float64)
    u0, u1 = torch.cartesian_prod(ends, ends).T
    drawn = sample_tokens(logits.expand(len(u0), -1), (u0, u1))
    assert set(drawn.tolist()) == {3, 255, 300}
    probs = torch.tensor([0.0, 0.2, 0.0, 0.1, 0.0], dtype=torch.float64)
    assert set(sample_states(probs.expand(len(ends), -1), ends).tolist()) == {1, 3}


def test_no_rows() -> None:
    """A step in which no position leaves MASK draws nothing."""
    none = torch.zeros(0, dtype=torch.float64)
    assert sample_tokens(torch.zeros(0, 300), (none, none)).shape == (0,)
    assert sample_states(torch.zeros(0, 3), none).shape == (0,)


def test_single_precision_device_path() -> None:
    """Devices without float64 draw from float32 numbers; the bulk of the law is the same."""
    logits = peaked_logits(700)
    u = uniform_pairs(20_000)
    drawn = sample_tokens(logits.expand(20_000, -1), (u[0].float(), u[1].float()))
    assert fits(torch.bincount(drawn, minlength=700), logits.double().softmax(-1))


def test_state_frequencies() -> None:
    """Rows need not be normalised, negative entries count as zero, and every row has its own law."""
    probs = torch.tensor([[0.1, 0.0, 0.6, 0.3], [2.0, -0.5, 1.0, 1.0]], dtype=torch.float64)
    laws = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.5, 0.0, 0.25, 0.25]], dtype=torch.float64)
    u = uniform_pairs(2 * NUM_DRAWS)[0].view(NUM_DRAWS, 2)
    drawn = sample_states(probs.expand(NUM_DRAWS, 2, 4), u)
    assert drawn.shape == u.shape
    for row in range(2):
        counts = torch.bincount(drawn[:, row], minlength=4)
        assert fits(counts, laws[row])
        assert is_refuted(counts, laws[1 - row])


def test_states_reach_far_tails() -> None:
    probs = torch.tensor([1 - 1e-9, 1e-9], dtype=torch.float64).expand(NUM_DRAWS, -1)
    hits = int(sample_states(probs, in_the_tail(1e-7)).sum())
    assert fits(torch.tensor([hits, NUM_DRAWS - hits]), torch.tensor([0.01, 0.99], dtype=torch.float64))


@pytest.mark.parametrize("num_rows", [1, 5])
def test_deterministic_algorithms_draw_the_same(num_rows: int) -> None:
    """They refuse to sum up on CUDA, which the draw goes around; the mode is as it was afterwards."""
    logits, u = peaked_logits(700).expand(num_rows, -1), uniform_pairs(num_rows)
    expected = sample_tokens(logits, u)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.equal(sample_tokens(logits, u), expected)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
