"""Intervals: hand cases, brute force, and how often they hold what they are to hold."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cascaded_dllm.evaluate.diversity import distinct_share_and_error
from cascaded_dllm.evaluate.intervals import (
    PerText,
    bootstrap_difference,
    bootstrap_interval,
    grouped_error,
    jackknife_error,
    normal_interval,
    resampled,
    unseen_error,
)
from cascaded_dllm.evaluate.self_bleu import mean_self_bleu


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample(values: list[float] | np.ndarray, weights: list[float] | None = None) -> PerText:
    found = np.asarray(values, dtype=np.float64)
    return PerText(found, np.ones(len(found)) if weights is None else np.asarray(weights))


def test_two_texts_by_hand() -> None:
    """Both, the first twice or the second twice: means of 0, 0.5 and 1 with probabilities of 1/4, 1/2 and 1/4."""
    means = resampled(sample([0.0, 1.0]), 20_000, drawn())
    shares = [(means == value).mean() for value in (0, 0.5, 1)]
    # 5 standard deviations are 0.018.
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.018)
    found = bootstrap_interval(sample([0.0, 1.0]), 500, drawn())
    assert (found.estimate, found.low, found.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_interval(sample([0.0, 1.0]), 500, drawn(), level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_quotients_by_hand() -> None:
    """Texts of 1 and 3 tokens with 2 and 3 nats: 5 / 4, and 2, 5 / 4 or 1 when drawn again."""
    both = sample([2.0, 3.0], [1.0, 3.0])
    assert both.estimate == 1.25
    assert set(resampled(both, 200, drawn()).tolist()) == {2.0, 1.25, 1.0}


def test_texts_without_a_value() -> None:
    figure = sample([2.0, 0.0, 4.0], [1.0, 0.0, 1.0])
    assert len(figure) == 3
    assert figure.counted.values.tolist() == [2.0, 4.0]
    assert figure.counted.estimate == figure.estimate == 3.0


def test_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the draws themselves: the number of resamples is what was asked for."""
    monkeypatch.setattr("cascaded_dllm.evaluate.intervals._AT_ONCE", 8)
    means = resampled(sample([0.0, 1.0, 2.0]), 5001, drawn())
    assert len(means) == 5001
    assert means.mean() == pytest.approx(1.0, abs=0.04)


def test_large_samples_are_normal() -> None:
    values = drawn(3).normal(size=400)
    found = bootstrap_interval(sample(values), 4000, drawn())
    by_theory = normal_interval(float(values.mean()), float(values.std() / 20))
    assert by_theory.high - by_theory.low == pytest.approx(2 * 1.959964 * values.std() / 20, rel=1e-6)
    assert found.low == pytest.approx(by_theory.low, abs=0.01)
    assert found.high == pytest.approx(by_theory.high, abs=0.01)
    assert (by_theory.low + by_theory.high) / 2 == pytest.approx(found.estimate, abs=1e-12)


def test_a_difference_is_that_of_independent_samples() -> None:
    first, second = drawn(1).normal(size=300), drawn(2).normal(1.0, 2.0, size=200)
    found = bootstrap_difference(sample(first), sample(second), 4000, drawn())
    error = (first.var() / 300 + second.var() / 200) ** 0.5
    assert found.estimate == pytest.approx(second.mean() - first.mean(), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_how_often_an_interval_holds_the_truth() -> None:
    """Of 400 samples of 60 from an exponential law; where a law is skew, a little less often than 95 %."""
    generator = drawn(7)
    held = 0
    for _ in range(400):
        found = bootstrap_interval(sample(generator.exponential(size=60)), 400, generator)
        held += found.low <= 1 <= found.high
    assert 0.90 <= held / 400 <= 0.98


def test_how_often_a_difference_is_seen() -> None:
    """Without one 5 % of the time or so, with one of 0.5 standard deviations nearly always."""
    generator = drawn(8)
    seen = {0.0: 0, 0.5: 0}
    for shift in seen:
        for _ in range(200):
            first, second = generator.normal(size=150), generator.normal(shift, size=150)
            found = bootstrap_difference(sample(first), sample(second), 300, generator)
            seen[shift] += not found.low <= 0 <= found.high
    assert seen[0.0] <= 20
    assert seen[0.5] >= 190


def plain_share(rows: list[list[int]], n: int) -> float:
    runs = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(runs)) / len(runs)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_jackknife_by_brute_force(n: int) -> None:
    ids = torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(n))
    ids[3] = ids[2]
    rows = ids.tolist()
    without = np.array([plain_share(rows[:i] + rows[i + 1 :], n) for i in range(len(rows))])
    error = (6 / 7 * ((without - without.mean()) ** 2).sum()) ** 0.5
    found = distinct_share_and_error(ids, n)
    assert found == pytest.approx((plain_share(rows, n), error), rel=1e-12)


