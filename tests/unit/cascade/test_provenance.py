"""Where tokens come from: a longest common subsequence, found again by trying all, and its way through the stages."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.cascade.provenance import continued_positions, provenance

TEXT = st.lists(st.integers(0, 3), max_size=7)


def longest_common(first: list[int], second: list[int]) -> int:
    for size in range(min(len(first), len(second)), 0, -1):
        if set(itertools.combinations(first, size)) & set(itertools.combinations(second, size)):
            return size
    return 0


@given(TEXT, TEXT)
def test_kept_tokens_are_a_longest_common_subsequence(prefix: list[int], target: list[int]) -> None:
    kept = continued_positions(prefix, target)
    assert len(kept) == len(target)
    pairs = [(place, position) for position, place in enumerate(kept) if place >= 0]
    assert len(pairs) == longest_common(prefix, target)
    assert all(prefix[place] == target[position] for place, position in pairs)
    assert all(before[0] < after[0] for before, after in itertools.pairwise(pairs))


def test_a_token_belongs_to_the_first_stage_that_wrote_it() -> None:
    stages = [[5, 6], [1, 5, 6, 2], [1, 1, 5, 3, 2, 6, 2]]
    assert provenance(stages) == [[1, 1], [2, 1, 1, 2], [2, 3, 1, 3, 3, 1, 2]]
    assert provenance(stages[1:], first_stage=2) == [[2] * 4, [2, 3, 2, 3, 3, 2, 2]]
    assert provenance([[4, 4]]) == [[1, 1]]
    # What a stage drops and a later one writes again is the later one's.
    assert provenance([[7], [8], [7]]) == [[1], [2], [3]]
