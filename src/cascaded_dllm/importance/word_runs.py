"""Exact counts of more words than memory holds: sorted runs of counts are written, and added up at the end."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, final

# Maximum number of files that are read at the same time.
_MAX_RUNS = 64


class Frequent(NamedTuple):
    """The words with the largest counts.

    Attributes:
        counts: of these words.
        fewest: words with at least this count are among them.
        left_out: number of words with a smaller count.
    """

    counts: dict[str, int]
    fewest: int
    left_out: int


@final
class WordRuns:
    """Counts on the disk: files of lines "word, tab, number", each sorted by its words.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._numbers = itertools.count()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._paths

    def add(self, counts: Sequence[tuple[str, int]]) -> None:
        """Writes counts, which must be sorted by their words; too many files are merged into one."""
        self._paths.append(self._written(counts))
        if len(self._paths) == _MAX_RUNS:
            merged = self._written(self._sums())
            for path in self._paths:
                path.unlink()
            self._paths = [merged]

    def most_frequent(self, max_words: int, max_characters: int) -> Frequent:
        """The words with the largest sums of counts, with the smallest `fewest` that meets the bounds."""
        words: Counter[int] = Counter()
        characters: Counter[int] = Counter()

        def noted(sums: Iterator[tuple[str, int]]) -> Iterator[tuple[str, int]]:
            for word, count in sums:
                words[count] += 1
                characters[count] += len(word)
                yield word, count

        merged = self._written(noted(self._sums()))
        fewest, num_kept, num_characters = 1, 0, 0
        for count in sorted(words, reverse=True):
            num_kept, num_characters = num_kept + words[count], num_characters + characters[count]
            if num_kept > max_words or num_characters > max_characters:
                fewest = count + 1
                break
        kept = {word: count for word, count in _read(merged) if count >= fewest}
        return Frequent(kept, fewest, sum(words.values()) - len(kept))

    def _sums(self) -> Iterator[tuple[str, int]]:
        runs = heapq.merge(*map(_read, self._paths))
        for word, counts in itertools.groupby(runs, key=itemgetter(0)):
            yield word, sum(count for _, count in counts)

    def _written(self, counts: Iterable[tuple[str, int]]) -> Path:
        path = self._folder / str(next(self._numbers))
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{word}\t{count}\n" for word, count in counts)
        return path


def _read(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            word, _, count = line.partition("\t")
            yield word, int(count)
