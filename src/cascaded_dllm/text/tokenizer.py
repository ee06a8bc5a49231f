"""Byte-level BPE: texts to ids with character offsets, and ids back to exactly the same text."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from cascaded_dllm.atomic import write_text
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.text.tokenizer_canonical import (
    END_OF_TEXT,
    canonical,
    checked_vocab_size,
    fingerprint,
    splits_as_gpt2,
)
from cascaded_dllm.text.tokenizer_files import byte_level, read_backend

MASK_TEXT = "[MASK]"
NUM_BYTES = 256
PIECE_CHARACTERS = 1 << 18
"""Of a long text, for `Tokenizer.encode_in_pieces`."""
# The rule takes a blank with the letters or digits behind it, and leaves the last character of white space alone before
# others; so nothing reaches over the place in front of it. Letters and digits of ASCII are such for any version of it.
_CUT = re.compile(r"[ \n](?=[A-Za-z0-9])")
# No blank in front, case, accents in both forms, line ends, runs of blanks, four bytes: whoever normalises fails here.
_ROUND_TRIP_PROBE = "Ab  \r\n\tc\u00e9 e\u0301  \u65e5\U0001f600 \ufb01 1\u00bd.  "


class Encoding(NamedTuple):
    """The ids of a text and, for each, the characters [start, end) of the text that it covers.

    A character that is spread over several tokens is named by every one of them.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


@final
class Tokenizer:
    """A lossless byte-level BPE with one end-of-text token; ids are 0 .. `vocab_size` - 1, and `mask_id` comes after.

    Args:
        backend: any `tokenizers.Tokenizer` with byte-level BPE.
        origin: where it came from, for error messages.

    Raises:
        DataError: the vocabulary is empty or has holes, lacks the end-of-text token, or changes texts.

    Attributes:
        vocab_size: number of real tokens V, end of text included.
        eos_id: id of the end-of-text token.
        mask_id: V, the absorbing state of the diffusion; no text encodes to it.
        fingerprint: 16 hex digits of the vocabulary, the merges and the splitting rule, wherever they were read from
            and whichever release of the library reads them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, origin: str) -> None:
        state = canonical(json.loads(backend.to_str()), origin)
        self._serialised = json.dumps(state, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self._backend = tokenizers.Tokenizer.from_str(self._serialised)
        # Without this, "<|endoftext|>" typed inside a document would end the document.
        self._backend.encode_special_tokens = True
        self.vocab_size: int = checked_vocab_size(self._backend, origin)
        self.eos_id: int = self._backend.get_vocab()[END_OF_TEXT]
        self.mask_id: int = self.vocab_size
        self.fingerprint: str = fingerprint(state)
        self._splits_as_gpt2 = splits_as_gpt2(state)
        if self.decode(self.encode(_ROUND_TRIP_PROBE).ids) != _ROUND_TRIP_PROBE:
            raise DataError(
                f"the tokenizer of {origin} does not give {_ROUND_TRIP_PROBE!r} back after encoding and decoding; "
                "only lossless byte-level BPE works here: use gpt2, or train one on the corpus"
            )

    def encode(self, text: str) -> Encoding:
        """The ids and character offsets of `text`; no special token is added or recognised."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        return Encoding(encoded.ids, encoded.offsets)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of every text, in order, on all cores."""
        batch = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [Encoding(encoded.ids, encoded.offsets) for encoded in batch]

    def encode_in_pieces(self, text: str) -> Iterator[Encoding]:
        """`encode` of a text, one piece after the other: the library needs 600 bytes for each token of a piece.

        A text is cut where GPT-2's rule for splitting it never joins two characters. With another rule, or other
        tokens than those of the vocabulary, it is one piece.
        """
        start = 0
        for end in [*self._cuts(text), len(text)]:
            encoded = self._backend.encode(text[start:end], add_special_tokens=False)
            yield Encoding(encoded.ids, [(start + first, start + last) for first, last in encoded.offsets])
            start = end

    def _cuts(self, text: str) -> Iterator[int]:
        """Where a long text can be cut: in front of the one blank or line end before a letter or digit."""
        if not self._splits_as_gpt2:
            return
        cut = _CUT.search(text, PIECE_CHARACTERS)
        while cut is not None:
            yield cut.start()
            cut = _CUT.search(text, cut.start() + PIECE_CHARACTERS)

    def decode_window(self, ids: Sequence[int]) -> str:
        """The text of a window, without the ends of text that fill it; one in the middle is shown.

        Raises:
            DataError: an id is negative or above `mask_id`.
        """
        length = len(ids)
        while length > 0 and ids[length - 1] == self.eos_id:
            length -= 1
        return self.decode(ids[:length])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, hiding nothing: end of text shows as "<|endoftext|>", the mask as "[MASK]".

        Args:
            ids: each from 0 to `mask_id`.

        Returns:
            The text; bytes that are no whole character show as the replacement character.

        Raises:
            DataError: an id is negative or above `mask_id`.
        """
        pieces: list[str] = []
        run: list[int] = []
        for position, token_id in enumerate(ids):
            if not 0 <= token_id <= self.mask_id:
                raise DataError(
                    f"token id {token_id} at position {position} is outside 0..{self.mask_id}; "
                    "decode with the tokenizer the ids were made with"
                )
            # The backend drops ids it does not know, so the mask is written here.
            if token_id == self.mask_id:
                pieces += [self._backend.decode(run, skip_special_tokens=False), MASK_TEXT]
                run = []
            else:
                run.append(int(token_id))
        pieces.append(self._backend.decode(run, skip_special_tokens=False))
        return "".join(pieces)

    def save(self, folder: Path) -> None:
        """Writes `folder`/tokenizer.json, complete or not at all; not again where the same one lies there.

        Raises:
            OutputExistsError: it cannot be written.
        """
        path = folder / TOKENIZER_FILE
        if not (path.is_file() and path.read_bytes() == self._serialised.encode()):
            write_text(path, self._serialised)

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """The tokenizer in a file, a folder or, where neither exists, a Hugging Face repository such as "gpt2".

        Args:
            source: a tokenizer.json; a folder with tokenizer.json, encoder.json + vocab.bpe or vocab.json + merges.txt;
                or a hub id, looked up in the local cache before the network.

        Returns:
            The tokenizer, checked.

        Raises:
            DataError: nothing is there, or what is there is broken, empty or not lossless.
        """
        return cls(read_backend(source), origin=str(source))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE learnt from `texts`, the same for the same texts in any order and on any machine.

        Args:
            texts: the corpus, read once.
            vocab_size: largest number of tokens, the 256 bytes and end of text included; a small corpus that has
                nothing left to merge gives fewer.

        Returns:
            A tokenizer that encodes any text, whatever it was trained on.

        Raises:
            ConfigError: `vocab_size` has no room for the bytes and end of text.
            DataError: the corpus holds no text.
        """
        if vocab_size < NUM_BYTES + 1:
            raise ConfigError(
                f"vocab_size {vocab_size} is below {NUM_BYTES + 1}, the {NUM_BYTES} bytes and {END_OF_TEXT}; "
                f"choose {NUM_BYTES + 1} or more"
            )
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            show_progress=False,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        backend.train_from_iterator(_non_empty(texts), trainer)
        return cls(backend, origin="the training corpus")


def _non_empty(texts: Iterable[str]) -> Iterator[str]:
    """Every text with something in it.

    Raises:
        DataError: there was none.
    """
    num_texts = 0
    for text in texts:
        if text:
            num_texts += 1
            yield text
    if num_texts == 0:
        raise DataError("a tokenizer cannot be trained on 0 non-empty texts; give a corpus with at least one")
