"""The oracle: the KeyBERT library itself."""

from collections.abc import Sequence
from pathlib import Path

import pytest


def load(model: Path):
    pytest.importorskip("keybert", reason="the library KeyBERT is not installed")
    from keybert import KeyBERT
    from sentence_transformers import SentenceTransformer

    return KeyBERT(SentenceTransformer(str(model), device="cpu", local_files_only=True))


def words_of(library, documents: Sequence[str], stop_words: str | None) -> list[dict[str, float]]:
    """All candidates of every document with their relevance, which the library rounds to four decimals."""
    found = library.extract_keywords(
        list(documents), keyphrase_ngram_range=(1, 1), stop_words=stop_words, top_n=1_000_000
    )
    if len(documents) == 1:  # The library takes a list of one apart.
        found = [found]
    return [dict(words) for words in found] or [{} for _ in documents]