def test_jackknife_of_texts_of_any_length() -> None:
    """A text without a run has no part in it; the one that has all runs of some kind takes them away with it."""
    rows = [[1, 2, 3], [1, 2], [7], [], [3, 3, 3, 1]]
    texts = [torch.tensor(row, dtype=torch.int64) for row in rows]
    long = [row for row in rows if len(row) > 1]
    without = np.array([plain_share(long[:i] + long[i + 1 :], 2) for i in range(3)])
    expected = plain_share(long, 2), (2 / 3 * ((without - without.mean()) ** 2).sum()) ** 0.5
    assert distinct_share_and_error(texts, 2) == pytest.approx(expected, rel=1e-12)
    assert distinct_share_and_error(texts, 4) == (1.0, None)


def test_the_error_of_a_mean_is_the_usual_one() -> None:
    values = drawn(5).normal(size=31)
    assert sample(values).error == pytest.approx(values.std(ddof=1) / 31**0.5, rel=1e-12)
    assert sample([3.0, 9.0, 5.0], [1.0, 0.0, 1.0]).error == pytest.approx(1.0, rel=1e-12)
    assert sample([3.0, 9.0], [1.0, 0.0]).error is None
    assert sample([1e308, 1e308, 1.0]).error is None
    assert jackknife_error(np.array([1.0])) is None
    # Perplexities of a judge that is sure of the wrong tokens: the squares, or their mean, are beyond float64.
    assert jackknife_error(np.array([1e200, 3e200])) is None
    assert jackknife_error(np.array([1e308, 1.5e308])) is None


def test_the_error_of_a_quotient_is_the_spread_of_it() -> None:
    """Nats a token of texts of different lengths, of which every token of a text has the same: 2,000 samples of 50."""
    generator = drawn(6)

    def quotient() -> PerText:
        lengths = generator.integers(1, 30, size=50).astype(np.float64)
        return sample(lengths * generator.normal(3, 1, size=50), lengths.tolist())

    found = [quotient() for _ in range(2000)]
    spread = float(np.std([one.estimate for one in found]))
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.06)


def test_groups_of_texts_by_brute_force() -> None:
    """45 texts in 20 groups, every twentieth text in one; as many groups as texts where these are few."""
    texts = [torch.tensor([value]) for value in drawn(9).integers(100, size=45)]

    def mean(some: Sequence[torch.Tensor]) -> float:
        return sum(int(text[0]) for text in some) / len(some)

    without = np.array([mean([t for i, t in enumerate(texts) if i % 20 != k]) for k in range(20)])
    assert grouped_error(mean, texts) == pytest.approx((19 * without.var()) ** 0.5, rel=1e-12)
    few = texts[:7]
    usual = np.std([int(text[0]) for text in few], ddof=1) / 7**0.5
    assert grouped_error(mean, few) == pytest.approx(usual, rel=1e-12)
    assert grouped_error(lambda some: mean(some) if len(some) > 1 else None, few[:2]) is None
    assert grouped_error(mean, []) is None


@pytest.mark.slow
def test_the_error_of_self_bleu_is_the_spread_of_it() -> None:
    """Texts of one law that share much: each is a reference of all others, and s / sqrt(n) would be too sure."""
    generator = drawn(10)
    probs = 1 / np.arange(1, 12)

    def texts() -> torch.Tensor:
        return torch.from_numpy(generator.choice(11, (40, 10), p=probs / probs.sum()))

    found = [texts() for _ in range(60)]
    spread = np.std([mean_self_bleu(some) for some in found])
    assert 0.8 <= np.mean([grouped_error(mean_self_bleu, some) for some in found]) / spread <= 1.6


def test_the_jackknife_is_not_too_sure() -> None:
    """Its error against the spread over 200 samples of 40 texts, of tokens of very different frequencies."""
    generator = drawn(4)
    probs = 1 / np.arange(1, 60)
    draws = [
        distinct_share_and_error(torch.from_numpy(generator.choice(59, (40, 12), p=probs / probs.sum())), 2)
        for _ in range(200)
    ]
    spread = np.std([share for share, _ in draws])
    assert 0.9 <= np.mean([error for _, error in draws]) / spread <= 1.6


@pytest.mark.parametrize("num_texts", [2, 10, 300])
def test_error_of_a_share_that_no_text_contradicts(num_texts):
    """A share two errors away from 0 leaves n texts without one with 5 %; three in n texts, nearly."""
    error = unseen_error(num_texts)
    assert (1 - 2 * error) ** num_texts == pytest.approx(0.05)
    assert 2 * error < 3 / num_texts
