"""What the taggers of English share: spaCy's words and the sentences that they begin, and TextBlob's lexicon."""

import importlib.util
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias, final

from cascaded_dllm.errors import DataError, MissingExtraError

MAX_WORDS = 1 << 17
"""Of which something is remembered. Memory is bounded, whatever the size of a corpus."""

ADDRESS = re.compile(r"@|://|^www\.", re.IGNORECASE)
"""In an e-mail or web address."""
SENTENCE_END = frozenset(".!?")
"""Last characters of the marks that end a sentence."""

LONGEST_RUN = 400
"""Of characters without white space. spaCy takes some apart one by one, in quadratic time: longer runs are cut."""

_RUN = re.compile(rf"\S{{1,{LONGEST_RUN}}}")

_Part: TypeAlias = tuple[int, str, bool, bool, bool]
"""A word inside a run of characters that are no white space: where, its characters, whether it is a stop word, a mark,
and a mark that ends a sentence. No NamedTuple, which the garbage collector would visit again and again."""


@final
@dataclass(frozen=True, slots=True)
class SplitText:
    """The words and punctuation marks of a text, in columns, which are made and read faster than rows.

    Attributes:
        starts: where in the text each begins.
        words: their characters.
        is_stop: whether a word is a function word.
        begins_paragraph: whether it is the first of the text, or behind an empty line.
        begins_sentence: whether it is the first word, not mark, of the text, behind an empty line, or behind a mark
            that ends a sentence; quotation marks and brackets may be in between.
    """

    starts: list[int]
    words: list[str]
    is_stop: list[bool]
    begins_paragraph: list[bool]
    begins_sentence: list[bool]


@final
class WordSplitter:
    """Splits texts into words by spaCy's rules for English; each run without white space by itself, and only once.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, purpose: str) -> None:
        self._spacy = import_spacy(purpose)
        self._forget()

    def split(self, text: str) -> SplitText:
        """The words of a text, without white space."""
        runs = [(run.start(), run.group()) for run in _RUN.finditer(text)]
        self._learn(run for _, run in runs)
        starts: list[int] = []
        words: list[str] = []
        stops, paragraphs, sentences = list[bool](), list[bool](), list[bool]()
        end, is_new = 0, True
        for start, run in runs:
            begins = not words or text.count("\n", end, start) > 1
            is_new = is_new or begins
            for offset, word, is_stop, is_mark, ends_sentence in self._known[run]:
                starts.append(start + offset)
                words.append(word)
                stops.append(is_stop)
                paragraphs.append(begins)
                sentences.append(is_new and not is_mark)
                begins = False
                is_new = (is_new or ends_sentence) if is_mark else False
            end = start + len(run)
        return SplitText(starts, words, stops, paragraphs, sentences)

    def _learn(self, runs: Iterable[str]) -> None:
        """Finds the parts of the runs that are new."""
        if self._num_words > MAX_WORDS:
            self._forget()
        new = [run for run in dict.fromkeys(runs) if run not in self._known]
        # No rule of spaCy's reaches over the end of a line, and one call costs half of what many do.
        place, begin, parts = 0, 0, list[_Part]()
        for token in self._pipeline.tokenizer("\n".join(new)):
            if token.text == "\n":
                self._known[new[place]] = tuple(parts)
                place, begin, parts = place + 1, token.idx + 1, []
            else:
                parts.append(self._part(token.idx - begin, token.text))
                self._num_words += 1
        if new:
            self._known[new[place]] = tuple(parts)

    def _part(self, offset: int, word: str) -> _Part:
        is_mark = not is_word(word)
        is_stop = word.lower() in self._pipeline.Defaults.stop_words
        return offset, word, is_stop, is_mark, is_mark and word[-1] in SENTENCE_END

    def _forget(self) -> None:
        # The tokenizer, too, remembers all that it has seen.
        self._pipeline = self._spacy.blank("en")
        # It would find out twenty things about every new word, in more time than it takes to split the text.
        self._pipeline.vocab.lex_attr_getters.clear()
        self._known: dict[str, tuple[_Part, ...]] = {}
        self._num_words = 0


def is_word(text: str) -> bool:
    """Whether it holds a letter or a digit, and so is no mark."""
    return text.isalnum() or any(character.isalnum() for character in text)


def require_libraries(purpose: str) -> None:
    """Checks that spaCy and TextBlob are there, without the seconds that it takes to import them.

    Args:
        purpose: what needs them, as the subject of a sentence.

    Raises:
        MissingExtraError: one is not installed.
    """
    for library in ("spacy", "textblob"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, extra="preprocess", purpose=purpose)


def import_spacy(purpose: str) -> ModuleType:
    """The library.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError("spacy", extra="preprocess", purpose=purpose) from error
    return spacy


def import_parser(purpose: str) -> Any:
    """TextBlob's parser of English, whose `lexicon` is in memory.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: TextBlob is not installed.
    """
    try:
        from textblob.en import parser
    except ImportError as error:
        raise MissingExtraError("textblob", extra="preprocess", purpose=purpose) from error
    # The first call reads the lexicon, and TextBlob leaves the file for the garbage collector to close.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        parser.find_tags(["a"])
    return parser


def read_lexicon(purpose: str) -> dict[str, str]:
    """TextBlob's lexicon of English: the usual tag of every word that it knows.

    It is read from its file: to import the library takes three seconds and 150 MB, for what else it can do.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: TextBlob is not installed.
        DataError: its lexicon is not where it should be.
    """
    spec = importlib.util.find_spec("textblob")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("textblob", extra="preprocess", purpose=purpose)
    path = Path(spec.submodule_search_locations[0], "en", "en-lexicon.txt")
    if not path.is_file():
        raise DataError(
            f"{path} is not there, which {purpose} reads; install the version of textblob that constraints.txt names"
        )
    with path.open(encoding="utf-8") as lines:
        words = [line.split() for line in lines if line.strip() and not line.startswith(";;;")]
    return {word: tag for word, tag, *_ in words}
