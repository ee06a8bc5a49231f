import importlib.metadata
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance import english, linear_tagger
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import CLASSES
from cascaded_dllm.importance.tagged_corpora import accuracy, read_tagged
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, save_weights
from cascaded_dllm.importance.taggers import LexiconTagger

for library in ("spacy", "textblob"):
    pytest.importorskip(library, reason=f"{library} is not installed")

# Written for this test. What has no tag behind a slash is none of the five classes.
SENTENCES = [
    "The old/JJ farmer/NN slowly/RB opened/VB the heavy/JJ door/NN .",
    "Mary/NNP Smith/NNP moved/VB to London/NNP with her two cats/NN .",
    "We will visit/VB the new/JJ museum/NN on Friday/NNP .",
    "Visitors/NN usually/RB leave/VB before noon/NN .",
    "He does/VB n't/RB know/VB what happened/VB yesterday/NN .",
    "Microsoft/NNP bought/VB a small/JJ company/NN in Seattle/NNP for 3 million dollars/NN .",
    "Her work/NN is/VB good/JJ , but they work/VB harder/RB .",
    "I want/VB to book/VB a room/NN , and you read/VB a book/NN !",
    "Walking/VB slowly/RB , the children/NN sang/VB a song/NN .",
    "The United/NNP States/NNP has/VB a beautiful/JJ coast/NN .",
]

WORDS = ["The", "fox", "na\u00efve", "cafe\u0301", "don't", "Ada", "Lovelace", "1.5", "\u65e5\u672c", "\u0301"]
EMOJI = ["\U0001f98a", "\U0001f468\u200d\U0001f469\u200d\U0001f467"]
MARKS = [".", "?!", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x00", "\x1f"]
PIECES = st.sampled_from([*WORDS, *EMOJI, *MARKS])
TEXTS = st.lists(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=15).map("".join), max_size=6)


@pytest.fixture(scope="module")
def tagger():
    return LinearTagger.shipped()


@pytest.mark.parametrize("line", SENTENCES)
def test_sentences(tagger, line):
    expected = [(word, tag or "XX") for word, _, tag in (item.partition("/") for item in line.split())]
    # As it would be written: "does" and "n't", or a word and a mark, are not apart.
    text = re.sub(r" (n't|[.,!])", r"\1", " ".join(word for word, _ in expected))
    (words,) = tagger.tag([text])
    assert [(word.text, word.tag) for word in words] == expected


def test_stop_words(tagger):
    (words,) = tagger.tag(["She gave him THE small fox."])
    assert [word.text for word in words if word.is_stop] == ["She", "him", "THE"]


@given(TEXTS, st.integers(1, 3))
@example(["", " ", "\n\n"], 2)
@example(["\U0001f98a fox\U0001f98a ", "\x00\x01 \u65e5\u672c\u8a9e\u3002", "fox"], 1)
def test_words_are_the_characters_of_their_text_alone(tagger, texts, size):
    together = tagger.tag(texts)
    assert [words for i in range(0, len(texts), size) for words in tagger.tag(texts[i : i + size])] == together
    assert tagger.tag(texts[::-1]) == together[::-1]
    for text, words in zip(texts, together, strict=True):
        assert [text[word.start : word.end] for word in words] == [word.text for word in words]
        assert "".join(word.text for word in words) == "".join(text.split())
        assert {word.tag for word in words} <= set(CLASSES)


@settings(max_examples=6)
@given(st.text("aB.(\u65e5 \n", min_size=1, max_size=8))
@example("(")
def test_lines_of_200000_characters(tagger, piece):
    text = piece * (200_000 // len(piece))
    (words,) = tagger.tag([text])
    assert "".join(word.text for word in words) == "".join(text.split())


def test_paragraphs_do_not_look_at_one_another(tagger):
    """The words of two texts are those of two paragraphs of one."""
    texts = ["He will book", "The book of Ada", "( Note ) well"]
    apart = [(word.text, word.tag) for words in tagger.tag(texts) for word in words]
    assert [(word.text, word.tag) for word in tagger.tag(["\n\n".join(texts)])[0]] == apart


@given(TEXTS.map(lambda texts: ["\n\n".join(texts), *texts, "\n".join(texts)]), st.integers(1, 9))
@example(["He will\n\nbook\n\n\n\n the\n \n book", "\n\n\n"], 1)
def test_long_texts_are_tagged_in_pieces(tagger, texts, characters):
    expected = tagger.tag(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_tagger, "_GROUP_CHARACTERS", characters)
        assert tagger.tag(texts) == expected


def test_what_was_seen_before_makes_no_difference(tagger, monkeypatch):
    texts = [f"The {word} of {word}burg {word}s no. {i}." for i, word in enumerate(["fox", "Hare", "glib", "walk"] * 3)]
    expected = tagger.tag(texts)
    monkeypatch.setattr(english, "MAX_WORDS", 12)
    monkeypatch.setattr(linear_tagger, "MAX_WORDS", 12)
    monkeypatch.setattr(linear_tagger, "_GROUP_CHARACTERS", 40)
    forgetful = LinearTagger.shipped()
    assert forgetful.tag(texts) == expected
    assert len(forgetful._table._rows) < len(tagger._table._rows)


def test_name_tells_what_decides_the_tags(tmp_path, tagger):
    versions = "textblob {}, spacy {}".format(*map(importlib.metadata.version, ("textblob", "spacy")))
    assert re.fullmatch(rf"english \([0-9a-f]{{16}}, {re.escape(versions)}\)", tagger.name)
    weights = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    names = []
    for value in (1, 2):
        weights[7, 3] = value
        save_weights(weights, tmp_path / "tagger.npz")
        names.append(LinearTagger.load(tmp_path / "tagger.npz").name)
    assert names[0] != names[1]
    assert re.fullmatch(rf"linear \([0-9a-f]{{16}}, {re.escape(versions)}\)", names[0])


def test_file_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.npz holds no tagger, or is missing .*scripts/train_tagger\.py"):
        LinearTagger.load(tmp_path / "nowhere.npz")


@pytest.mark.slow
def test_accuracy_on_a_treebank(shared, tagger):
    """From the raw text of UD EWT test, on which nothing was trained or chosen."""
    texts = read_tagged(shared / "data" / "ud_ewt" / "en_ewt-ud-test.conllu.xz")
    found = accuracy(tagger, texts)
    assert found > 0.93
    assert found > accuracy(LexiconTagger(), texts) + 0.02
