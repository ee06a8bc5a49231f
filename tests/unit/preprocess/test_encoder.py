import gc

import pytest

from cascaded_dllm.importance.base import Word
from cascaded_dllm.preprocess.encoder import Encoder, collector_paused
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
    encoder = Encoder(Tokenizer.train(["the fox"], 300), scorer)
    (encoded,) = encoder.encode([Document("0", "the fox")])
    assert scorer.is_collecting == [False]
    assert gc.isenabled()
    assert encoded.importance[0] == 5
    assert encoded.importance[-1] == -1


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
