"""Lossless byte-level BPE: texts to ids with character offsets, and ids back to the same texts."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from cascaded_dllm.atomic import write_text
from cascaded_dllm.checks import require_at_least, require_whole
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
MOST_TOKENS = 1_000_000
"""The largest vocabulary that is trained: several times those of the largest models."""
PIECE_CHARACTERS = 1 << 18
"""Length of a piece of `Tokenizer.encode_in_pieces`."""
# GPT-2's rule joins a space to the letters or digits after it, and separates the last white space character before them
# from those in front of it. So no token crosses the place in front of this character. ASCII letters and digits are
# letters and digits in every version of Unicode.
_CUT = re.compile(r"[ \n](?=[A-Za-z0-9])")
# No space in front, case, accents in both forms, line ends, runs of spaces, four bytes: any normalization changes this.
_ROUND_TRIP_PROBE = "Ab  \r\n\tc\u00e9 e\u0301  \u65e5\U0001f600 \ufb01 1\u00bd.  "
# Characters that together hold every byte of UTF-8. One that was in no text that a tokenizer was trained on may be
# missing from its vocabulary, and is then left out of every text.
_EVERY_BYTE = "".join(map(chr, [*range(0x801), *range(0x1000, 0x10000, 0x1000), *range(0x10000, 0x110000, 0x10000)]))


class Encoding(NamedTuple):
    """The ids of a text and, for each, the characters [start, end) of the text that it covers.

    Every token of a character that is spread over several covers it.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


