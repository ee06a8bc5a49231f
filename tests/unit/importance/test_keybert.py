import itertools
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.cascade.select import select_stages
from cascaded_dllm.errors import ConfigError, MissingExtraError
from cascaded_dllm.importance.base import Scorer, Word, align
from cascaded_dllm.importance.keybert import BACKGROUND, FULL_STOP, KeybertScorer
from cascaded_dllm.importance.sentence_model import SentenceModel
from tests.unit.importance import keybert_library, tiny_models

DOCUMENTS = [
    "The cat saw the sea. Not the new house, and not the dogs of the sea; the cat saw it all the same.",
    "",
    "  \n ",
    "a I . , 7",
    "house",
    "Sea sea SEA seas",
    "the of and not",
    "na\u00efve caf\u00e9, cafe\u0301 stra\u00dfe \u0130stanbul a\u0130",
    "\u039f\u0394\u039f\u03a3 \u65e5\u672c\u8a9e \U0001f98a fox_1 3.14",
    "word " * 300 + "house",
    "seashell" * 40 + " sea",
]
# What four decimals leave, and float32 in another order.
AS_KEYBERT = {"rtol": 0, "atol": 1e-4}


def of_words(text: str, words: list[Word]) -> list[tuple[str, float]]:
    return [(text[word.start : word.end], word.importance) for word in words]


def by_lowered(text: str, words: list[Word]) -> dict[str, float]:
    """Importance of the words of the text, full stops aside; every occurrence has the same."""
    found: dict[str, float] = {}
    for word, importance in of_words(text, words):
        if word != ".":
            # KeyBERT sees a dotted capital I as an i and a combining dot, which ends the word before it.
            assert found.setdefault(word.lower().removesuffix("\u0307"), importance) == importance
    return found


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose([ours[word] for word in theirs], list(theirs.values()), **AS_KEYBERT)


@pytest.fixture(scope="module", params=["tiny", "real"])
def model(request) -> Path:
    return request.getfixturevalue(f"{request.param}_model")


@pytest.fixture(scope="module")
def library(model):
    return keybert_library.load(model)


@pytest.fixture(scope="module")
def scorer(tiny_model) -> KeybertScorer:
    return KeybertScorer(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def plain_scorer(tiny_model) -> KeybertScorer:
    return KeybertScorer(tiny_model, stop_words_last=False, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3, len(DOCUMENTS)])
def test_words_and_numbers_are_those_of_keybert(model, library, batch):
    scored = KeybertScorer(model, stop_words_last=False, device="cpu").score(DOCUMENTS)
    theirs = []
    for start in range(0, len(DOCUMENTS), batch):
        theirs += keybert_library.words_of(library, DOCUMENTS[start : start + batch], None)
    assert sum(map(len, theirs)) > 30
    for text, words, their in zip(DOCUMENTS, scored, theirs, strict=True):
        assert_same(by_lowered(text, words), their)


def test_stop_words_are_those_of_keybert_and_lie_below(model, library):
    scored = KeybertScorer(model, device="cpu").score(DOCUMENTS)
    theirs = keybert_library.words_of(library, DOCUMENTS, "english")
    everything = keybert_library.words_of(library, DOCUMENTS, None)
    num_stop_words = 0
    for text, words, their, whole in zip(DOCUMENTS, scored, theirs, everything, strict=True):
        ours = by_lowered(text, words)
        stop_words = {word: ours.pop(word) for word in ours.keys() - their.keys()}
        assert_same(ours, their)
        assert all(BACKGROUND < -1.1 <= value < -1 for value in stop_words.values())
        # Among themselves they are in KeyBERT's order.
        assert_same(
            {word: (value + 1.05) / 0.04 for word, value in stop_words.items()}, {w: whole[w] for w in stop_words}
        )
        num_stop_words += len(stop_words)
    assert num_stop_words > 10


