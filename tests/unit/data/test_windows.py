import numpy as np
import pytest

from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.data.row_groups import DocumentBatch, RowGroup
from cascaded_dllm.data.shards import Shard
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.errors import ConfigError

EOS = 49


def documents(*of_ids):
    flat = np.array([token for token_ids in of_ids for token in token_ids], dtype=np.int32)
    lengths = np.array([len(token_ids) for token_ids in of_ids], dtype=np.int64)
    return DocumentBatch([str(number) for number in range(len(of_ids))], lengths, flat, flat.astype(np.float32) / 2)


def layout(length, packing):
    return Layout(length, packing, EOS, -100.0)


def cut(of_ids, length, packing, missing=0):
    """Token ids of head, windows and rest."""
    return [part.token_ids.tolist() for part in layout(length, packing).cut(documents(*of_ids), missing)]


def test_stream_joins_documents_by_one_end_of_text():
    _, windows, rest = layout(4, "stream").cut(documents([1, 2, 3], [4], [5, 6]), 0)
    assert windows.token_ids.tolist() == [[1, 2, 3, EOS], [4, EOS, 5, 6]]
    assert windows.importance.tolist() == [[0.5, 1.0, 1.5, -100.0], [2.0, -100.0, 2.5, 3.0]]
    assert (rest.token_ids.tolist(), rest.importance.tolist()) == ([EOS], [-100.0])


def test_document_packing_fills_the_last_window_of_each():
    head, windows, rest = layout(3, "document").cut(documents([1, 2, 3, 4], [5], [6, 7, 8]), 0)
    assert windows.token_ids.tolist() == [[1, 2, 3], [4, EOS, EOS], [5, EOS, EOS], [6, 7, 8]]
    assert windows.importance[1:3, 1:].tolist() == [[-100.0, -100.0]] * 2
    assert len(head.token_ids) == len(rest.token_ids) == 0


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_document_that_fills_its_windows_gets_none_of_end_of_text(length):
    _, windows, _ = cut([[1, 2, 3, 4, 5, 6]], length, "document")
    assert [token for window in windows for token in window] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_no_documents_no_windows(packing):
    assert cut([], 3, packing) == [[], [], []]


def test_corpus_shorter_than_a_window_is_all_rest():
    assert cut([[1, 2]], 4, "stream") == [[], [], [1, 2, EOS]]


def test_tokens_that_end_a_window_of_others_come_first():
    assert cut([[1, 2, 3, 4, 5]], 4, "stream", missing=1) == [[1], [[2, 3, 4, 5]], [EOS]]
    assert cut([[1, 2]], 4, "stream", missing=3) == [[1, 2, EOS], [], []]
    # Neither the window before them nor one of their own is filled.
    assert cut([[1]], 4, "stream", missing=3) == [[1, EOS], [], []]


def test_missing_tokens_follow_from_the_counts(make_settings, tmp_path):
    shard = Shard(tmp_path, make_settings(), Counts(), "", "", "")
    groups = [RowGroup(shard, 0, 2, 9), RowGroup(shard, 1, 1, 1), RowGroup(shard, 2, 1, 6), RowGroup(shard, 3, 5, 50)]
    # They take 11, 2, 7 and 55 tokens.
    assert layout(4, "stream").missing(groups) == [0, 1, 3, 0]
    assert layout(4, "document").missing(groups) == [0, 0, 0, 0]
    assert layout(4, "stream").missing([]) == []


def test_unknown_packing():
    with pytest.raises(ConfigError, match="packing is 'best_fit'; it must be one of stream, document"):
        layout(3, "best_fit")


def test_window_without_length():
    with pytest.raises(
        ConfigError, match="the window length is 0; it must be at least 1, for example the length of the last stage"
    ):
        layout(0, "stream")
