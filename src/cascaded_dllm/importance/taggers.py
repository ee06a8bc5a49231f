"""Taggers for any English text: a spaCy model, or a lexicon, which needs no model."""

import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.english import (
    LONGEST_RUN,
    MAX_WORDS,
    WordSplitter,
    import_parser,
    import_spacy,
    is_word,
    require_libraries,
)
from cascaded_dllm.importance.pos import TaggedWord

_LEXICON = "the tagger lexicon"
# Raise it with every change of the tags that the same libraries give.
_LEXICON_VERSION = 2
# spaCy refuses more than a million characters, and its memory grows with the length of a text.
PIECE_CHARACTERS = 100_000
BATCH_CHARACTERS = 16_000
"""What spaCy tags together: some four pages, whose numbers fit into a processor's cache. spaCy's default, 1,000 texts,
takes nearly twice as long (docs/performance.md)."""
_LONG_RUN = re.compile(rf"\S{{{LONGEST_RUN}}}(?=\S)")
# Places to cut, best first: an empty line, the end of a line, any white space.
_BORDERS = tuple(re.compile(pattern) for pattern in (r"\n[^\S\n]*\n\s*", r"\n", r"\s"))


@final
class SpacyTagger:
    """The tags of an installed spaCy pipeline, with only the components that its tagger needs.

    Args:
        model: name of an installed pipeline, such as "en_core_web_sm", or its folder.

    Raises:
        DataError: it is not installed or is broken, or has no tagger, or one of another language than English.
        MissingExtraError: spaCy is not installed.
    """

    def __init__(self, model: str | Path) -> None:
        spacy = import_spacy("a spaCy model as the tagger")
        try:
            pipeline = spacy.load(model)
        except OSError as error:
            raise DataError(
                f"the spaCy pipeline {str(model)!r} is not installed or broken ({error}); name a folder that holds "
                f"one, or run: python -m spacy download {model}; or choose --tagger english, which needs no download"
            ) from error
        if not pipeline.has_pipe("tagger"):
            raise DataError(
                f"the spaCy pipeline {str(model)!r} has the components {pipeline.pipe_names} but no tagger; use one "
                "that has, for example: python -m spacy download en_core_web_sm"
            )
        labels: Sequence[str] = pipeline.get_pipe("tagger").labels
        # Models of other languages have tags of their own, of which nearly all would count as the rest.
        if not all(any(label.startswith(penn) for label in labels) for penn in ("NNP", "VB")):
            raise DataError(
                f"the spaCy pipeline {str(model)!r} has the tags {', '.join(labels[:6])}, ..., and importance by part "
                "of speech needs those of the Penn Treebank (NNP, VB, ...), which models of English have; choose one "
                "of these, or a method that needs no tagger, such as tfidf"
            )
        # The tagger depends on at most one other component, which turns words into vectors.
        upstream = [name for name, pipe in pipeline.pipeline if "tagger" in getattr(pipe, "listening_components", ())]
        pipeline.select_pipes(enable=[*upstream, "tagger"])
        self._pipeline = pipeline
        meta = pipeline.meta
        named = f"{meta['lang']}_{meta['name']}-{meta['version']}"
        self.name = f"spacy {spacy.__version__}: {named} ({_weights_digest(pipeline)})"

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        cut = [(number, start, piece) for number, text in enumerate(texts) for start, piece in _pieces(text)]
        tagged: list[list[TaggedWord]] = [[] for _ in texts]
        for batch in _batches(cut):
            docs = self._pipeline.pipe([piece for _, _, piece in batch], batch_size=len(batch))
            for (number, start, _), doc in zip(batch, docs, strict=True):
                tagged[number] += [
                    TaggedWord(start + token.idx, start + token.idx + len(token), token.text, token.tag_, token.is_stop)
                    for token in doc
                    if not token.is_space
                ]
        return tagged


@final
class LexiconTagger:
    """Tags from TextBlob's lexicon, with its rules for unknown words (after Brill): offline and fast, but less exact.

    Words and stop words are those of spaCy's rules for English, which need no model either.

    Raises:
        MissingExtraError: spaCy or TextBlob is not installed.
    """

    def __init__(self) -> None:
        require_libraries(_LEXICON)
        versions = [f"{library} {importlib.metadata.version(library)}" for library in ("textblob", "spacy")]
        self.name = f"lexicon {_LEXICON_VERSION} ({', '.join(versions)})"

    # Made when needed: the process that plans a job only asks for the name, and the libraries take seconds to import.
    @functools.cached_property
    def _splitter(self) -> WordSplitter:
        return WordSplitter(_LEXICON)

    @functools.cached_property
    def _tag_of(self) -> Callable[[str, bool], str]:
        parser = import_parser(_LEXICON)

        @functools.lru_cache(MAX_WORDS)
        def tag_of(word: str, begins_sentence: bool) -> str:
            plain = word.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
            # The rules would take a mark that the lexicon lacks, such as a dash, for a noun.
            if not is_word(plain) and plain not in parser.lexicon:
                return "SYM"
            # A tag depends only on the word, and on whether it is the first, whose capital does not make it a name.
            return str(parser.find_tags([plain] if begins_sentence else [".", plain])[-1][1])

        return tag_of

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        return [self._tag(text) for text in texts]

    def _tag(self, text: str) -> list[TaggedWord]:
        split = self._splitter.split(text)
        tags = map(self._tag_of, split.words, split.begins_sentence)
        columns = zip(split.starts, split.words, tags, split.is_stop, strict=True)
        return [TaggedWord(start, start + len(word), word, tag, is_stop) for start, word, tag, is_stop in columns]


def _weights_digest(pipeline: Any) -> str:
    """16 hex digits that distinguish pipelines of the same name: those that people train are all called the same."""
    digest = hashlib.sha256(pipeline.tokenizer.to_bytes(exclude=["vocab"]))
    for _, pipe in pipeline.pipeline:
        digest.update(pipe.to_bytes(exclude=["vocab"]))
    digest.update(np.ascontiguousarray(pipeline.vocab.vectors.data).tobytes())
    return digest.hexdigest()[:16]


def _batches(pieces: Sequence[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
    """The pieces in their order, in batches of at most BATCH_CHARACTERS, or of one longer piece."""
    batch: list[tuple[int, int, str]] = []
    length = 0
    for piece in pieces:
        if batch and length + len(piece[2]) > BATCH_CHARACTERS:
            yield batch
            batch, length = [], 0
        batch.append(piece)
        length += len(piece[2])
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text in pieces of at most PIECE_CHARACTERS, with their starts; cut at paragraph borders if there are any.

    Runs without white space are also cut, after every LONGEST_RUN of their characters.
    """
    start = 0
    for end in [*(run.end() for run in _LONG_RUN.finditer(text)), len(text)]:
        while end - start > PIECE_CHARACTERS:
            window = text[start : start + PIECE_CHARACTERS]
            cut = start + next((cut for border in _BORDERS if (cut := _last_end(border, window))), PIECE_CHARACTERS)
            yield start, text[start:cut]
            start = cut
        if start < end:
            yield start, text[start:end]
            start = end


def _last_end(border: re.Pattern[str], text: str) -> int:
    """The end of the last match; 0 if there is none."""
    return max((match.end() for match in border.finditer(text)), default=0)
