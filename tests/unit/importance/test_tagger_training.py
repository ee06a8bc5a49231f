import random
import sys

import numpy as np
import pytest

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance import tagger_training
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import CLASSES, class_of
from cascaded_dllm.importance.tagged_corpora import GoldWord, TaggedText
from cascaded_dllm.importance.tagger_examples import NO_TAG, examples
from cascaded_dllm.importance.tagger_training import MIN_COUNT, train
from cascaded_dllm.importance.tagger_weights import NUM_BUCKETS, bucket

for library in ("spacy", "textblob", "scipy"):
    pytest.importorskip(library, reason=f"{library} is not installed")
sparse = pytest.importorskip("scipy.sparse")

# Words that no lexicon has. What decides: the ending, the word before, and the capital inside a sentence.
STEMS = ["blor", "drim", "fusk", "gorp", "hilv", "krent", "mosp", "plon", "quor", "snaff", "trub", "vask"]


def tagged(sentence):
    """A text of words as "text/TAG"."""
    text, words = "", []
    for item in sentence.split():
        form, tag = item.rsplit("/", 1)
        words.append(GoldWord(len(text), len(text) + len(form), tag))
        text += f"{form} "
    return TaggedText(text, tuple(words))


def corpus(stems):
    for stem in stems:
        yield tagged(f"{stem}ed/VBD the/DT {stem}/NN ./.")
        yield tagged(f"he/PRP must/MD {stem}/VB it/PRP {stem}ly/RB ./.")
        yield tagged(f"a/DT {stem}ous/JJ {stem}/NN met/VBD {stem.title()}/NNP ./.")


@pytest.fixture(scope="module")
def losses():
    return []


@pytest.fixture(scope="module")
def weights(losses):
    sentences = list(examples(corpus(STEMS[:9])))
    return train(sentences, iterations=30, progress=lambda step, loss: losses.append((step, loss)))


def test_rules_are_learnt(weights):
    """The stems of the test are others than those of the training."""
    tagger = LinearTagger(weights, "test")
    for text in corpus(STEMS[9:]):
        (words,) = tagger.tag([text.text])
        assert [word.tag for word in words] == [CLASSES[class_of(gold.tag)] for gold in text.words]


def test_progress(losses, weights):
    assert [step for step, _ in losses] == list(range(1, len(losses) + 1))
    assert 5 < len(losses) <= 30
    assert losses[-1][1] < losses[0][1] < np.log(len(CLASSES))


@pytest.mark.slow
def test_the_same_corpus_makes_the_same_weights(weights):
    again = train(list(examples(corpus(STEMS[:9]))), iterations=30, progress=lambda step, loss: None)
    assert np.array_equal(again, weights)
    other = train(list(examples(corpus(STEMS[:8]))), iterations=30, progress=lambda step, loss: None)
    assert not np.array_equal(other, weights)


def test_weights_fill_the_range_and_few_buckets(weights):
    assert np.abs(weights.astype(int)).max() == 127
    assert 50 < np.count_nonzero(weights.any(axis=1)) < 2000


def test_words_without_a_tag_are_only_looked_at():
    """Their neighbours learn from them, and they teach nothing: no class is found where no word had one."""
    sentences = [
        [word._replace(tag=NO_TAG) if word.tag in ("RB", "JJ") else word for word in sentence]
        for sentence in examples(corpus(STEMS[:9]))
    ]
    tagger = LinearTagger(train(sentences, iterations=30, progress=lambda step, loss: None), "test")
    tags = {word.tag for words in tagger.tag([text.text for text in corpus(STEMS)]) for word in words}
    assert {"RB", "JJ"}.isdisjoint(tags)
    assert {"NN", "VB", "NNP"} < tags


@pytest.mark.parametrize("num", range(MIN_COUNT))
def test_too_few_tags(num):
    sentences = list(examples([tagged("fox/NN " * num), TaggedText("no tags here", ())]))
    message = rf"{num} of the {num + 3} words have a tag, and at least 4 must; give a corpus of English whose words are"
    with pytest.raises(DataError, match=message):
        train(sentences, iterations=1, progress=lambda step, loss: None)


def test_the_fewest_tags():
    weights = train(list(examples([tagged("fox/NN " * 4)])), iterations=2, progress=lambda step, loss: None)
    tagger = LinearTagger(weights, "test")
    assert [word.tag for word in tagger.tag(["fox"])[0]] == ["NN"]


def test_gradient_is_that_of_the_loss():
    generator = np.random.default_rng(0)
    matrix = sparse.csr_matrix(generator.integers(0, 2, (7, 5)).astype(float))
    loss = tagger_training._Loss(matrix, generator.integers(0, len(CLASSES), 7))
    point = generator.normal(size=5 * len(CLASSES))
    value, gradient = loss(point)
    # By hand, one word after another.
    sums = matrix.toarray() @ point.reshape(5, -1)
    probs = np.exp(sums) / np.exp(sums).sum(axis=1, keepdims=True)
    classes = loss._is_class.argmax(axis=1)
    expected = -np.log(probs[np.arange(7), classes]).sum() + tagger_training.PENALTY / 2 * (point**2).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    step = 1e-6
    slopes = [(loss(point + step * unit)[0] - loss(point - step * unit)[0]) / (2 * step) for unit in np.eye(len(point))]
    # Central differences: an error of step**2, and rounding of 1e-15 / step.
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-6)


def test_training_and_tagging_see_the_same_features():
    """The sums of the weights of a word's features: from what training is given, and as the tagger adds them up."""
    draws, generator = random.Random(0), np.random.default_rng(0)
    pieces = ["The", "fox", "ran", ".", "\n\n", '"', "Paris", "don't", "42", "www.x.org", "\U0001f98a"]
    texts = [" ".join(draws.choices(pieces, k=draws.randrange(12))) for _ in range(60)]
    weights = generator.integers(-127, 128, (NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    words = [word for sentence in examples([TaggedText(text, ()) for text in texts]) for word in sentence]
    places, hashes = tagger_training._occurrences(words, np.arange(len(words)))
    sums = np.zeros((len(words), len(CLASSES)), dtype=np.int64)
    np.add.at(sums, places, weights[bucket(hashes)])
    tagger = LinearTagger(weights, "test")
    assert np.array_equal(tagger._table.sums([tagger._splitter.split(text) for text in texts]), sums)
    tags = [word.tag for tagged_words in tagger.tag(texts) for word in tagged_words]
    assert tags == [CLASSES[number] for number in sums.argmax(axis=1)]


def test_missing_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtraError, match=r"training a tagger needs scipy, .*'cascaded-dllm\[preprocess\]'"):
        train([], iterations=1, progress=lambda step, loss: None)
