"""From documents to tokens with importance: the expensive part of preprocessing, in this process or in many."""

import contextlib
import functools
import gc
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.errors import WorkerDiedError
from cascaded_dllm.importance.base import Scorer, Word, align
from cascaded_dllm.processes import in_order, process_pool
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.tokenizer import PIECE_CHARACTERS, Encoding, Tokenizer

# Batches per process that are submitted ahead of the one that is written: enough to keep all processes busy.
_AHEAD = 3


class Encoded(NamedTuple):
    """A document as tokens, each with its importance; empty if the tokenizer finds nothing to encode."""

    document: Document
    token_ids: npt.NDArray[np.int32]
    importance: npt.NDArray[np.float32]


EncodeAll: TypeAlias = Callable[[Iterable[Sequence[Document]]], Iterator[Sequence[Encoded]]]
"""Turns batches of documents into batches of encoded ones, in order."""


@final
class Encoder:
    """Scores and tokenises documents.

    Args:
        tokenizer: finds the tokens.
        scorer: finds the words and their importance.
    """

    def __init__(self, tokenizer: Tokenizer, scorer: Scorer) -> None:
        self.tokenizer = tokenizer
        self.scorer = scorer

    def encode(self, documents: Sequence[Document]) -> list[Encoded]:
        """The tokens of every document, each with its word's importance."""
        texts = [document.text for document in documents]
        with collector_paused():
            scored = self.scorer.score(texts)
            short = iter(self.tokenizer.encode_batch([text for text in texts if len(text) <= PIECE_CHARACTERS]))
            encodings = (
                [next(short)] if len(text) <= PIECE_CHARACTERS else self.tokenizer.encode_in_pieces(text)
                for text in texts
            )
            return [
                self._encoded(document, words, pieces)
                for document, words, pieces in zip(documents, scored, encodings, strict=True)
            ]

    def _encoded(self, document: Document, words: Sequence[Word], pieces: Iterable[Encoding]) -> Encoded:
        ids = [np.zeros(0, dtype=np.int32)]

        def offsets() -> Iterator[tuple[int, int]]:
            for piece in pieces:
                ids.append(np.array(piece.ids, dtype=np.int32))
                yield from piece.offsets

        importance = align(words, offsets(), self.scorer.background)
        return Encoded(document, np.concatenate(ids), np.array(importance, dtype=np.float32))

    def encode_all(self, batches: Iterable[Sequence[Document]]) -> Iterator[Sequence[Encoded]]:
        """`encode` of every batch, in this process."""
        return map(self.encode, batches)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Switches the garbage collector off inside the block.

    A batch is a hundred thousand small objects without cycles, which reference counting frees. The collector would
    visit them again and again, with all objects of the libraries, which takes a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def encoder_processes(
    make_encoder: Callable[[], Encoder], num_processes: int, fingerprint: str = ""
) -> Iterator[EncodeAll]:
    """`Encoder.encode_all` on `num_processes` processes, with the same results in the same order.

    A single batch is encoded in this process: others could not help, and take seconds to start.

    Args:
        make_encoder: called once in every process; picklable and hashable.
        num_processes: how many.
        fingerprint: see `encoder_of_process`.
    """
    with process_pool(num_processes) as pool:

        def encode_all(batches: Iterable[Sequence[Document]]) -> Iterator[Sequence[Encoded]]:
            rest = iter(batches)
            first = list(itertools.islice(rest, 2))
            if len(first) < 2:
                yield from encoder_of_process(make_encoder, fingerprint).encode_all(first)
                return
            encode = functools.partial(_encode_in_worker, make_encoder, fingerprint)
            try:
                yield from in_order(pool, encode, itertools.chain(first, rest), ahead=_AHEAD * num_processes)
            except BrokenProcessPool as error:
                raise WorkerDiedError(
                    "a process that scores documents was killed, often by the system for want of memory; complete "
                    "shards are kept: run the same command again, with fewer workers if memory was short"
                ) from error

        yield encode_all


@functools.lru_cache(maxsize=1)
def encoder_of_process(make_encoder: Callable[[], Encoder], fingerprint: str = "") -> Encoder:
    """The encoder of this process, made at the first call, so that models are loaded and words embedded only once.

    Args:
        make_encoder: makes it; hashable.
        fingerprint: of the content of its files, of which `make_encoder` only knows the paths; new content makes a new
            encoder.
    """
    # The initializer of a pool would lose a typed error.
    return make_encoder()


def _encode_in_worker(
    make_encoder: Callable[[], Encoder], fingerprint: str, documents: Sequence[Document]
) -> list[Encoded]:
    return encoder_of_process(make_encoder, fingerprint).encode(documents)
