"""Importance by meaning: the cosine between the vectors of a word and of its document, as in KeyBERT.

KeyBERT (Grootendorst 2020) embeds a document and each of its words with one sentence model, and ranks the words by
cosine. The words and numbers here are those of that library, but less is computed: the vector of a word is made once,
there is little padding, and a document is tokenised only as far as the model reads.
"""

import functools
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np

from cascaded_dllm.checks import one_of, require_at_least
from cascaded_dllm.errors import MissingExtraError
from cascaded_dllm.importance.base import JsonScalar, Word
from cascaded_dllm.importance.devices import require_device
from cascaded_dllm.importance.word_cache import WordCache

if TYPE_CHECKING:
    from cascaded_dllm.importance.sentence_model import SentenceModel

DEFAULT_MODEL = "all-MiniLM-L6-v2"
SCOPES = ("document", "window")
PRECISIONS = ("float32", "bfloat16")

FULL_STOP = 1.1
"""Importance of a full stop: above every word, and above 1, so that it may repeat."""
BACKGROUND = -1.2
"""Importance of all tokens outside words and full stops."""
# Stop words keep their order among themselves, between the lowest cosine, -1, and BACKGROUND.
_STOP_CENTRE, _STOP_SPREAD = -1.05, 0.04

# A word is that of scikit-learn's CountVectorizer, from which KeyBERT takes its candidates: at least two letters,
# digits or underscores. The \b at both ends is left out: it changes nothing in a search from left to right, and takes
# time. A full stop is not part of an ellipsis, and no word continues after it, as in 3.14.
_WORD_OR_STOP = re.compile(r"\w\w+|\.(?<!\.\.)(?![.\w])")
_BEGINS_WORD = re.compile(r"\w\w")
_PERIOD = "."
_CHUNK_OF_TEXT = re.compile(r"\S+")

_Found: TypeAlias = tuple[int, int, str]
"""Start, end and lower-case form of a word of a text; full stops count as words here."""


