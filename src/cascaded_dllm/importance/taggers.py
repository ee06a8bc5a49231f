"""Taggers for any English text: a spaCy model, or a lexicon that needs no model at all."""

import importlib.metadata
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, final

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance.pos import TaggedWord

# spaCy refuses more than a million characters, and its memory grows with the length of a text.
PIECE_CHARACTERS = 100_000
# From the best place to cut to the worst: an empty line, the end of a line, any white space.
_BORDERS = tuple(re.compile(pattern) for pattern in (r"\n[^\S\n]*\n\s*", r"\n", r"\s"))
_SENTENCE_END = frozenset(".!?")


@final
class SpacyTagger:
    """The tags of an installed spaCy pipeline, with only the components that its tagger needs.

    Args:
        model: name of an installed pipeline, such as "en_core_web_sm", or its folder.

    Raises:
        DataError: it is not installed, or has no tagger.
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, model: str | Path) -> None:
        spacy = _import_spacy("SpacyTagger")
        try:
            pipeline = spacy.load(model)
        except OSError as error:
            raise DataError(
                f"the spaCy pipeline {str(model)!r} is not installed or broken ({error}); name a folder that holds "
                f"one, or run: python -m spacy download {model}"
            ) from error
        if not pipeline.has_pipe("tagger"):
            raise DataError(
                f"the spaCy pipeline {str(model)!r} has the components {pipeline.pipe_names} but no tagger; use one "
                "that has, for example: python -m spacy download en_core_web_sm"
            )
        # The tagger listens to at most one component, which turns words into vectors.
        upstream = [name for name, pipe in pipeline.pipeline if "tagger" in getattr(pipe, "listening_components", ())]
        pipeline.select_pipes(enable=[*upstream, "tagger"])
        self._pipeline = pipeline
        meta = pipeline.meta
        self.name = f"spacy:{meta['lang']}_{meta['name']}-{meta['version']}"

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        pieces = [(number, start, piece) for number, text in enumerate(texts) for start, piece in _pieces(text)]
        tagged: list[list[TaggedWord]] = [[] for _ in texts]
        docs = self._pipeline.pipe(piece for _, _, piece in pieces)
        for (number, start, _), doc in zip(pieces, docs, strict=True):
            tagged[number] += [
                TaggedWord(start + token.idx, start + token.idx + len(token), token.text, token.tag_, token.is_stop)
                for token in doc
                if not token.is_space
            ]
        return tagged


@final
class LexiconTagger:
    """Tags from a lexicon with rules for unknown words (TextBlob's, after Brill): offline, fast, less exact.

    Words and stop words are those of spaCy's rules for English, which need no model either.

    Raises:
        MissingExtraError: spaCy or TextBlob is not installed.
    """

    def __init__(self) -> None:
        self._tokenize = _import_spacy("LexiconTagger").blank("en").tokenizer
        self._find_tags = _import_find_tags()
        versions = [f"{library} {importlib.metadata.version(library)}" for library in ("textblob", "spacy")]
        self.name = f"lexicon ({', '.join(versions)})"

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        return [self._tag(text) for text in texts]

    def _tag(self, text: str) -> list[TaggedWord]:
        tagged: list[TaggedWord] = []
        for start, piece in _pieces(text):
            for sentence in _sentences(self._tokenize(piece)):
                # One sentence at a time: the lexicon treats the capital of a first word as no name.
                tags = self._find_tags([token.text for token in sentence])
                tagged += [
                    TaggedWord(start + token.idx, start + token.idx + len(token), token.text, tag, token.is_stop)
                    for token, (_, tag) in zip(sentence, tags, strict=True)
                ]
        return tagged


def _import_spacy(purpose: str) -> ModuleType:
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError("spacy", extra="preprocess", purpose=purpose) from error
    return spacy


def _import_find_tags() -> Callable[[list[str]], list[list[str]]]:
    try:
        from textblob.en import parser
    except ImportError as error:
        raise MissingExtraError("textblob", extra="preprocess", purpose="LexiconTagger") from error
    find_tags: Callable[[list[str]], list[list[str]]] = parser.find_tags
    # The first call reads the lexicon, and TextBlob leaves the file for the garbage collector to close.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        find_tags(["a"])
    return find_tags


def _sentences(tokens: Iterable[Any]) -> Iterator[list[Any]]:
    """The spaCy tokens without white space in sentences, each beginning with a word.

    A sentence ends with a full stop, a question or exclamation mark, or an empty line. Quotation marks and brackets in
    between go to the end of the one before, so that the next begins with its first word.
    """
    sentence: list[Any] = []
    has_ended = True
    for token in tokens:
        if token.is_space:
            has_ended = has_ended or token.text.count("\n") > 1
            continue
        is_word = any(character.isalnum() for character in token.text)
        if has_ended and is_word:
            if sentence:
                yield sentence
            sentence, has_ended = [], False
        sentence.append(token)
        if not is_word and token.text[-1] in _SENTENCE_END:
            has_ended = True
    if sentence:
        yield sentence


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text in pieces of at most PIECE_CHARACTERS, with their places; cut at paragraph borders if there are any."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        window = text[start : start + PIECE_CHARACTERS]
        end = start + next((cut for border in _BORDERS if (cut := _last_end(border, window))), PIECE_CHARACTERS)
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def _last_end(border: re.Pattern[str], text: str) -> int:
    """Where the last match ends; 0 where there is none."""
    return max((match.end() for match in border.finditer(text)), default=0)
