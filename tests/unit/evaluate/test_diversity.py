import math
from collections import Counter

import pytest
import torch

from cascaded_dllm.evaluate.diversity import distinct_bigram_share, mean_token_entropy_nats


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
    assert distinct_bigram_share(torch.tensor([[1, 2, 1, 2], [2, 1, 3, 3]])) == pytest.approx(4 / 6)
    assert distinct_bigram_share(torch.tensor([[5, 5, 5]])) == 0.5
    assert distinct_bigram_share(torch.tensor([[1], [1]])) == 1
