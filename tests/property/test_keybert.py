"""Any text has words, places and importance as the KeyBERT library sees them, in any company."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.importance.base import align
from cascaded_dllm.importance.keybert import BACKGROUND, FULL_STOP, KeybertScorer
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.property.test_importance import assert_same_in_any_batch
from tests.unit.importance import keybert_library, tiny_models

WORDS = [
    "The",
    "sea",
    "Not",
    "cats",
    "na\u00efve",
    "cafe\u0301",
    "don't",
    "a",
    "12",
    "x_1",
    "\u0130stanbul",
    "\u039f\u03a3",
]
OTHERS = [
    "\u65e5\u672c\u8a9e",
    "\U0001f98a",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0307",
    "\u200f",
    "\x00",
    "\x85",
]
MARKS = [".", "...", ",", "!?", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u3000", "'", "3.14"]
TEXT = st.lists(st.one_of(st.sampled_from([*WORDS, *OTHERS, *MARKS]), st.text(max_size=5)), max_size=20).map("".join)
TEXTS = st.lists(TEXT, max_size=6)
TOKENIZER = Tokenizer.train(["The na\u00efve cat, the caf\u00e9 and the sea don't."], 300)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("sentence_transformers", reason="the extra `preprocess` is not installed")
    return tiny_models.save_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def scorer(model):
    return KeybertScorer(model, device="cpu")


@pytest.fixture(scope="module")
def plain_scorer(model):
    return KeybertScorer(model, stop_words_last=False, device="cpu")


@pytest.fixture(scope="module")
def library(model):
    return keybert_library.load(model)


def lowered(text, word):
    """A word as the library sees it, but for the one letter whose lower case depends on what follows."""
    # It sees a dotted capital I as an i and a combining dot, which is no part of the word.
    return text[word.start : word.end].lower().removesuffix("\u0307").replace("\u03c3", "\u03c2")


@given(texts=TEXTS)
@example(texts=["\u0130.\u0130a. a\u0130", "\u039f\u03a3'\u0391 \u039f\u03a3."])
def test_words_and_numbers_are_those_of_the_library(plain_scorer, library, texts):
    vectorizer = pytest.importorskip("sklearn.feature_extraction.text").CountVectorizer()
    for text, words in zip(texts, plain_scorer.score(texts), strict=True):
        words = [word for word in words if word.importance != FULL_STOP]
        analyzed = vectorizer.build_analyzer()(text)
        assert [lowered(text, word) for word in words] == [word.replace("\u03c3", "\u03c2") for word in analyzed]
        (theirs,) = keybert_library.words_of(library, [text], None)
        # Four decimals, and float32 added in another order.
        assert [word.importance for word in words] == pytest.approx([theirs[word] for word in analyzed], abs=1e-4)


@given(texts=TEXTS, size=st.integers(1, 4))
def test_any_batch_gives_the_same_bits(scorer, texts, size):
    assert_same_in_any_batch(scorer, texts, size)


@given(text=TEXT)
def test_every_token_has_one_importance(scorer, text):
    (words,) = scorer.score([text])
    end = 0
    for word in words:
        assert end <= word.start < word.end <= len(text)
        assert (text[word.start : word.end] == ".") == (word.importance == FULL_STOP)
        assert word.importance == FULL_STOP or BACKGROUND < word.importance <= 1
        end = word.end
    encoding = TOKENIZER.encode(text)
    importance = align(words, encoding.offsets, scorer.background)
    assert len(importance) == len(encoding.ids)
    assert set(importance) <= {BACKGROUND, *(word.importance for word in words)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "num_words"),
    [
        ("x" * 200_000, 1),
        ("\u65e5" * 200_000, 1),
        ("\U0001f98a" * 200_000, 0),
        ("the sea, " * 22_222, 44_444),
        ("." * 200_000, 0),
        ("\x00\x01" * 100_000, 0),
        ("\u0130" * 200_000, 0),
        (". " * 100_000, 100_000),
        ("a\u0301" * 100_000, 0),
    ],
)
@pytest.mark.parametrize("scope", ["document", "window"])
def test_long_lines(model, line, num_words, scope):
    scorer = KeybertScorer(model, scope=scope, device="cpu")
    assert [len(words) for words in scorer.score([line, "", line])] == [num_words, 0, num_words]
