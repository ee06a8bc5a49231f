import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cascaded_dllm.cascade.select import select_positions
from cascaded_dllm.cascade.select_many import keep_ranks, kept_positions

LABELS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, -100])
COMMON = [-1.2, -0.3, -0.0, 0.0, 1e-40, 0.2, 0.7, 1.0, float(np.nextafter(np.float32(1), np.float32(2))), 1.1]
SCORES = st.sampled_from(COMMON) | st.floats(-2, 2, width=32)
IDS = st.integers(0, 12) | st.integers(0, 2**31 - 1)


@st.composite
def cases(draw, values):
    shape = draw(st.tuples(st.integers(0, 4), st.integers(1, 40)))
    ids = draw(arrays.arrays(np.int32, shape, elements=IDS))
    importance = draw(arrays.arrays(np.float32, shape, elements=values))
    lengths = draw(st.lists(st.integers(1, shape[1]), min_size=1, max_size=5, unique=True))
    return ids, importance, sorted(lengths)


def check_equal(case, method, *, unique=True):
    ids, importance, lengths = case
    num_windows, length = ids.shape
    ranks = keep_ranks(ids, importance, method=method, unique=unique)
    assert (ranks.shape, ranks.dtype) == (ids.shape, np.int32)
    shortened = [count for count in lengths if count < length]
    for row in range(num_windows):
        expected = select_positions(ids[row].tolist(), importance[row].tolist(), lengths, method=method, unique=unique)
        is_kept = bool((ranks[row] < length).sum() >= max(shortened, default=0))
        assert is_kept == (expected is not None)
        if expected is not None:
            found = [kept_positions(ranks[row : row + 1], count)[0].tolist() for count in shortened]
            assert found == expected[: len(shortened)]


@given(cases(LABELS))
def test_constituency(case):
    check_equal(case, "constituency")


@given(cases(SCORES))
def test_scores(case):
    check_equal(case, "keybert_no_stopword")


@given(cases(LABELS), cases(SCORES))
def test_with_copies(labelled, scored):
    """No window is dropped."""
    for case, method in ((labelled, "constituency"), (scored, "tfidf")):
        check_equal(case, method, unique=False)
        ranks = keep_ranks(case[0], case[1], method=method, unique=False)
        assert (np.sort(ranks) == np.arange(ranks.shape[1])).all()


@given(cases(LABELS), st.integers(1, 40))
def test_positions_of_many_windows_are_those_of_each(case, count):
    ids, labels, _ = case
    ranks = keep_ranks(ids, labels, method="constituency")
    ranks = ranks[(ranks < ids.shape[1]).sum(axis=1) >= count]
    found = kept_positions(ranks, count)
    assert (found.shape, found.dtype) == ((len(ranks), count), np.int32)
    assert found.tolist() == [kept_positions(row[None], count)[0].tolist() for row in ranks]
