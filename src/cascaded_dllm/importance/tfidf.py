"""Importance by tf-idf, from word counts alone: no tagger, no network, any language with spaces."""

import hashlib
import itertools
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import DataError, WorkerDiedError
from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.importance.word_runs import WordRuns
from cascaded_dllm.processes import in_order, process_pool
from cascaded_dllm.text.document import Document

# Letters and digits. A combining accent is not alphanumeric to Python, but belongs to the letter before it.
_LETTERS = r"(?:[^\W_]|[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f])+"
# An apostrophe inside a word is part of it ("don't"); one at its edge may be a quotation mark.
WORD = re.compile(rf"{_LETTERS}(?:['\u2019]{_LETTERS})*")
# Below the importance of every word, which is at least 0.
PUNCTUATION = -1.0

# A large corpus never stops having new words: names, numbers, misprints.
MAX_WORDS = 1 << 20
"""Maximum number of words of a table, and of words counted in memory at a time."""
MAX_CHARACTERS = 16 * MAX_WORDS
"""Maximum number of characters of all words of a table together: a "word" may be a line of 200,000 letters."""

# Characters of the documents whose words are counted together: counting takes much longer than sending them to a
# process.
_BATCH_CHARACTERS = 1 << 20
# Batches that are given out ahead of the one that is added up, per process.
_AHEAD = 3
# The process that reads and adds up keeps six or seven others busy (docs/performance.md); more would only hold batches.
_MOST_WORKERS = 8


@final
@dataclass(frozen=True, slots=True)
class DocumentFrequencies:
    """The number of documents of a corpus in which each lower-cased word occurs.

    Attributes:
        num_documents: N, the number of documents of the corpus.
        counts: word -> df, the number of documents that contain it.
        fewest: words in fewer documents are left out of `counts`; 1 if none are.
        left_out: number of words left out.
    """

    num_documents: int
    counts: Mapping[str, int]
    fewest: int = 1
    left_out: int = 0

    def inverse(self, word: str) -> float:
        """log(N / df) in nats; a word that is not in the table counts as being in one document.

        For a word that was left out, this is too large by at most log(fewest - 1).
        """
        return math.log(self.num_documents / self.counts.get(word, 1))


def document_frequencies(
    documents: Iterable[Document],
    *,
    folder: Path | None = None,
    max_words: int = MAX_WORDS,
    max_characters: int = MAX_CHARACTERS,
    workers: int = 1,
) -> DocumentFrequencies:
    """The exact frequencies of a corpus, in one pass over it.

    If the corpus has more words than the bounds allow, words in at least `fewest` documents are kept, with the smallest
    such number that meets the bounds. The result depends neither on the order of the documents nor on the number of
    processes.

    Args:
        documents: the corpus.
        folder: of the temporary files for more words than memory may hold; None for the system's folder.
        max_words: maximum number of words kept, and counted in memory.
        max_characters: maximum number of characters of these words together.
        workers: processes that find the words of documents; at most 8 are started, since more would wait for the one
            that reads.

    Raises:
        WorkerDiedError: a process was killed.
    """
    counts: Counter[str] = Counter()
    num_documents = characters = 0
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        runs = WordRuns(Path(temporary))
        for num_in_batch, words in _counted(documents, workers):
            num_documents += num_in_batch
            characters += sum(map(len, words.keys() - counts.keys()))
            counts.update(words)
            if len(counts) > max_words or characters > max_characters:
                runs.add(sorted(counts.items()))
                counts.clear()
                characters = 0
        if runs.is_empty:
            return DocumentFrequencies(num_documents, dict(counts))
        runs.add(sorted(counts.items()))
        counts.clear()
        kept = runs.most_frequent(max_words, max_characters)
    return DocumentFrequencies(num_documents, kept.counts, kept.fewest, kept.left_out)


def _counted(documents: Iterable[Document], workers: int) -> Iterator[tuple[int, Counter[str]]]:
    """For every batch of documents, their number, and the number of them in which each word occurs.

    Raises:
        WorkerDiedError: a process was killed.
    """
    batches = _batches(documents)
    first = list(itertools.islice(batches, 2))
    # A single batch leaves nothing to do in parallel, and a process takes a second to start.
    if workers == 1 or len(first) < 2:
        yield from map(_words_of, itertools.chain(first, batches))
        return
    workers = min(workers, _MOST_WORKERS)
    with process_pool(workers) as pool:
        try:
            yield from in_order(pool, _words_of, itertools.chain(first, batches), ahead=_AHEAD * workers)
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a process that counts the words of the corpus was killed, often by the system for want of memory; run "
                "the same command again, with fewer workers if memory was short"
            ) from error


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document.text)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _words_of(texts: Sequence[str]) -> tuple[int, Counter[str]]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({match.group().lower() for match in WORD.finditer(text)})
    return len(texts), counts


def save_frequencies(frequencies: DocumentFrequencies, path: Path) -> None:
    """Writes the table of a corpus, completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    table = {
        "num_documents": frequencies.num_documents,
        "fewest": frequencies.fewest,
        "left_out": frequencies.left_out,
        "counts": dict(sorted(frequencies.counts.items())),
    }
    write_json(path, table)


def load_frequencies(path: Path) -> DocumentFrequencies:
    """The table that `save_frequencies` wrote.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        counts = dict(table["counts"])
        return DocumentFrequencies(int(table["num_documents"]), counts, int(table["fewest"]), int(table["left_out"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no word counts ({error}); remove it and preprocess again") from error


@final
class TfidfScorer:
    """Scorer of the method "tfidf": words in [0, 1], the most important word of a document at 1, punctuation at -1.

    The importance of a word is tf * log(N / df), divided by the largest such product in its document, where tf is the
    number of its occurrences in the document. No list of stop words is needed: they are in nearly every document, so
    their logarithm is nearly zero.
    """

    method = "tfidf"
    background = PUNCTUATION

    def __init__(self, frequencies: DocumentFrequencies) -> None:
        self._frequencies = frequencies

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their importance; see `Scorer.score`."""
        return [self._score(text) for text in texts]

    def describe(self) -> dict[str, JsonScalar]:
        """The size of the corpus, a hash of its table, and the number of words left out; see `Scorer.describe`."""
        frequencies = self._frequencies
        table = "\n".join(f"{word}\t{count}" for word, count in sorted(frequencies.counts.items()))
        described: dict[str, JsonScalar] = {
            "num_documents": frequencies.num_documents,
            "table_sha256": hashlib.sha256(table.encode()).hexdigest()[:16],
        }
        if frequencies.left_out:
            described |= {"words_in_at_least": frequencies.fewest, "words_left_out": frequencies.left_out}
        return described

    def _score(self, text: str) -> list[Word]:
        spans = [(match.start(), match.end(), match.group().lower()) for match in WORD.finditer(text)]
        terms = Counter(word for _, _, word in spans)
        weights = {word: count * self._frequencies.inverse(word) for word, count in terms.items()}
        # If every word is in every document, all weights are zero, and so is all importance.
        largest = max(weights.values(), default=0.0) or 1.0
        return [Word(start, end, weights[word] / largest) for start, end, word in spans]
