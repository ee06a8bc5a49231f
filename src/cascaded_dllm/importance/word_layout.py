"""Texts as rows of a table of distinct words, with boundaries between paragraphs, and the neighbours of each word."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt64

from cascaded_dllm.importance.tagger_features import JOINT, REACH, joint_hash

BOUNDARY_ROW = 0
"""Row of BOUNDARY in every table."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """The words of texts one after another, with REACH boundaries before each paragraph and after the last.

    Attributes:
        rows: the row in the table of each word and each boundary.
        places: for each word, its index in `rows` without the first REACH, which is its index in the result of `at`.
    """

    rows: Int64[np.ndarray, " rows"]
    places: Int64[np.ndarray, " words"]

    def at(self, offset: int, of_rows: Shaped[np.ndarray, "rows *values"]) -> Shaped[np.ndarray, "places *values"]:
        """The values `offset` places after every place, or before it if negative.

        Args:
            offset: from -REACH to REACH.
            of_rows: a value for each of `rows`.
        """
        return of_rows[REACH + offset : len(of_rows) - REACH + offset]

    def joint_hashes(
        self, properties: UInt64[np.ndarray, "table properties"]
    ) -> Iterator[UInt64[np.ndarray, " places"]]:
        """For each feature of JOINT, its hash at every place.

        Args:
            properties: the hashes of the properties of the words of the table, see `WordFeatures`.
        """
        columns = properties.T[:, self.rows]
        for number, feature in enumerate(JOINT):
            yield joint_hash(number, [self.at(offset, columns[column]) for column, offset in feature])


def lay_out(rows: Int64[np.ndarray, " words"], begins_paragraph: Bool[np.ndarray, " words"]) -> Layout:
    """The words with boundaries between paragraphs, so that no word has a neighbour in another paragraph.

    Args:
        rows: the row in the table of every word.
        begins_paragraph: which words begin a paragraph; the first one must.
    """
    places = np.arange(len(rows)) + REACH * np.cumsum(begins_paragraph)
    padded = np.full(len(rows) + REACH * (np.count_nonzero(begins_paragraph) + 1), BOUNDARY_ROW)
    padded[places] = rows
    return Layout(padded, places - REACH)
