"""Passing over records gives those of a part, and reads as far as if all had been looked at."""

import itertools

import pytest

from cascaded_dllm.text.document import Holdout, Part
from cascaded_dllm.text.skipping import Skip


def looked_at(seen):
    for number in range(30):
        seen.append(number)
        yield number


@pytest.mark.parametrize("holdout", [None, Holdout(3, True), Holdout(3, False)])
@pytest.mark.parametrize(("index", "num_parts"), [(0, 1), (0, 4), (3, 4), (40, 41)])
@pytest.mark.parametrize("stop", [None, 1, 10, 12, 30, 50])
def test_wanted(stop, index, num_parts, holdout):
    part = Part(index, num_parts, stop, holdout)
    seen, expected_seen, skip = [], [], Skip()
    expected = list(part.of(looked_at(expected_seen)))
    assert list(skip.wanted(part, skip.over(looked_at(seen)))) == expected
    # `islice` looks at more than there is to see where the first record is behind the last.
    assert seen == expected_seen[:stop]


def test_a_skip_that_is_longer_than_a_file():
    skip = Skip()
    files = itertools.chain.from_iterable(skip.over(range(start, start + 3)) for start in (0, 3, 6, 9))
    assert list(skip.wanted(Part(1, 5), files)) == [1, 6, 11]


def test_take():
    skip = Skip()
    skip.number = 5
    assert [skip.take(3), skip.take(3), skip.take(3)] == [3, 2, 0]
