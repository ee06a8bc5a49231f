"""How well a judge predicts texts that it was not trained on."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import DataError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.text.tokenizer import Tokenizer

VALIDATION_DEFINITIONS = {
    "ppl_per_token": "exp(nats of all texts / tokens of the judge in all texts); the end of a text is not counted",
    "bpc_bits": "nats of all texts / log 2 / characters of all texts",
}
"""What the figures are, for those who read them without this package."""

_AT_ONCE = 64
"""Texts judged between two calls of `on_progress`."""


def document_texts(folder: Path, num_documents: int) -> list[str]:
    """The texts of the first documents of a preprocessed corpus, decoded exactly.

    Raises:
        DataError: the corpus is damaged, or has no document.
    """
    dataset, tokenizer = PreprocessedDataset.open(folder), Tokenizer.load(folder)
    records = itertools.islice(dataset.records(), num_documents)
    texts = [tokenizer.decode(record.token_ids.tolist()) for record in records]
    if not texts:
        raise DataError(f"{folder} holds no document to measure the judge on; give another folder with --valid")
    return texts


def validation_figures(
    judge: Judge, texts: list[str], on_progress: Callable[[int, int], None] | None = None
) -> dict[str, float | int]:
    """What texts cost under a judge: perplexity a token and bits a character.

    Args:
        judge: stays on its device.
        texts: with at least one character in total.
        on_progress: receives the number of texts done, and their total.
    """
    nats, num_tokens = 0.0, 0
    for done, part in _parts(texts):
        for of_text in judge.token_nats(part):
            nats, num_tokens = nats + float(of_text.sum()), num_tokens + len(of_text)
        if on_progress is not None:
            on_progress(done, len(texts))
    num_characters = sum(map(len, texts))
    return {
        "num_documents": len(texts),
        "num_tokens": num_tokens,
        "num_characters": num_characters,
        "nats_per_token": nats / num_tokens,
        "ppl_per_token": math.exp(nats / num_tokens),
        "bpc_bits": nats / math.log(2) / num_characters,
    }


def _parts(texts: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Parts of the texts, each with the number of texts up to its end."""
    for start in range(0, len(texts), _AT_ONCE):
        yield min(start + _AT_ONCE, len(texts)), texts[start : start + _AT_ONCE]
