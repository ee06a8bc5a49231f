"""All figures of a set of texts: each once, with its definition, and with a reason where it has no value."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cascaded_dllm.evaluate.figures import perplexity_figures, stage_figures, values_of
from cascaded_dllm.evaluate.intervals import unseen_error
from cascaded_dllm.evaluate.mauve import mauve
from cascaded_dllm.evaluate.sample_figures import MeasuredTexts, Measures, sample_figures
from cascaded_dllm.text.tokenizer import Tokenizer

OWN_NAMES = [
    "num_texts",
    "num_empty_texts",
    "tokens_per_text_mean",
    "token_entropy_nats_mean",
    "distinct_unigram_share",
    "distinct_bigram_share",
    "distinct_trigram_share",
    "seq_rep_4_mean",
    "self_bleu_4_mean",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=270)


def reasons(figures):
    return {figure.name: figure.reason for figure in figures if figure.value is None}


def require_sound(figures):
    """A name once, a definition always, a reason where there is no value and only there."""
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    assert all(figure.definition for figure in figures)
    assert all((figure.value is None) == bool(figure.reason) for figure in figures)


def test_ends_of_text_that_fill_a_window(tokenizer):
    """They are no repetition and nothing to be alike in, but tokens of the window, as in summary.json."""
    end = tokenizer.eos_id
    window = torch.tensor([[1, 2, 3, 4, end, end, end, end, end], [5, end, 6, 7, 8, 9, 10, 11, 12]])
    texts = MeasuredTexts.of_stages({1: window}, tokenizer)
    assert [len(row) for row in texts.ids] == [4, 9]
    assert texts.texts == tuple(tokenizer.decode_window(row) for row in window.tolist())
    figures = sample_figures(texts)
    require_sound(figures)
    values = values_of(figures)
    assert values["tokens_per_text_mean"] == 6.5
    assert values["seq_rep_4_mean"] == 0
    assert values["self_bleu_4_mean"] == 0
    assert {name: values[name] for name in stage_figures({1: window})} == stage_figures({1: window})
    full = (math.log(9) + 4 / 9 * math.log(9) + 5 / 9 * math.log(9 / 5)) / 2
    assert values["token_entropy_nats_mean"] == pytest.approx(full)


def test_names_in_order(tokenizer):
    stages = {2: torch.tensor([[1, 2]] * 3), 3: torch.tensor([[1, 5, 2, 6, 7]] * 3)}
    texts = MeasuredTexts.of_stages(stages, tokenizer)
    figures = sample_figures(texts, Measures(keywords=["cat"]))
    assert [figure.name for figure in figures] == [
        *OWN_NAMES,
        "multiset_overlap_mean_stage2_in_stage3",
        "ordered_coverage_mean_stage2_in_stage3",
        "keyword_coverage_mean",
    ]
    assert values_of(figures)["ordered_coverage_mean_stage2_in_stage3"] == 1
    assert values_of(figures)["self_bleu_4_mean"] == pytest.approx(1)


def test_errors_of_shares_at_their_ends(tokenizer):
    """Where all texts have 0, or 1, their scatter says nothing; nor does a single text."""
    stages = {1: torch.tensor([[1, 2]] * 3), 2: torch.tensor([[1, 5, 2, 6, 7]] * 3)}

    def errors(number):
        some = {stage: ids[:number] for stage, ids in stages.items()}
        figures = sample_figures(MeasuredTexts.of_stages(some, tokenizer), Measures(keywords=["cat"]))
        return {figure.name: figure.error for figure in figures}

    of_three = errors(3)
    ends = ["seq_rep_4_mean", "ordered_coverage_mean_stage1_in_stage2", "multiset_overlap_mean_stage1_in_stage2"]
    assert {of_three[name] for name in [*ends, "keyword_coverage_mean"]} == {unseen_error(3)}
    assert of_three["tokens_per_text_mean"] == of_three["token_entropy_nats_mean"] == 0
    assert errors(1)["seq_rep_4_mean"] is None
    # Stages that were cut out of their windows are in them by construction.
    cut = sample_figures(replace(MeasuredTexts.of_stages(stages, tokenizer), are_cut=True))
    of_cut = {figure.name: figure.error for figure in cut}
    assert [of_cut[name] for name in ends] == [unseen_error(3), 0, 0]
    stages[2][0] = torch.tensor([1, 5, 6, 7, 8])
    assert errors(3)["multiset_overlap_mean_stage1_in_stage2"] == pytest.approx(1 / 6)


def test_texts_of_a_file(tokenizer):
    """They are cut into tokens, an end of text at their end is fill, and a blank one counts as empty."""
    texts = MeasuredTexts.of_texts(["the cat saw", "", "the dog<|endoftext|>"], tokenizer)
    assert texts.texts == ("the cat saw", "", "the dog")
    assert texts.windows[2].tolist() == [*tokenizer.encode("the dog").ids, tokenizer.eos_id]
    figures = sample_figures(texts, Measures(keywords=["dog"]))
    require_sound(figures)
    values = values_of(figures)
    assert (values["num_texts"], values["num_empty_texts"]) == (3, 1)
    assert values["keyword_coverage_mean"] == pytest.approx(1 / 3)


def test_one_text(tokenizer):
    texts = MeasuredTexts.of_texts(["the"], tokenizer)
    assert len(texts.ids[0]) == 1
    figures = sample_figures(texts)
    require_sound(figures)
    assert reasons(figures) == {
        "distinct_bigram_share": "no text has 2 tokens",
        "distinct_trigram_share": "no text has 3 tokens",
        "seq_rep_4_mean": "no text has 4 tokens",
        "self_bleu_4_mean": "it compares a text with others, and there are fewer than 2",
    }


def test_no_text_and_only_empty_ones(tokenizer):
    stages = {1: torch.zeros(0, 2, dtype=torch.int64), 2: torch.zeros(0, 4, dtype=torch.int64)}
    for texts in (MeasuredTexts.of_stages(stages, tokenizer), MeasuredTexts.of_texts([""], tokenizer)):
        figures = sample_figures(texts, Measures(keywords=["cat"]))
        require_sound(figures)
        assert reasons(figures)["token_entropy_nats_mean"] == "no text has a token"
    assert values_of(sample_figures(MeasuredTexts.of_stages(stages, tokenizer))) == {
        "num_texts": 0,
        "num_empty_texts": 0,
    }


def test_perplexities_by_hand():
    """As the functions say, by preset; what is beyond all floats is no number of JSON."""
    nats = [torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([math.log(5)], dtype=torch.float64)]
    both = perplexity_figures(nats, ("per_sequence", "corpus"))
    require_sound(both)
    assert values_of(both) == {
        "generative_ppl_per_sequence": pytest.approx((math.exp(2) + 5) / 2),
        "generative_ppl_corpus": pytest.approx(math.exp((4 + math.log(5)) / 3)),
        "num_judged_tokens": 3,
    }
    assert list(values_of(perplexity_figures(nats, ["corpus"]))) == ["generative_ppl_corpus", "num_judged_tokens"]
    none = perplexity_figures([torch.zeros(0, dtype=torch.float64)], ["corpus"])
    assert reasons(none) == {"generative_ppl_corpus": "no text has a token of the judge"}
    huge = perplexity_figures([torch.tensor([1e4], dtype=torch.float64)], ["corpus"])
    assert reasons(huge) == {"generative_ppl_corpus": "it is too large for a floating-point number"}


def letters(texts):
    """A vector of the letters of every text."""
    return np.array([[text.count(letter) + 0.1 for letter in "acdehost"] for text in texts])


def test_mauve_has_the_features_of_both(tokenizer):
    words = ["the cat", "a dog", "the dog saw", "cats", "do", "tea", "hot cod"]
    samples = [words[i % 5] for i in range(100)]
    real = [words[i % 7] for i in range(130)]
    measured, reference = (MeasuredTexts.of_texts(texts, tokenizer) for texts in (samples, real))
    figures = sample_figures(measured, Measures(features=letters, seed=3), reference=reference)
    require_sound(figures)
    expected = mauve(letters(samples), letters(real), seed=3)
    assert 0 < expected.score < 1
    assert {name: values_of(figures)[name] for name in ("mauve", "mauve_num_clusters")} == {
        "mauve": expected.score,
        "mauve_num_clusters": expected.num_clusters,
    }
    few = sample_figures(measured, Measures(features=letters), reference=MeasuredTexts.of_texts(real[:99], tokenizer))
    require_sound(few)
    assert reasons(few)["mauve"] == "it needs 100 texts on each side, and there are 100 and 99"
    assert "mauve" not in {figure.name for figure in sample_figures(measured, Measures(features=letters))}
