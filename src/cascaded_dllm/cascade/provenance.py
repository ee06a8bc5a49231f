"""Which stage every token of a text came from."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def continued_positions(prefix: Sequence[int], target: Sequence[int]) -> list[int]:
    """For every token of `target`, the position in `prefix` that it continues, or -1 where it is new.

    The continued tokens are a longest common subsequence of `prefix` and `target`. Of several, it is the one whose
    tokens stand furthest left in the target.
    """
    longest = _longest_of_rests(np.asarray(prefix, np.int64), np.asarray(target, np.int64))
    found = [-1] * len(target)
    i = j = 0
    while longest[i, j] > 0:
        if prefix[i] == target[j]:
            # Equal tokens at the front are matched by some longest common subsequence.
            found[j] = i
            i, j = i + 1, j + 1
        elif longest[i + 1, j] >= longest[i, j + 1]:
            i += 1
        else:
            j += 1
    return found


def provenance(stages: Sequence[Sequence[int]], *, first_stage: int = 1) -> list[list[int]]:
    """For every token of every stage, the number of the stage that wrote it first.

    A token that continues a token of the stage before inherits its provenance; any other comes from its own stage.

    Args:
        stages: ids of consecutive stages of one text.
        first_stage: number of the first of them.
    """
    found: list[list[int]] = []
    for number, (before, ids) in enumerate(zip([[], *stages], stages, strict=False), start=first_stage):
        kept = continued_positions(before, ids)
        found.append([number if place < 0 else found[-1][place] for place in kept])
    return found


def _longest_of_rests(prefix: npt.NDArray[np.int64], target: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """longest[i, j]: length of the longest common subsequence of prefix[i:] and target[j:]."""
    longest = np.zeros((len(prefix) + 1, len(target) + 1), dtype=np.int64)
    for i in reversed(range(len(prefix))):
        # Either prefix[i] is matched at the place from j on that leaves the longest rest, or it is left out.
        matched = np.where(target == prefix[i], longest[i + 1, 1:] + 1, 0)
        best = np.maximum.accumulate(matched[::-1])[::-1]
        longest[i, :-1] = np.maximum(best, longest[i + 1, :-1])
    return longest
