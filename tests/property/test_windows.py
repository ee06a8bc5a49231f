import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.data import windows as windows_module
from cascaded_dllm.data.shards import Record
from cascaded_dllm.data.windows import windows

EOS = 99
TOKENS = st.lists(st.integers(0, 98), min_size=1, max_size=25)
CORPUS = st.lists(TOKENS, max_size=12)


def records_of(corpus):
    for number, token_ids in enumerate(corpus):
        ids = np.array(token_ids, dtype=np.int32)
        # The importance says where a token comes from, so that a shift against the ids is seen.
        yield Record(str(number), ids, (number * 1000 + np.arange(len(ids))).astype(np.float32))


def tagged(corpus):
    return [
        [(token, float(number * 1000 + place)) for place, token in enumerate(token_ids)]
        for number, token_ids in enumerate(corpus)
    ]


@given(CORPUS, st.integers(1, 40), st.sampled_from([1, 10, 1 << 16]))
def test_stream_windows_concatenate_to_the_corpus(corpus, length, chunk):
    with_chunk(chunk, lambda: check_stream(corpus, length))


def check_stream(corpus, length):
    stream = windows(records_of(corpus), length, eos_id=EOS, background=-1.0, packing="stream")
    found = list(stream)
    assert all(len(window.token_ids) == len(window.importance) == length for window in found)
    assert len(stream.tail.token_ids) < length
    joined = [pair for window in [*found, stream.tail] for pair in zip(*window, strict=True)]
    assert joined == [pair for document in tagged(corpus) for pair in [*document, (EOS, -1.0)]]


def with_chunk(chunk, check):
    before = windows_module.CHUNK_TOKENS
    windows_module.CHUNK_TOKENS = chunk
    try:
        check()
    finally:
        windows_module.CHUNK_TOKENS = before


@given(CORPUS, st.integers(1, 40))
def test_document_windows_concatenate_to_their_document(corpus, length):
    stream = windows(records_of(corpus), length, eos_id=EOS, background=-1.0, packing="document")
    found = list(stream)
    assert stream.tail == ([], [])
    for document in tagged(corpus):
        count = -(-len(document) // length)
        mine, found = found[:count], found[count:]
        assert all(len(window.token_ids) == length for window in mine)
        joined = [pair for window in mine for pair in zip(*window, strict=True)]
        assert joined[: len(document)] == document
        padding = joined[len(document) :]
        assert len(padding) < length
        assert set(padding) <= {(EOS, -1.0)}
    assert found == []


@given(CORPUS, st.integers(1, 20))
def test_both_packings_hold_the_same_document_tokens(corpus, length):
    def kept(packing):
        stream = windows(records_of(corpus), length, eos_id=EOS, background=-1.0, packing=packing)
        found = [*stream]
        ids = itertools.chain.from_iterable(window.token_ids for window in [*found, stream.tail])
        return [token for token in ids if token != EOS]

    assert kept("stream") == kept("document")
