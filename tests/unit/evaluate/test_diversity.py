import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.evaluate.diversity import (
    distinct_share_and_error,
    repeated_ngram_share_per_text,
    token_entropy_nats_per_text,
)

# Texts of any length, over four tokens, so that much repeats; some empty.
TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=7), max_size=4)


def rows(texts):
    return [torch.tensor(text, dtype=torch.int64) for text in texts]


def runs_of(text, n):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def entropy_nats(text):
    return -sum(times / len(text) * math.log(times / len(text)) for times in Counter(text).values())


def test_entropy_by_hand():
    """One text of one token, one of two halves, one of a quarter and three quarters."""
    ids = torch.tensor([[1, 1, 1, 1], [2, 3, 2, 3], [4, 5, 5, 5]])
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert token_entropy_nats_per_text(ids).tolist() == pytest.approx([0, math.log(2), quarter])


def test_entropy_against_counts():
    ids = torch.randint(6, (7, 15), generator=torch.Generator().manual_seed(0))
    entropies = [-sum(n / 15 * math.log(n / 15) for n in Counter(row).values()) for row in ids.tolist()]
    assert token_entropy_nats_per_text(ids).tolist() == pytest.approx(entropies)
    assert token_entropy_nats_per_text(torch.arange(12)[None]).tolist() == pytest.approx([math.log(12)])


def test_distinct_bigrams_by_hand():
    """1 2, 2 1, 1 2 and 2 1, 1 3, 3 3: four different ones of six; none spans two texts."""
    assert distinct_share_and_error(torch.tensor([[1, 2, 1, 2], [2, 1, 3, 3]]), 2)[0] == pytest.approx(4 / 6)
    assert distinct_share_and_error(torch.tensor([[5, 5, 5]]), 2) == (0.5, None)
    assert distinct_share_and_error(torch.tensor([[1], [1]]), 2) == (None, None)


@given(TEXTS, st.integers(1, 5))
def test_texts_of_any_length_against_sets(texts, n):
    """Runs of one text are found again in another; no run spans two; what has no run has no part in any mean."""
    runs = [runs_of(text, n) for text in texts]
    every = [run for text in runs for run in text]
    assert distinct_share_and_error(rows(texts), n)[0] == (len(set(every)) / len(every) if every else None)
    repeated = [1 - len(set(text)) / len(text) for text in runs if text]
    assert repeated_ngram_share_per_text(rows(texts), n).tolist() == pytest.approx(repeated)
    entropies = [entropy_nats(text) for text in texts if text]
    assert token_entropy_nats_per_text(rows(texts)).tolist() == pytest.approx(entropies, abs=1e-12)


def test_repetition_by_hand():
    """1 2 1 2 1 2 has five pairs, two different; 3 4 5 none twice; a single token has no pair."""
    assert repeated_ngram_share_per_text(rows([[1, 2, 1, 2, 1, 2], [3, 4, 5], [6]]), 2).tolist() == [3 / 5, 0]
    # The same pair in two texts is no repetition of either.
    assert repeated_ngram_share_per_text(rows([[1, 2], [1, 2]]), 2).tolist() == [0, 0]


def test_large_ids_and_long_runs():
    """Runs are numbered anew at every length: ids near 2^40 and runs of eight would not fit into a number otherwise."""
    ids = torch.tensor([[7, 1 << 40, 7, 1 << 40, 7, 1 << 40, 7, 1 << 40, 7, 1 << 40]])
    assert distinct_share_and_error(ids, 8)[0] == 2 / 3