@final
class KeybertScorer:
    """Scorer of the methods "keybert_no_stopword" and "keybert": words in [-1, 1] by their cosine with the document.

    A full stop gets FULL_STOP. With "keybert_no_stopword", the stop words of scikit-learn's English list, as in
    KeyBERT, lie below all other words, in [-1.09, -1.01]. All else gets BACKGROUND, words of one letter included.

    The model is loaded when it is first needed. The words and their importance depend only on the text; on one kind of
    processor to the last bit, with any number of processes and threads.

    Args:
        model: a sentence-transformers model, by name or folder.
        stop_words_last: whether stop words are put below all others.
        scope: what a word is compared with: the "document", of which the model reads the beginning, mostly 256 tokens;
            or the "window", the piece of the document in which it stands.
        window_words: number of words, separated by white space, of a piece; the last piece may be shorter.
        precision: of the documents' vectors: float32 or bfloat16.
        device: auto, cpu, cuda or cuda:N; with auto and cuda, processes take the GPUs in turn.
        cache_dir: folder for the vectors of words, which any number of processes may share; None for none.

    Raises:
        ConfigError: a choice is unknown, or `window_words` is below 1.
        MissingExtraError: stop words are put last and scikit-learn is not installed.
    """

    background = BACKGROUND

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        stop_words_last: bool = True,
        scope: str = "document",
        window_words: int = 96,
        precision: str = "float32",
        device: str = "auto",
        cache_dir: str | Path | None = None,
    ) -> None:
        one_of("the scope", scope, SCOPES)
        one_of("the precision", precision, PRECISIONS)
        require_device(device)
        require_at_least("window_words", window_words, 1)
        self.method = "keybert_no_stopword" if stop_words_last else "keybert"
        self._last_words = _stop_words() if stop_words_last else frozenset()
        self._model_name, self._device, self._precision = model, device, precision
        self._window_words = window_words if scope == "window" else None
        self._cache_dir = None if cache_dir is None else Path(cache_dir)

    def score(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words and full stops of every text with their importance; see `Scorer.score`.

        Raises:
            ConfigError: the device is not there.
            DataError: the model is missing or broken, or a file of the cache cannot be read.
            MissingExtraError: sentence-transformers is not installed.
            OutputError: the cache cannot be written.
        """
        pieces = [(number, *piece) for number, text in enumerate(texts) for piece in self._pieces(text)]
        found, importance = self._importance([piece for _, _, piece in pieces])
        scored: list[list[Word]] = [[] for _ in texts]
        for (number, offset, _), words, of_word in zip(pieces, found, importance, strict=True):
            scored[number] += map(
                Word._make, [(offset + start, offset + end, of_word[word]) for start, end, word in words]
            )
        return scored

    def describe(self) -> dict[str, JsonScalar]:
        """The model by a hash of its contents, and the settings; see `Scorer.describe`.

        Raises:
            ConfigError: the device is not there.
            DataError: the model is missing or broken.
            MissingExtraError: sentence-transformers is not installed.
        """
        stop_words = hashlib.sha256("\n".join(sorted(self._last_words)).encode()).hexdigest()[:16]
        return {
            "model_sha256": self._model.fingerprint,
            "precision": self._precision,
            "scope": "document" if self._window_words is None else f"window of {self._window_words} words",
            "stop_words_last": f"{len(self._last_words)} words, sha256 {stop_words}" if self._last_words else "none",
        }

    @functools.cached_property
    def _model(self) -> "SentenceModel":
        # Torch takes a second to load, and a cascade of other scorers goes without it.
        from cascaded_dllm.importance.sentence_model import SentenceModel

        return SentenceModel(self._model_name, device=self._device, precision=self._precision)

    @functools.cached_property
    def _word_cache(self) -> WordCache:
        folder = None if self._cache_dir is None else self._cache_dir / self._model.fingerprint / self._model.arithmetic
        return WordCache(self._model.embed_words, folder)

    def _pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """The pieces that are embedded as documents, each with its start in the text."""
        if self._window_words is None:
            yield 0, text
            return
        starts = [chunk.start() for chunk in _CHUNK_OF_TEXT.finditer(text)][:: self._window_words]
        for start, end in itertools.pairwise([*starts, len(text)]):
            yield start, text[start:end]

    def _importance(self, pieces: Sequence[str]) -> tuple[list[list[_Found]], list[dict[str, float]]]:
        """For every piece, its words and full stops, and the importance of each different one."""
        with_words = [number for number, piece in enumerate(pieces) if _BEGINS_WORD.search(piece.lower())]
        # A GPU embeds the documents while their words are found here.
        waiting = self._model.begin_documents([pieces[number] for number in with_words]) if with_words else None
        found = [_find_words(piece) for piece in pieces]
        importance: list[dict[str, float]] = [{} for _ in pieces]
        if waiting is not None:
            of_piece = [list(dict.fromkeys(word for _, _, word in words if word != _PERIOD)) for words in found]
            places = {word: place for place, word in enumerate(dict.fromkeys(itertools.chain(*of_piece)))}
            vectors = self._word_cache.vectors(list(places))
            for number, document in zip(with_words, waiting(), strict=True):
                of_words = vectors[[places[word] for word in of_piece[number]]]
                # Sums over rows, not a matrix product, whose order of additions may depend on the number of threads.
                cosines = np.clip((of_words * document).sum(axis=1), -1, 1).tolist()
                importance[number] = dict(zip(of_piece[number], cosines, strict=True))
        for of_word in importance:
            for word in self._last_words & of_word.keys():
                of_word[word] = _STOP_CENTRE + _STOP_SPREAD * of_word[word]
            of_word[_PERIOD] = FULL_STOP
        return found, importance


def _find_words(text: str) -> list[_Found]:
    """The words and full stops of a text; words are found in its lower-case form, as in KeyBERT."""
    lowered = text.lower()
    found = [(match.start(), match.end(), match[0]) for match in _WORD_OR_STOP.finditer(lowered)]
    if len(lowered) == len(text):
        return found
    # Lower case can be longer: the Turkish capital I with a dot becomes two characters.
    origin = [place for place, character in enumerate(text) for _ in character.lower()]
    return [(origin[start], origin[end - 1] + 1, word) for start, end, word in found]


def _stop_words() -> frozenset[str]:
    try:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="preprocess", purpose="keybert_no_stopword") from error
    return frozenset(ENGLISH_STOP_WORDS)
