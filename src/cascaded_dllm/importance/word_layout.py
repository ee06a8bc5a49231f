"""Texts as rows of a table of distinct words, with room between paragraphs, and what stands around each word."""

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
    """Words of one or many texts in a row, with REACH boundaries before each paragraph and behind the last.

    Attributes:
        rows: of the table, one for each word and each boundary.
        places: where among all but the first REACH of `rows` each word is.
    """

    rows: Int64[np.ndarray, " rows"]
    places: Int64[np.ndarray, " words"]

    def at(self, offset: int, of_rows: Shaped[np.ndarray, "rows *values"]) -> Shaped[np.ndarray, "places *values"]:
        """What stands `offset` places on from every place, at most REACH to each side.

        Args:
            offset: how many.
            of_rows: something about each of `rows`.
        """
        return of_rows[REACH + offset : len(of_rows) - REACH + offset]

    def joint_hashes(
        self, properties: UInt64[np.ndarray, "table properties"]
    ) -> Iterator[UInt64[np.ndarray, " places"]]:
        """The hashes of each feature of JOINT for every place.

        Args:
            properties: of the words of the table.
        """
        columns = properties.T[:, self.rows]
        for number, feature in enumerate(JOINT):
            yield joint_hash(number, [self.at(offset, columns[column]) for column, offset in feature])


def lay_out(rows: Int64[np.ndarray, " words"], begins_paragraph: Bool[np.ndarray, " words"]) -> Layout:
    """The words with boundaries between paragraphs, so that none reaches into the next.

    Args:
        rows: of the table, for every word.
        begins_paragraph: which words begin a paragraph; the very first one must.
    """
    places = np.arange(len(rows)) + REACH * np.cumsum(begins_paragraph)
    padded = np.full(len(rows) + REACH * (np.count_nonzero(begins_paragraph) + 1), BOUNDARY_ROW)
    padded[places] = rows
    return Layout(padded, places - REACH)
