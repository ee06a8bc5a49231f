"""Importance by term frequency and rarity, from word counts alone: no tagger, no network, any language with spaces."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from cascaded_dllm.atomic import write_json
from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.text.document import Document

# Letters and digits; combining accents are characters of their own to Python, but belong to the letter before them.
_LETTERS = r"(?:[^\W_]|[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f])+"
# An apostrophe inside a word is part of it ("don't"); one at its edge may be a quotation mark.
WORD = re.compile(rf"{_LETTERS}(?:['\u2019]{_LETTERS})*")
# Below every word, whose importance is at least 0.
PUNCTUATION = -1.0


@final
@dataclass(frozen=True, slots=True)
class DocumentFrequencies:
    """In how many documents of a corpus every lower-cased word occurs.

    Attributes:
        num_documents: N, documents of the corpus.
        counts: per word, the number of documents that hold it.
    """

    num_documents: int
    counts: Mapping[str, int]

    def inverse(self, word: str) -> float:
        """log(N / df) in nats; a word that the corpus does not hold counts as being in one document."""
        return math.log(self.num_documents / self.counts.get(word, 1))


def document_frequencies(documents: Iterable[Document]) -> DocumentFrequencies:
    """The exact frequencies of a corpus, in one pass over it."""
    counts: Counter[str] = Counter()
    num_documents = 0
    for document in documents:
        num_documents += 1
        counts.update({match.group().lower() for match in WORD.finditer(document.text)})
    return DocumentFrequencies(num_documents, dict(counts))


def save_frequencies(frequencies: DocumentFrequencies, path: Path) -> None:
    """Writes the table of a corpus, complete or not at all.

    Raises:
        OutputExistsError: it cannot be written.
    """
    write_json(path, {"num_documents": frequencies.num_documents, "counts": dict(sorted(frequencies.counts.items()))})


def load_frequencies(path: Path) -> DocumentFrequencies:
    """The table that `save_frequencies` wrote.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return DocumentFrequencies(int(table["num_documents"]), dict(table["counts"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no word counts ({error}); remove it and preprocess again, and it is made anew"
        ) from error


@final
class TfidfScorer:
    """Scorer of the method "tfidf": words in [0, 1], the most telling word of a document at 1, punctuation at -1.

    The importance of a word is tf * log(N / df), divided by the largest such product in its document; tf is how often
    the document holds the word. It needs no list of stop words: they are in nearly every document, so their logarithm
    is nearly zero.
    """

    method = "tfidf"
    background = PUNCTUATION

    def __init__(self, frequencies: DocumentFrequencies) -> None:
        self._frequencies = frequencies

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of every text with their importance; see `Scorer.score`."""
        return [self._score(text) for text in texts]

    def describe(self) -> dict[str, JsonScalar]:
        """The size of the corpus and a hash of its table; see `Scorer.describe`."""
        table = "\n".join(f"{word}\t{count}" for word, count in sorted(self._frequencies.counts.items()))
        return {
            "num_documents": self._frequencies.num_documents,
            "table_sha256": hashlib.sha256(table.encode()).hexdigest()[:16],
        }

    def _score(self, text: str) -> list[Word]:
        spans = [(match.start(), match.end(), match.group().lower()) for match in WORD.finditer(text)]
        terms = Counter(word for _, _, word in spans)
        weights = {word: count * self._frequencies.inverse(word) for word, count in terms.items()}
        # Where every word is in every document, all weights are zero, and so is the importance.
        largest = max(weights.values(), default=0.0) or 1.0
        return [Word(start, end, weights[word] / largest) for start, end, word in spans]
