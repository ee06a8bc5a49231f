"""A cache of word vectors: in memory, and in a folder that any number of processes share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np

from cascaded_dllm.importance.word_blocks import Vectors
from cascaded_dllm.importance.word_files import WordFiles

# Words beyond these limits are embedded again each time; a long text has few that are so rare.
MAX_WORDS = 1 << 18
MAX_CHARACTERS = 64


@final
class WordCache:
    """Remembers the vectors of words.

    The number of words bounds the memory, whatever the size of a corpus. Words are remembered in the order in which
    they first occur, so that the frequent ones are among them.

    Args:
        embed: returns the vectors of words, in their order. The vector of a word must not depend on the other words.
        folder: where vectors are kept for other processes and later runs, for one `embed` only; None for memory alone.
        max_words: maximum number of words that are remembered.
    """

    def __init__(
        self, embed: Callable[[Sequence[str]], Vectors], folder: Path | None, *, max_words: int = MAX_WORDS
    ) -> None:
        self._embed = embed
        self._files = None if folder is None else WordFiles(folder)
        self._places: dict[str, int] = {}
        self._table: Vectors | None = None
        self._max_words = max_words

    def vectors(self, words: Sequence[str]) -> Vectors:
        """The vectors of `words`, in their order.

        Args:
            words: distinct, at least one.

        Raises:
            DataError: a file of the folder cannot be read.
            OutputError: the folder cannot be written.
        """
        missing = self._missing(words)
        if missing and self._files is not None:
            for found, vectors in self._files.new_blocks():
                self._remember(found, vectors)
            missing = self._missing(words)
        fresh = self._embed(missing) if missing else None
        if fresh is not None:
            kept = self._remember(missing, fresh)
            if self._files is not None and kept:
                self._files.append([missing[row] for row in kept], fresh[kept])
        return self._gathered(words, missing, fresh)

    def _missing(self, words: Sequence[str]) -> list[str]:
        return [word for word in words if word not in self._places]

    def _remember(self, words: Sequence[str], vectors: Vectors) -> list[int]:
        """Adds the words that are not in memory yet, while there is room, and returns their rows in `vectors`."""
        if self._table is None:
            # The system only gives memory to the rows that are written to.
            self._table = np.empty((self._max_words, vectors.shape[1]), dtype=np.float32)
        kept = [row for row, word in enumerate(words) if len(word) <= MAX_CHARACTERS and word not in self._places][
            : self._max_words - len(self._places)
        ]
        first = len(self._places)
        self._table[first : first + len(kept)] = vectors[kept]
        self._places.update((words[row], first + place) for place, row in enumerate(kept))
        return kept

    def _gathered(self, words: Sequence[str], missing: Sequence[str], fresh: Vectors | None) -> Vectors:
        """The vectors of `words` from the table and, for words without room in it, from `fresh`."""
        assert self._table is not None
        gathered = self._table[[self._places.get(word, 0) for word in words]]
        if fresh is not None:
            rows = {word: row for row, word in enumerate(missing)}
            for place, word in enumerate(words):
                if word not in self._places:
                    gathered[place] = fresh[rows[word]]
        return gathered