@pytest.mark.slow
def test_against_the_library_on_prose(shared, real_model):
    import lzma

    with lzma.open(shared / "data" / "prose" / "masc.jsonl.xz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in itertools.islice(lines, 4)]
    scored = KeybertScorer(real_model, stop_words_last=False, device="cpu").score(texts)
    theirs = keybert_library.words_of(keybert_library.load(real_model), texts, None)
    for text, words, their in zip(texts, scored, theirs, strict=True):
        assert_same(by_lowered(text, words), their)


def test_every_occurrence_in_the_text_itself(plain_scorer):
    text = "The Sea. \u0130stanbul's sea, 2.5 seas... x End."
    found = of_words(text, plain_scorer.score([text])[0])
    assert [word for word, _ in found] == ["The", "Sea", ".", "stanbul", "sea", "seas", "End", "."]
    importance = dict(found)
    assert importance["Sea"] == importance["sea"] != importance["seas"]


def test_lower_case_may_be_longer_than_the_text(plain_scorer):
    """A dotted capital I becomes two characters, the second of which is in no word."""
    text = "\u0130\u0130\u0130 a\u0130b dog \u0130"
    assert [word for word, _ in of_words(text, plain_scorer.score([text])[0])] == ["a\u0130", "dog"]


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("End.", [3]),
        ("One. Two.\nThree.", [3, 8, 15]),
        ('He said "no." Then', [11]),
        ("3.14 or a.b or .5", []),
        ("Wait... what", []),
        ("Wait... what.", [12]),
        ("(End.)", [4]),
        (".", [0]),
        ("..", []),
    ],
)
def test_full_stops(scorer, text, stops):
    found = [word for word in scorer.score([text])[0] if word.importance > 1]
    assert found == [Word(place, place + 1, FULL_STOP) for place in stops]


def test_values_are_those_that_the_selection_rule_knows(scorer):
    """Highest and repeatable the full stop, then words, then stop words, then all else."""
    text = "The sea. The house, of the sea."
    words = scorer.score([text])[0]
    pieces = ["The", " sea", ".", " The", " house", ",", " of", " the", " sea", "."]
    ends = list(itertools.accumulate(map(len, pieces)))
    offsets = list(zip([0, *ends], ends, strict=False))
    ids = [pieces.index(piece) for piece in pieces]
    importance = align(words, offsets, scorer.background)
    assert importance[2] == importance[9] == FULL_STOP > 1
    assert importance[5] == BACKGROUND == scorer.background
    stages = select_stages(ids, importance, [2, 3, 4, 7, 10], method=scorer.method)
    sea, house, stop = ids[1], ids[4], ids[2]
    assert stages is not None
    assert stages[0] == [stop, stop]
    assert set(stages[2]) == {sea, house, stop}
    assert ids[5] not in stages[3]


def test_one_word_is_no_more_than_itself(plain_scorer):
    """A cosine of one may be rounded up; above 1 it would be a full stop."""
    for text in tiny_models.WORDS[:9]:
        ((_, _, importance),) = plain_scorer.score([text])[0]
        assert 0.999999 < importance <= 1


@pytest.mark.parametrize("scope", ["document", "window"])
def test_any_batch_gives_the_same_bits(tiny_model, scope):
    def fresh() -> KeybertScorer:
        return KeybertScorer(tiny_model, scope=scope, window_words=7, device="cpu")

    together = fresh().score(DOCUMENTS)
    one_by_one = fresh()
    assert [one_by_one.score([text])[0] for text in DOCUMENTS] == together
    assert fresh().score(DOCUMENTS[::-1])[::-1] == together
    assert fresh().score([*DOCUMENTS, *DOCUMENTS]) == [*together, *together]
    assert fresh().score([]) == []


def test_any_batch_gives_the_same_bits_with_the_real_model(real_model):
    scorer = KeybertScorer(real_model, device="cpu")
    one_by_one = [scorer.score([text])[0] for text in DOCUMENTS]
    assert KeybertScorer(real_model, device="cpu").score(DOCUMENTS) == one_by_one


def test_a_window_is_a_document_of_its_own(tiny_model, scorer):
    windows = KeybertScorer(tiny_model, scope="window", window_words=3, device="cpu")
    text = "  The cat saw\nthe  sea. Not the house, 3.14 and the \u0130stanbul "
    pieces = ["The cat saw\n", "the  sea. Not ", "the house, 3.14 ", "and the \u0130stanbul "]
    assert "".join(pieces) == text[2:]
    expected, start = [], 2
    for piece, words in zip(pieces, scorer.score(pieces), strict=True):
        expected += [Word(start + word.start, start + word.end, word.importance) for word in words]
        start += len(piece)
    assert windows.score([text, "", " "]) == [expected, [], []]
    assert expected != scorer.score([text])[0]


def test_a_text_without_words_needs_no_model(tmp_path):
    assert KeybertScorer(tmp_path / "missing").score(["", "a . b", "\U0001f98a"]) == [[], [Word(2, 3, FULL_STOP)], []]


