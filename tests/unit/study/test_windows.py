"""Arms whose methods drop different windows are measured on the same texts."""

import numpy as np
import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study.windows import common_rows

TEXTS = np.array([[1, 2], [3, 3], [4, 5], [1, 2], [6, 7]], dtype=np.int32)


def test_rows_hold_the_same_texts_in_the_order_of_the_first():
    first, second = TEXTS[[0, 2, 3, 4]], TEXTS[[0, 1, 2, 3]]
    rows = common_rows([first, second])
    assert [first[rows[0]].tolist(), second[rows[1]].tolist()] == [[[1, 2], [4, 5], [1, 2]]] * 2
    # Row 1 is another text in each, so that the numbers of the rows alone would compare different texts.
    assert [own.tolist() for own in rows] == [[0, 1, 2], [0, 2, 3]]


def test_equal_texts_count_as_often_as_in_every_set():
    rows = common_rows([TEXTS[[0, 3]], TEXTS[[3]]])
    assert [own.tolist() for own in rows] == [[0], [0]]


def test_nothing_in_common():
    with pytest.raises(ConfigError, match=r"the arms have 1, 2 windows to measure on, and not one in common; give"):
        common_rows([TEXTS[[0]], TEXTS[[1, 2]]])