@final
class Tokenizer:
    """A lossless byte-level BPE with an end-of-text token; its ids are 0 .. `vocab_size` - 1, and `mask_id` follows.

    Args:
        backend: any `tokenizers.Tokenizer` with byte-level BPE.
        origin: where it came from, for error messages.

    Raises:
        DataError: the vocabulary is empty or has holes, lacks the end-of-text token, or changes texts.

    Attributes:
        vocab_size: V, the number of real tokens, end of text included.
        eos_id: id of the end-of-text token.
        mask_id: V, the absorbing state of the diffusion; no text encodes to it.
        fingerprint: 16 hex digits of everything that decides the ids of a text, such as the vocabulary and the merges;
            the same for every source and every release of the tokenizers library.
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
        self._origin = origin
        # An added token may take the spaces around it away; special ones are not recognised in texts.
        added = (f"  {entry['content']}  " for entry in state["added_tokens"] if not entry["special"])
        self._require_kept((_ROUND_TRIP_PROBE, *added))

    def encode(self, text: str) -> Encoding:
        """The ids and character offsets of `text`; no special token is added or recognised.

        Raises:
            DataError: the text contains half of a surrogate pair, which has no bytes.
        """
        try:
            encoded = self._backend.encode(text, add_special_tokens=False)
        except TypeError:
            _require_bytes(text)
            raise
        return Encoding(encoded.ids, encoded.offsets)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """`encode` of every text, in order, on all cores."""
        batch = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [Encoding(encoded.ids, encoded.offsets) for encoded in batch]

    def encode_in_pieces(self, text: str) -> Iterator[Encoding]:
        """`encode` of a text, piece by piece, since the library needs 600 bytes for each token of a piece.

        A text is cut at places that no token crosses under GPT-2's splitting rule. With another rule, or with added
        tokens besides the end of text, the whole text is one piece.
        """
        start = 0
        for end in [*self._cuts(text), len(text)]:
            encoded = self._backend.encode(text[start:end], add_special_tokens=False)
            yield Encoding(encoded.ids, [(start + first, start + last) for first, last in encoded.offsets])
            start = end

    def require_every_byte(self) -> None:
        """Checks, before a corpus is encoded, that no character of it can get lost.

        Raises:
            DataError: the vocabulary lacks a byte of UTF-8.
        """
        if not self._is_kept(_EVERY_BYTE):
            self._require_kept((*_EVERY_BYTE, _EVERY_BYTE))

    def _require_kept(self, probes: Iterable[str]) -> None:
        """Checks that texts are the same after encoding and decoding.

        Raises:
            DataError: one is not.
        """
        for probe in probes:
            if not self._is_kept(probe):
                raise DataError(
                    f"the tokenizer of {self._origin} does not give {probe!r} back after encoding and decoding; "
                    "only lossless byte-level BPE works here: use gpt2, or train one on the corpus"
                )

    def _is_kept(self, text: str) -> bool:
        return self.decode(self.encode(text).ids) == text

    def _cuts(self, text: str) -> Iterator[int]:
        """Where a long text is cut: in front of a space or line end that a letter or digit follows."""
        if not self._splits_as_gpt2:
            return
        cut = _CUT.search(text, PIECE_CHARACTERS)
        while cut is not None:
            yield cut.start()
            cut = _CUT.search(text, cut.start() + PIECE_CHARACTERS)

    def decode_window(self, ids: Sequence[int]) -> str:
        """The text of a window, without the ends of text at its end, which fill it; one in the middle is shown.

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
            The text; bytes that do not form a character show as the replacement character.

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
            # The backend would drop the mask, an id that it does not know.
            if token_id == self.mask_id:
                pieces += [self._backend.decode(run, skip_special_tokens=False), MASK_TEXT]
                run = []
            else:
                run.append(int(token_id))
        pieces.append(self._backend.decode(run, skip_special_tokens=False))
        return "".join(pieces)

    def save(self, folder: Path) -> None:
        """Writes `folder`/tokenizer.json, completely or not at all, unless the same file is there already.

        Raises:
            OutputError: it cannot be written.
        """
        path = folder / TOKENIZER_FILE
        if not (path.is_file() and path.read_bytes() == self._serialised.encode()):
            write_text(path, self._serialised)

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """The tokenizer in a file, a folder or, if neither exists, a Hugging Face repository such as "gpt2".

        Args:
            source: a tokenizer.json; a folder with tokenizer.json, encoder.json + vocab.bpe or vocab.json + merges.txt;
                or a hub id, looked up in the local cache before the network.

        Raises:
            DataError: there is no tokenizer, or it is broken, empty or not lossless.
        """
        return cls(read_backend(source), origin=str(source))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE learnt from `texts`, the same for the same texts in any order and on any machine.

        Args:
            texts: the corpus, read once.
            vocab_size: maximum number of tokens, the 256 bytes and end of text included; a small corpus, in which
                nothing is left to merge, gives fewer.

        Returns:
            A tokenizer that encodes any text, also one with characters that were not in `texts`.

        Raises:
            ConfigError: `vocab_size` has no room for the bytes and end of text, or is too large; or `texts` is a single
                text, of which every character would be taken for one.
            DataError: the corpus holds no text.
        """
        require_vocab_size(vocab_size)
        if isinstance(texts, str | bytes):
            raise ConfigError(f"texts is a single text, {texts[:40]!r}; give a list of texts, such as its lines")
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            show_progress=False,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        backend.train_from_iterator(_non_empty(texts), trainer)
        return cls(backend, origin="the training corpus")


def require_vocab_size(vocab_size: int) -> None:
    """Checks the number of tokens of a tokenizer that is to be trained.

    Raises:
        ConfigError: it has no room for the bytes and end of text, is too large, or is no whole number.
    """
    require_whole("vocab_size", vocab_size)
    if vocab_size < NUM_BYTES + 1:
        raise ConfigError(
            f"vocab_size {vocab_size} is below {NUM_BYTES + 1}, the {NUM_BYTES} bytes and {END_OF_TEXT}; "
            f"choose {NUM_BYTES + 1} or more"
        )
    require_at_least("vocab_size", vocab_size, NUM_BYTES + 1, most=MOST_TOKENS)


def _non_empty(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not empty.

    Raises:
        DataError: there are none.
    """
    num_texts = 0
    for text in texts:
        if text:
            num_texts += 1
            yield text
    if num_texts == 0:
        raise DataError("a tokenizer cannot be trained on 0 non-empty texts; give a corpus with at least one")


def _require_bytes(text: str) -> None:
    """Checks that a text can be written as bytes.

    Raises:
        DataError: it contains half of a surrogate pair; Python reads such from a command line that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds the lone surrogate {text[error.start]!r} at character {error.start}, which stands for no "
            "character, or on a command line for a byte that is not UTF-8; give the text in UTF-8"
        ) from None
