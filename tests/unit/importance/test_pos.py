import json
from pathlib import Path

import pytest

from cascaded_dllm.importance.base import Word
from cascaded_dllm.importance.pos import PosLabel, PosScorer, TaggedWord, pos_labels

CASES = json.loads((Path(__file__).parents[2] / "golden" / "stage_selection.json").read_text())["pos_labels"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    assert pos_labels(case["tags"], case["is_stop"]) == case["labels"]


def test_last_proper_noun_of_a_run_is_its_head():
    assert pos_labels(["NNP", "NNPS", "NNP", "VBD"], [False] * 4) == [2, 2, 1, 4]
    assert pos_labels(["NNP"], [False]) == [PosLabel.HEAD_PROPER_NOUN]


def test_stop_words_count_only_for_verbs():
    assert pos_labels(["VBZ", "NN", "JJ", "RB"], [True] * 4) == [7, 3, 5, 6]


def test_no_words_no_labels():
    assert pos_labels([], []) == []


class TwoWordTagger:
    """Tags capitalised words as names and the rest as nouns."""

    name = "two-word"

    def tag(self, texts):
        return [
            [
                TaggedWord(start, start + len(word), word, "NNP" if word.istitle() else "NN", False)
                for word, start in ((word, text.index(word)) for word in text.split())
            ]
            for text in texts
        ]


def test_scorer_labels_the_words_of_its_tagger():
    scorer = PosScorer(TwoWordTagger())
    assert scorer.score(["a Dog", "", "Ada Byron"]) == [
        [Word(0, 1, 3.0), Word(2, 5, 1.0)],
        [],
        [Word(0, 3, 2.0), Word(4, 9, 1.0)],
    ]
    assert (scorer.method, scorer.background) == ("constituency", -100.0)
    assert scorer.describe() == {"tagger": "two-word"}
