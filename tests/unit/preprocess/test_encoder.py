import gc

import numpy as np
import pytest

from cascaded_dllm.importance.base import Word
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.preprocess import encoder
from cascaded_dllm.preprocess.encoder import Encoder, collector_paused
from cascaded_dllm.text import tokenizer as tokenizer_module
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import Tokenizer


class Watching:
    """A scorer that remembers whether garbage was collected meanwhile."""

    method, background = "random", -1.0

    def __init__(self):
        self.is_collecting = []

    def score(self, texts):
        self.is_collecting.append(gc.isenabled())
        return [[Word(0, 3, 5.0)] for _ in texts]

    def describe(self):
        return {}


def test_a_batch_is_encoded_without_the_collector():
    scorer = Watching()
    (encoded,) = Encoder(Tokenizer.train(["the fox"], 300), scorer).encode([Document("0", "the fox")])
    assert scorer.is_collecting == [False]
    assert gc.isenabled()
    assert encoded.importance[0] == 5
    assert encoded.importance[-1] == -1


def test_long_documents_are_encoded_in_pieces(monkeypatch):
    scorer = RandomScorer(0)
    tokenizer = Tokenizer.train(["the fox and the hen"], 300)
    documents = [Document(str(number), "the fox and the hen. " * number) for number in (0, 1, 40, 2, 30, 0)]
    expected = Encoder(tokenizer, scorer).encode(documents)
    monkeypatch.setattr(encoder, "PIECE_CHARACTERS", 100)
    monkeypatch.setattr(tokenizer_module, "PIECE_CHARACTERS", 100)
    assert len(list(tokenizer.encode_in_pieces(documents[2].text))) > 4
    for found, whole in zip(Encoder(tokenizer, scorer).encode(documents), expected, strict=True):
        assert found.document == whole.document
        assert found.token_ids.dtype == whole.token_ids.dtype == np.int32
        assert np.array_equal(found.token_ids, whole.token_ids)
        assert np.array_equal(found.importance, whole.importance)


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_as_it_was_before(was_enabled):
    def fail():
        with collector_paused():
            assert not gc.isenabled()
            raise KeyboardInterrupt

    (gc.enable if was_enabled else gc.disable)()
    try:
        with pytest.raises(KeyboardInterrupt):
            fail()
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()