def test_words_are_found_while_documents_are_embedded(tiny_model, monkeypatch):
    """A GPU computes in the meantime, so its vectors are asked for last."""
    order: list[str] = []
    begin, embed = SentenceModel.begin_documents, SentenceModel.embed_words

    def begin_documents(self, documents):
        order.append("begin")
        waiting = begin(self, documents)
        return lambda: order.append("wait") or waiting()

    monkeypatch.setattr(SentenceModel, "begin_documents", begin_documents)
    monkeypatch.setattr(SentenceModel, "embed_words", lambda *words: order.append("words") or embed(*words))
    KeybertScorer(tiny_model, device="cpu").score(DOCUMENTS)
    assert order == ["begin", "words", "wait"]


def test_words_come_from_the_cache_of_another_scorer(tiny_model, tmp_path, monkeypatch):
    expected = KeybertScorer(tiny_model, cache_dir=tmp_path, device="cpu").score(DOCUMENTS)
    (folder,) = tmp_path.iterdir()
    second = KeybertScorer(tiny_model, cache_dir=tmp_path, device="cpu")
    assert folder.name == second.describe()["model_sha256"]
    embedded: list[str] = []
    embed_words = SentenceModel.embed_words
    monkeypatch.setattr(
        SentenceModel, "embed_words", lambda self, words: embedded.extend(words) or embed_words(self, words)
    )
    assert second.score(DOCUMENTS) == expected
    # What is too long to be a word is not kept.
    assert embedded == ["seashell" * 40]
    assert second.score(["nothing new in the sea, mouse"]) != []
    assert embedded[1:] == ["nothing", "in", "mouse"]


def test_words_of_another_arithmetic_are_not_taken(tiny_model, tmp_path, monkeypatch):
    """What a GPU has embedded has other last bits."""
    KeybertScorer(tiny_model, cache_dir=tmp_path, device="cpu").score(DOCUMENTS)
    ours = SentenceModel(tiny_model, device="cpu", precision="float32").arithmetic
    monkeypatch.setattr(SentenceModel, "arithmetic", "cuda-h100")
    embedded: list[str] = []
    embed_words = SentenceModel.embed_words
    monkeypatch.setattr(
        SentenceModel, "embed_words", lambda self, words: embedded.extend(words) or embed_words(self, words)
    )
    KeybertScorer(tiny_model, cache_dir=tmp_path, device="cpu").score(DOCUMENTS)
    assert len(embedded) > 10
    assert sorted(path.name for path in tmp_path.glob("*/*")) == sorted([ours, "cuda-h100"])


def test_describe_tells_all_that_changes_the_result(tiny_model, tmp_path_factory):
    other_model = tiny_models.save_bert(tmp_path_factory.mktemp("other"), seed=1)
    described = [
        json.dumps(KeybertScorer(model, device="cpu", **settings).describe())
        for model, settings in [
            (tiny_model, {}),
            (other_model, {}),
            (tiny_model, {"stop_words_last": False}),
            (tiny_model, {"scope": "window"}),
            (tiny_model, {"scope": "window", "window_words": 5}),
            (tiny_model, {"precision": "bfloat16"}),
        ]
    ]
    assert len(set(described)) == len(described)


def test_describe_does_not_tell_where_things_are(tiny_model, tmp_path):
    copied = tmp_path / "copy"
    copied.symlink_to(tiny_model)
    first = KeybertScorer(tiny_model, device="cpu").describe()
    assert KeybertScorer(copied, device="auto", cache_dir=tmp_path, window_words=5).describe() == first
    assert KeybertScorer(tiny_model, device="cpu").describe()["stop_words_last"] == (
        "318 words, sha256 40e0a284c5b9a220"
    )


def test_scorer_follows_the_protocol_and_travels(tiny_model, scorer, plain_scorer):
    assert isinstance(scorer, Scorer)
    assert (scorer.method, plain_scorer.method) == ("keybert_no_stopword", "keybert")
    unused = KeybertScorer(tiny_model, device="cpu")
    sent = pickle.dumps(unused)
    assert len(sent) < 10_000
    assert pickle.loads(sent).score(DOCUMENTS) == scorer.score(DOCUMENTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scope": "page"}, "the scope is 'page'; it must be one of document, window"),
        ({"precision": "float16"}, "the precision is 'float16'; it must be one of float32, bfloat16"),
        ({"device": "tpu"}, "the device is 'tpu'; it must be one of auto, cpu, cuda, cuda:0, cuda:1, ..."),
        ({"device": "cuda:x"}, "the device is 'cuda:x'; it must be one of auto, cpu"),
        ({"window_words": 0}, "window_words is 0; it must be at least 1"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(settings, message):
    with pytest.raises(ConfigError, match=message):
        KeybertScorer(**settings)


def test_stop_words_need_a_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingExtraError, match=r"keybert_no_stopword needs scikit-learn.*\[preprocess\]"):
        KeybertScorer()
    KeybertScorer(stop_words_last=False)
