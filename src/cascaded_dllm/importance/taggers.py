"""Taggers for any English text: a spaCy model, or a lexicon that needs no model at all."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import final

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.english import WordSplitter, import_parser, import_spacy, pieces, sentences
from cascaded_dllm.importance.pos import TaggedWord


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
        spacy = import_spacy("SpacyTagger")
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
        cut = [(number, start, piece) for number, text in enumerate(texts) for start, piece in pieces(text)]
        tagged: list[list[TaggedWord]] = [[] for _ in texts]
        docs = self._pipeline.pipe(piece for _, _, piece in cut)
        for (number, start, _), doc in zip(cut, docs, strict=True):
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
        self._splitter = WordSplitter("LexiconTagger")
        self._find_tags = import_parser("LexiconTagger").find_tags
        versions = [f"{library} {importlib.metadata.version(library)}" for library in ("textblob", "spacy")]
        self.name = f"lexicon ({', '.join(versions)})"

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words of every text; see `Tagger.tag`."""
        return [self._tag(text) for text in texts]

    def _tag(self, text: str) -> list[TaggedWord]:
        tagged: list[TaggedWord] = []
        for words in self._splitter.split(text):
            for sentence in sentences(words):
                # One sentence at a time: the lexicon treats the capital of a first word as no name.
                tags = self._find_tags([word.text for word in sentence])
                tagged += [
                    TaggedWord(word.start, word.end, word.text, tag, word.is_stop)
                    for word, (_, tag) in zip(sentence, tags, strict=True)
                ]
        return tagged
