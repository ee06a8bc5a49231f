"""Self-BLEU against NLTK's BLEU with all other texts as references, and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.evaluate.self_bleu import mean_self_bleu, self_bleu_per_text


def rows(texts):
    return [torch.tensor(text, dtype=torch.int64) for text in texts]


def library_bleu(texts):
    """BLEU-4 of every text by NLTK, which keeps every reference and looks through all of them."""
    bleu = pytest.importorskip("nltk.translate.bleu_score", reason="NLTK is not installed (extra dev)")
    smoothing = bleu.SmoothingFunction().method1
    return [
        float(bleu.sentence_bleu([*texts[:i], *texts[i + 1 :]], text, smoothing_function=smoothing))
        for i, text in enumerate(texts)
    ]


# Two to six texts of up to nine of four tokens: many are in others, some are empty or too short for a run of four.
TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=2, max_size=6)


@given(TEXTS)
def test_equals_the_library(texts):
    assert self_bleu_per_text(rows(texts)).tolist() == pytest.approx(library_bleu(texts), abs=1e-12)


def test_equals_the_library_on_longer_texts():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 60, (30,), generator=generator).tolist()
    texts = [torch.randint(6, (length,), generator=generator).tolist() for length in lengths]
    found = self_bleu_per_text(rows(texts))
    assert found.tolist() == pytest.approx(library_bleu(texts), abs=1e-12)
    assert found.std() > 0.01


def test_by_hand():
    """a b c d e beside a b c d f: 4 of 5 tokens, 3 of 4 pairs, 2 of 3 triples, 1 of 2 runs of four; of one length."""
    both = self_bleu_per_text(rows([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]))
    assert both.tolist() == pytest.approx([(4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25] * 2)


def test_a_short_text_is_cut_down():
    """a b c d is wholly in the other one, of six tokens: BP = exp(1 - 6 / 4). The other falls short of nothing."""
    short, long = self_bleu_per_text(rows([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]])).tolist()
    assert short == pytest.approx(math.exp(1 - 6 / 4))
    assert long == pytest.approx((4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_counts_are_clipped():
    """Of a a a a and a b b b only one a is in the other; no pair is, so 0.1 stands for each count of 0."""
    found = self_bleu_per_text(rows([[1, 1, 1, 1], [1, 2, 2, 2]]))
    assert found.tolist() == pytest.approx([(1 / 4 * 0.1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25] * 2)


def test_ends_of_the_scale():
    assert mean_self_bleu(rows([[1, 2, 3, 4, 5]] * 3)) == pytest.approx(1)
    assert mean_self_bleu(rows([[1, 2, 3, 4], [5, 6, 7, 8]])) == 0
    assert mean_self_bleu(rows([[1, 2, 3, 4], []])) == 0


def test_no_other_text():
    assert mean_self_bleu(rows([[1, 2, 3]])) is None
    assert mean_self_bleu([]) is None
