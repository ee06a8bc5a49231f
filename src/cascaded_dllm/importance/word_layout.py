"""Texts as rows of a table of distinct words, with room between paragraphs, and what stands around each word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from cascaded_dllm.importance.tagger_features import JOINT, REACH, WordFeatures, joint_hash

Rows: TypeAlias = Int64[np.ndarray, " words"]
Properties: TypeAlias = UInt64[np.ndarray, "table properties"]
Flags: TypeAlias = Bool[np.ndarray, " words"]

BOUNDARY_ROW = 0
"""Row of BOUNDARY in every table."""


@final
@dataclass(frozen=True, slots=True)
class Layout:
    """Words of one or many texts in a row, with boundaries between paragraphs.

    Attributes:
        rows: of the table, one for each word and each boundary.
        places: where among `rows` each word is.
        is_first: whether a word is the first of a sentence.
    """

    rows: Rows
    places: Rows
    is_first: Flags

    def at(self, offset: int) -> Rows:
        """The table's rows of what stands `offset` words on from every word; at most REACH to each side."""
        return self.rows[self.places + offset]

    def joint_hashes(
        self, properties: UInt64[np.ndarray, "table properties"]
    ) -> Iterator[UInt64[np.ndarray, " words"]]:
        """The hashes of each feature of JOINT for every word.

        Args:
            properties: of the words of the table.
        """
        around = {offset: self.at(offset) for offset in range(-REACH, REACH + 1)}
        for number, feature in enumerate(JOINT):
            yield joint_hash(number, [properties[around[offset], column] for column, offset in feature])


def lay_out(rows: Rows, begins_paragraph: Flags, is_word: Flags, ends_sentence: Flags) -> Layout:
    """The words with REACH boundaries before each paragraph and behind the last, so that none reaches into the next.

    Args:
        rows: of the table, for every word.
        begins_paragraph: which words begin a paragraph; the very first one must.
        is_word: which rows of the table are words and no marks.
        ends_sentence: which rows of the table are marks that end a sentence.
    """
    places = np.arange(len(rows)) + REACH * np.cumsum(begins_paragraph)
    padded = np.full(len(rows) + REACH * (np.count_nonzero(begins_paragraph) + 1), BOUNDARY_ROW)
    padded[places] = rows
    return Layout(padded, places, sentence_starts(is_word[rows], ends_sentence[rows], begins_paragraph))


def sentence_starts(is_word: Flags, ends_sentence: Flags, begins_paragraph: Flags) -> Flags:
    """Which words are the first of a sentence: between them and the last word before is an end, or an empty line."""
    # How many of these there have been up to here, and up to the last word before.
    ended = np.cumsum(ends_sentence) + np.cumsum(begins_paragraph)
    before = np.maximum.accumulate(np.where(is_word, ended, 0))
    return is_word & (ended > np.concatenate([[0], before])[: len(ended)])


def stack_properties(features: Sequence[WordFeatures]) -> Properties:
    """The properties of the words of a table, one in each row."""
    return np.stack([word.properties for word in features])
