import json
from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.cascade.select_many import keep_ranks, kept_positions
from cascaded_dllm.errors import ConfigError, DataError

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "stage_selection.json").read_text())


@pytest.mark.parametrize(("method", "field"), [("constituency", "labels"), ("keybert_no_stopword", "scores")])
def test_golden(method, field):
    cases = GOLDEN[method]
    ids = np.array([case["input_ids"] for case in cases], dtype=np.int32)
    ranks = keep_ranks(ids, np.array([case[field] for case in cases], dtype=np.float32), method=method)
    for number, count in enumerate(GOLDEN["stage_lengths"][:2], start=1):
        expected = [case[f"stage{number}"] for case in cases]
        # A window is dropped where the longest of the shortened stages cannot be filled.
        has_stages = [stage is not None for stage in expected]
        assert ((ranks < 48).sum(axis=1) >= GOLDEN["stage_lengths"][1]).tolist() == has_stages
        chosen = np.take_along_axis(ids[has_stages], kept_positions(ranks[has_stages], count), axis=1)
        assert chosen.tolist() == [stage for stage in expected if stage is not None]


def test_ranks_by_hand():
    ids = np.array([[9, 3, 9, 5]], dtype=np.int32)
    labels = np.array([[2, 1, 1, -100]], dtype=np.float32)
    # 3 comes first, then the second 9; its copy with the worse label and the token in no word are never kept.
    assert keep_ranks(ids, labels, method="constituency").tolist() == [[4, 0, 1, 4]]
    scores = np.array([[1.1, 0.5, 1.1, 0.2]], dtype=np.float32)
    assert keep_ranks(ids, scores, method="keybert").tolist() == [[0, 2, 1, 3]]


def test_zero_has_no_sign():
    ids, scores = np.array([[1, 2]], dtype=np.int32), np.array([[-0.0, 0.0]], dtype=np.float32)
    assert keep_ranks(ids, scores, method="tfidf").tolist() == [[0, 1]]


def test_arguments_are_left_alone():
    ids, labels = np.array([[3, 1, 2]], dtype=np.int32), np.array([[2, -100, 3]], dtype=np.float32)
    keep_ranks(ids, labels, method="constituency")
    assert (ids.tolist(), labels.tolist()) == ([[3, 1, 2]], [[2.0, -100.0, 3.0]])


def test_rejects_an_unknown_method():
    with pytest.raises(ConfigError, match="the selection method is 'syntax'"):
        keep_ranks(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32), method="syntax")


def test_rejects_importance_of_another_shape():
    with pytest.raises(DataError, match=r"shape \(1, 2\) came with importance of shape \(1, 3\)"):
        keep_ranks(np.zeros((1, 2), np.int32), np.zeros((1, 3), np.float32), method="tfidf")
