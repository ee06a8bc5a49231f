import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.data.row_groups import DocumentBatch
from cascaded_dllm.data.windows import Layout, Seam
from tests.reference.plain_windows import plain_windows

EOS = (99, -1.0)
TOKENS = st.lists(st.integers(0, 98), min_size=1, max_size=25)
CORPUS = st.lists(TOKENS, max_size=12)
PACKINGS = st.sampled_from(["stream", "document"])


def tagged(corpus):
    """The importance says where a token comes from, so that a shift against the ids is seen."""
    return [
        [(token, float(number * 1000 + place)) for place, token in enumerate(token_ids)]
        for number, token_ids in enumerate(corpus)
    ]


def as_documents(documents):
    pairs = [pair for document in documents for pair in document]
    return DocumentBatch(
        ["" for _ in documents],
        np.array([len(document) for document in documents], dtype=np.int64),
        np.array([token for token, _ in pairs], dtype=np.int32),
        np.array([value for _, value in pairs], dtype=np.float32),
    )


def pairs(tokens):
    return list(zip(tokens.token_ids.ravel().tolist(), tokens.importance.ravel().tolist(), strict=True))


@given(CORPUS, st.integers(1, 40), PACKINGS, st.lists(st.integers(0, 12), max_size=4))
def test_pieces_cut_apart_give_the_windows_of_the_whole(corpus, length, packing, borders):
    documents = tagged(corpus)
    borders = [0, *sorted(min(border, len(corpus)) for border in borders), len(corpus)]
    layout = Layout(length, packing, *EOS)
    found, seam, place = [], Seam(length), 0
    for start, end in itertools.pairwise(borders):
        piece = as_documents(documents[start:end])
        head, windows, rest = layout.cut(piece, -place % length if packing == "stream" else 0)
        window = seam.ended_by(head)
        if window is not None:
            assert window.token_ids.shape == window.importance.shape == (1, length)
            found += [pairs(window)]
        found += [pairs(windows.part(row, row + 1)) for row in range(len(windows.token_ids))]
        seam.begin(rest)
        place += int(layout.room(piece.lengths).sum())
    assert (found, pairs(seam.begun)) == plain_windows(documents, length, eos=EOS, packing=packing)


@given(CORPUS, st.integers(1, 40), PACKINGS)
def test_windows_concatenate_to_the_corpus(corpus, length, packing):
    documents = tagged(corpus)
    windows, tail = plain_windows(documents, length, eos=EOS, packing=packing)
    assert all(len(window) == length for window in windows)
    assert len(tail) < length
    joined = [pair for window in [*windows, tail] for pair in window]
    assert [pair for pair in joined if pair != EOS] == [pair for document in documents for pair in document]
    if packing == "stream":
        assert joined == [pair for document in documents for pair in [*document, EOS]]
    else:
        assert len(windows) == sum(-(-len(document) // length) for document in documents)
