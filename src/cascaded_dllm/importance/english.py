"""What the taggers of English have in common: spaCy's word rules, TextBlob's lexicon, and pieces of long texts."""

import re
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple, final

from cascaded_dllm.errors import MissingExtraError

# spaCy refuses more than a million characters, and its memory grows with the length of a text.
PIECE_CHARACTERS = 100_000
# Of which the splitter remembers how they are split. Memory is bounded, whatever the size of a corpus.
MAX_WORDS = 1 << 17
# From the best place to cut to the worst: an empty line, the end of a line, any white space.
_BORDERS = tuple(re.compile(pattern) for pattern in (r"\n[^\S\n]*\n\s*", r"\n", r"\s"))

ADDRESS = re.compile(r"@|://|^www\.", re.IGNORECASE)
"""In an e-mail or web address."""
SENTENCE_END = frozenset(".!?")
"""Last characters of the marks that end a sentence."""


class SplitWord(NamedTuple):
    """A word `text[start:end]`; one that begins a paragraph has an empty line or the border of a piece before it."""

    start: int
    end: int
    text: str
    is_stop: bool
    begins_paragraph: bool


@final
class WordSplitter:
    """Splits texts into words by spaCy's rules for English.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, purpose: str) -> None:
        self._spacy = import_spacy(purpose)
        self._pipeline = self._spacy.blank("en")

    def split(self, text: str) -> Iterator[list[SplitWord]]:
        """The words of a text, without white space, for each of its pieces."""
        for start, piece in pieces(text):
            if len(self._pipeline.vocab) > MAX_WORDS:
                # spaCy remembers every word that it has seen. Its memory zones forget them, and what makes it fast.
                self._pipeline = self._spacy.blank("en")
            yield list(_words(self._pipeline.tokenizer(piece), start))


def sentences(words: Iterable[SplitWord]) -> Iterator[list[SplitWord]]:
    """The words in sentences, each beginning with a word.

    A sentence ends with a full stop, a question or exclamation mark, or an empty line. Quotation marks and brackets in
    between go to the end of the one before, so that the next begins with its first word.
    """
    sentence: list[SplitWord] = []
    has_ended = True
    for word in words:
        has_ended = has_ended or word.begins_paragraph
        is_mark = not is_word(word.text)
        if has_ended and not is_mark:
            if sentence:
                yield sentence
            sentence, has_ended = [], False
        sentence.append(word)
        if is_mark and word.text[-1] in SENTENCE_END:
            has_ended = True
    if sentence:
        yield sentence


def is_word(text: str) -> bool:
    """Whether it holds a letter or a digit, and so is no mark."""
    return text.isalnum() or any(character.isalnum() for character in text)


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


def import_parser(purpose: str) -> ModuleType:
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
    module: ModuleType = parser
    return module


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text in pieces of at most PIECE_CHARACTERS, with their places; cut at paragraph borders if there are any."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        window = text[start : start + PIECE_CHARACTERS]
        end = start + next((cut for border in _BORDERS if (cut := _last_end(border, window))), PIECE_CHARACTERS)
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def _words(tokens: Iterable[Any], start: int) -> Iterator[SplitWord]:
    """The words among spaCy's tokens, of which some are white space."""
    begins = True
    for token in tokens:
        word, place = token.text, start + token.idx
        if token.is_space:
            begins = begins or word.count("\n") > 1
        else:
            yield SplitWord(place, place + len(word), word, token.is_stop, begins)
            begins = False


def _last_end(border: re.Pattern[str], text: str) -> int:
    """Where the last match ends; 0 where there is none."""
    return max((match.end() for match in border.finditer(text)), default=0)
