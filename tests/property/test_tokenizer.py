"""Tokenizers lose nothing: neither characters nor the places they came from."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.text.tokenizer import END_OF_TEXT, MASK_TEXT, Tokenizer

PIECES = st.sampled_from(
    [
        END_OF_TEXT,
        MASK_TEXT,
        "\r\n",
        "\n\n",
        "  ",
        "\t",
        "e\u0301",
        "\u200d",
        "👨\u200d👩\u200d👧",
        "👍🏽",
        "'ll",
        "\x00",
        "日本",
        "\ufeff",
        "the",
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=20), PIECES), max_size=8).map("".join)


@cache
def small_tokenizer() -> Tokenizer:
    """Trained on the pieces, so that its merges cross their characters."""
    return Tokenizer.train(["日本語 日本 日月 👍🏽 👍🏾 e\u0301e\u0301 the then\r\n\r\n" * 3, END_OF_TEXT * 5], 400)


def check_text(tokenizer: Tokenizer, text: str) -> None:
    encoding = tokenizer.encode(text)
    assert tokenizer.decode(encoding.ids) == text
    assert len(encoding.ids) == len(encoding.offsets)
    assert all(0 <= token_id < tokenizer.vocab_size and token_id != tokenizer.eos_id for token_id in encoding.ids)
    covered = 0
    previous_start = 0
    for start, end in encoding.offsets:
        # A token may start again inside what the last one ended with, where a character is spread over both.
        assert previous_start <= start <= covered < end or (previous_start <= start < covered == end)
        previous_start, covered = start, end
    assert covered == len(text)


@given(TEXTS)
def test_trained_tokenizer_is_lossless(text: str) -> None:
    check_text(small_tokenizer(), text)


@given(TEXTS)
def test_story_tokenizer_is_lossless(text: str) -> None:
    check_text(story_tokenizer_once(), text)


@cache
def story_tokenizer_once() -> Tokenizer:
    return story_tokenizer()


@cache
def gpt2(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@given(text=TEXTS)
def test_gpt2_is_lossless(shared: Path, text: str) -> None:
    check_text(gpt2(shared / "data" / "gpt2_bpe"), text)


@given(st.lists(TEXTS, max_size=5))
def test_batch_equals_single(texts: list[str]) -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=4), st.integers(257, 320))
def test_any_corpus_trains_a_lossless_tokenizer(texts: list[str], vocab_size: int) -> None:
    tokenizer = Tokenizer.train(texts, vocab_size)
    assert 257 <= tokenizer.vocab_size <= vocab_size
    assert Tokenizer.train(texts[::-1], vocab_size).fingerprint == tokenizer.fingerprint
    for text in texts:
        check_text(tokenizer, text)


@given(st.lists(st.integers(0, 400), max_size=20))
def test_every_mask_is_shown(ids: list[int]) -> None:
    tokenizer = small_tokenizer()
    known = [min(token_id, tokenizer.mask_id) for token_id in ids]
    assert tokenizer.decode(known).count(MASK_TEXT) == known.count(tokenizer.mask_id)


def test_lone_bytes_are_seen_as_such() -> None:
    """The property above would not hold for a decoder that dropped broken characters."""
    tokenizer = small_tokenizer()
    first, *_ = tokenizer.encode("é").ids
    assert tokenizer.decode([first]) == "\ufffd"
    with pytest.raises(AssertionError):
        check_text(_Shortening(tokenizer), "abc")  # type: ignore[arg-type]


class _Shortening:
    """A tokenizer that forgets the last token, to show that the check above can fail."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.vocab_size, self.eos_id = tokenizer.vocab_size, tokenizer.eos_id

    def encode(self, text: str) -> object:
        encoding = self._tokenizer.encode(text)
        return encoding._replace(ids=encoding.ids[:-1], offsets=encoding.offsets[:-1])

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids)
