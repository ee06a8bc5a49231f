"""Documents cut into windows of one length; nothing is lost and nothing is repeated."""

from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.data.shards import Record
from cascaded_dllm.errors import ConfigError

PACKINGS: tuple[str, ...] = ("stream", "document")
# Documents are collected to about this many tokens before they are cut, so that short ones cost little.
CHUNK_TOKENS = 1 << 16


class Window(NamedTuple):
    """A piece of the corpus, with one importance per token."""

    token_ids: list[int]
    importance: list[float]


_Cut: TypeAlias = Generator[Window, None, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]


@final
class WindowStream(Iterator[Window]):
    """The windows of a corpus, once; see `windows`.

    Attributes:
        tail: the tokens at the end that fill no window; empty until the iterator is exhausted.
    """

    def __init__(self, records: Iterable[Record], length: int, *, eos_id: int, background: float, packing: str) -> None:
        self.tail = Window([], [])
        self._length = length
        self._eos = np.array([eos_id], dtype=np.int32)
        self._background = np.array([background], dtype=np.float32)
        self._windows = self._documents(records) if packing == "document" else self._stream(records)

    def __next__(self) -> Window:
        """The next window."""
        return next(self._windows)

    def _stream(self, records: Iterable[Record]) -> Iterator[Window]:
        """Windows of the one stream of all documents, each followed by an end of text."""
        token_ids: list[npt.NDArray[np.int32]] = []
        importance: list[npt.NDArray[np.float32]] = []
        held = 0
        for record in records:
            token_ids += [record.token_ids, self._eos]
            importance += [record.importance, self._background]
            held += len(record.token_ids) + 1
            if held >= max(self._length, CHUNK_TOKENS):
                rest = yield from self._cut(np.concatenate(token_ids), np.concatenate(importance))
                token_ids, importance, held = [rest[0]], [rest[1]], len(rest[0])
        if held:
            rest = yield from self._cut(np.concatenate(token_ids), np.concatenate(importance))
            self.tail = Window(rest[0].tolist(), rest[1].tolist())

    def _documents(self, records: Iterable[Record]) -> Iterator[Window]:
        """Windows of every document alone, end of text filling what is left of the last one."""
        for record in records:
            padding = -len(record.token_ids) % self._length
            yield from self._cut(
                np.concatenate([record.token_ids, self._eos.repeat(padding)]),
                np.concatenate([record.importance, self._background.repeat(padding)]),
            )

    def _cut(self, token_ids: npt.NDArray[np.int32], importance: npt.NDArray[np.float32]) -> _Cut:
        """Yields all whole windows and returns the rest."""
        length = self._length
        whole = len(token_ids) // length * length
        for ids, values in zip(
            token_ids[:whole].reshape(-1, length).tolist(), importance[:whole].reshape(-1, length).tolist(), strict=True
        ):
            yield Window(ids, values)
        return token_ids[whole:], importance[whole:]


def windows(records: Iterable[Record], length: int, *, eos_id: int, background: float, packing: str) -> WindowStream:
    """The corpus in windows of exactly `length` tokens.

    Args:
        records: the documents.
        length: tokens of a window.
        eos_id: end of text, put after every document.
        background: importance of the end of text and of padding.
        packing: "stream" joins all documents and cuts the stream, so a window may hold the end of one document and the
            beginning of the next, and what is left at the end is the iterator's `tail`. "document" begins every
            document in a window of its own and fills what is left of its last window with end of text; a document that
            fills its windows exactly gets none, as a window of nothing but end of text would teach nothing.

    Raises:
        ConfigError: the packing is unknown or the length is below 1.
    """
    if packing not in PACKINGS:
        raise ConfigError(f"packing {packing!r} is unknown; choose one of {', '.join(PACKINGS)}")
    if length < 1:
        raise ConfigError(f"window length {length} is below 1; choose the length of the last stage")
    return WindowStream(records, length, eos_id=eos_id, background=background, packing=packing)
