import numpy as np
import pytest

from cascaded_dllm.data.shards import Record
from cascaded_dllm.data.windows import Window, windows
from cascaded_dllm.errors import ConfigError

EOS = 49


def record(*token_ids):
    return Record("d", np.array(token_ids, dtype=np.int32), np.array(token_ids, dtype=np.float32) / 2)


def cut(records, length, packing):
    stream = windows(iter(records), length, eos_id=EOS, background=-100.0, packing=packing)
    return list(stream), stream.tail


def test_stream_joins_documents_by_one_end_of_text():
    found, tail = cut([record(1, 2, 3), record(4), record(5, 6)], 4, "stream")
    assert found == [
        Window([1, 2, 3, EOS], [0.5, 1.0, 1.5, -100.0]),
        Window([4, EOS, 5, 6], [2.0, -100.0, 2.5, 3.0]),
    ]
    assert tail == Window([EOS], [-100.0])


def test_document_packing_fills_the_last_window_of_each():
    found, tail = cut([record(1, 2, 3, 4), record(5), record(6, 7, 8)], 3, "document")
    assert [window.token_ids for window in found] == [
        [1, 2, 3],
        [4, EOS, EOS],
        [5, EOS, EOS],
        [6, 7, 8],
    ]
    assert [window.importance[1:] for window in found[1:3]] == [[-100.0, -100.0]] * 2
    assert tail == Window([], [])


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_document_that_fills_its_windows_gets_none_of_end_of_text(length):
    found, _ = cut([record(1, 2, 3, 4, 5, 6)], length, "document")
    assert [token for window in found for token in window.token_ids] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_no_documents_no_windows(packing):
    assert cut([], 3, packing) == ([], Window([], []))


def test_corpus_shorter_than_a_window_is_all_tail():
    found, tail = cut([record(1, 2)], 4, "stream")
    assert found == []
    assert tail.token_ids == [1, 2, EOS]


def test_reads_no_further_than_it_must():
    """A corpus of any size passes through in constant memory."""
    read = []

    def endless():
        while True:
            read.append(1)
            yield record(*[1] * 999)

    stream = windows(endless(), 100, eos_id=EOS, background=0.0, packing="stream")
    for _ in range(1000):
        next(stream)
    assert len(read) < 200


def test_values_are_plain_numbers():
    found, _ = cut([record(1, 2, 3)], 2, "stream")
    assert all(type(token) is int for token in found[0].token_ids)
    assert all(type(value) is float for value in found[0].importance)


def test_unknown_packing():
    with pytest.raises(ConfigError, match="packing 'best_fit' is unknown; choose one of stream, document"):
        cut([], 3, "best_fit")


def test_window_without_length():
    with pytest.raises(ConfigError, match="window length 0 is below 1"):
        cut([], 0, "stream")
