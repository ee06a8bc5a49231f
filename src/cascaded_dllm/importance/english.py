"""What the taggers of English share: spaCy's words, the beginnings of sentences, and TextBlob's lexicon."""

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
"""Limit of the words that are remembered, which bounds the memory whatever the size of a corpus."""

ADDRESS = re.compile(r"@|://|^www\.", re.IGNORECASE)
"""Found in e-mail and web addresses."""
SENTENCE_END = frozenset(".!?")
"""Last characters of the marks that end a sentence."""

LONGEST_RUN = 400
"""Maximum length of a run without white space; longer runs are cut, since spaCy takes quadratic time for some."""

_RUN = re.compile(rf"\S{{1,{LONGEST_RUN}}}")

_Part: TypeAlias = tuple[int, str, bool, bool, bool]
"""A word inside a run without white space: its start in the run, its characters, and whether it is a stop word, a mark,
and a mark that ends a sentence. Not a NamedTuple, which the garbage collector would visit again and again."""


@final
@dataclass(frozen=True, slots=True)
class SplitText:
    """The words and punctuation marks of a text, in columns, which are made and read faster than rows.

    Attributes:
        starts: the place in the text at which each begins.
        words: their characters.
        is_stop: whether each is a stop word.
        begins_paragraph: whether each is the first of the text, or after an empty line.
        begins_sentence: whether each is the first word, not mark, of the text, after an empty line, or after a mark
            that ends a sentence; other marks, such as quotation marks and brackets, may be in between.
    """

    starts: list[int]
    words: list[str]
    is_stop: list[bool]
    begins_paragraph: list[bool]
    begins_sentence: list[bool]


@final
class WordSplitter:
    """Splits texts into words by spaCy's rules for English; each distinct run without white space is split only once.

    Args:
        purpose: what needs it, as the subject of a sentence in the error.

    Raises:
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, purpose: str) -> None:
        self._spacy = import_spacy(purpose)
        self._forget()

    def split(self, text: str) -> SplitText:
        """The words and punctuation marks of a text."""
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
        # In one call, which costs half of many calls: no rule of spaCy crosses the end of a line.
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
        # A new pipeline, because the tokenizer also remembers everything that it has seen.
        self._pipeline = self._spacy.blank("en")
        # It would compute twenty attributes of every new word, which takes longer than splitting the text.
        self._pipeline.vocab.lex_attr_getters.clear()
        self._known: dict[str, tuple[_Part, ...]] = {}
        self._num_words = 0


def is_word(text: str) -> bool:
    """Whether `text` contains a letter or a digit, and so is not a mark."""
    return text.isalnum() or any(character.isalnum() for character in text)


def require_libraries(purpose: str) -> None:
    """Checks that spaCy and TextBlob are installed, without importing them, which takes seconds.

    Args:
        purpose: what needs them, as the subject of a sentence in the error.

    Raises:
        MissingExtraError: one is not installed.
    """
    for library in ("spacy", "textblob"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, extra="preprocess", purpose=purpose)


def import_spacy(purpose: str) -> ModuleType:
    """The spaCy module.

    Args:
        purpose: what needs it, as the subject of a sentence in the error.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError("spacy", extra="preprocess", purpose=purpose) from error
    return spacy


def import_parser(purpose: str) -> Any:
    """TextBlob's parser of English, with its lexicon loaded.

    Args:
        purpose: what needs it, as the subject of a sentence in the error.

    Raises:
        MissingExtraError: TextBlob is not installed.
    """
    try:
        from textblob.en import parser
    except ImportError as error:
        raise MissingExtraError("textblob", extra="preprocess", purpose=purpose) from error
    # The first call reads the lexicon, and TextBlob leaves closing the file to the garbage collector.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        parser.find_tags(["a"])
    return parser


def read_lexicon(purpose: str) -> dict[str, str]:
    """TextBlob's lexicon of English: word -> its usual tag.

    It is read from its file, because importing the whole library takes three seconds and 150 MB.

    Args:
        purpose: what needs it, as the subject of a sentence in the error.

    Raises:
        MissingExtraError: TextBlob is not installed.
        DataError: the file of the lexicon is missing.
    """
    spec = importlib.util.find_spec("textblob")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("textblob", extra="preprocess", purpose=purpose)
    path = Path(spec.submodule_search_locations[0], "en", "en-lexicon.txt")
    if not path.is_file():
        raise DataError(
            f"{path}, which {purpose} reads, does not exist; install the version of textblob in constraints.txt"
        )
    with path.open(encoding="utf-8") as lines:
        words = [line.split() for line in lines if line.strip() and not line.startswith(";;;")]
    return {word: tag for word, tag, *_ in words}
