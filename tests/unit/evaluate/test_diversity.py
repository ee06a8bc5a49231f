import math
from collections import Counter

import pytest
import torch

from cascaded_dllm.evaluate.diversity import distinct_ngram_share, mean_token_entropy_nats


def test_entropy_by_hand():
    """One text of one token, one of two halves, one of a quarter and three quarters."""
    ids = torch.tensor([[1, 1, 1, 1], [2, 3, 2, 3], [4, 5, 5, 5]])
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert mean_token_entropy_nats(ids) == pytest.approx((0 + math.log(2) + quarter) / 3)


def test_entropy_against_counts():
    ids = torch.randint(6, (7, 15), generator=torch.Generator().manual_seed(0))
    entropies = [-sum(n / 15 * math.log(n / 15) for n in Counter(row).values()) for row in ids.tolist()]
    assert mean_token_entropy_nats(ids) == pytest.approx(sum(entropies) / 7)
    assert mean_token_entropy_nats(torch.arange(12)[None]) == pytest.approx(math.log(12))


def test_distinct_bigrams_by_hand():
    """1 2, 2 1, 1 2 and 2 1, 1 3, 3 3: four different ones of six; none spans two texts."""
    assert distinct_ngram_share(torch.tensor([[1, 2, 1, 2], [2, 1, 3, 3]]), 2) == pytest.approx(4 / 6)
    assert distinct_ngram_share(torch.tensor([[5, 5, 5]]), 2) == 0.5
    assert distinct_ngram_share(torch.tensor([[1], [1]]), 2) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_distinct_runs_against_sets(n):
    """Over all texts together: runs of one text are found again in another."""
    ids = torch.randint(4, (5, 8), generator=torch.Generator().manual_seed(1))
    runs = [tuple(row[i : i + n]) for row in ids.tolist() for i in range(8 - n + 1)]
    assert distinct_ngram_share(ids, n) == (len(set(runs)) / len(runs) if runs else 1)
