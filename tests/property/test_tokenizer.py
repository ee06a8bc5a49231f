"""Tokenizers lose nothing: neither characters nor the places they came from."""

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.text import tokenizer as tokenizer_module
from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.text.tokenizer import MASK_TEXT, Encoding, Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT

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
SPACES = st.sampled_from([" ", "\n", "\n ", " the", "\nthe", "\u00a0", "\x1f", "\u2028", "1", ".", "  then", "'s"])
# With merges over white space, so that where a run of it is parted makes a difference.
SPACED = Tokenizer.train(["the\n\n\nthen    \n\n the  then .\n\n" * 9], 290)
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


def in_pieces(tokenizer: Tokenizer, text: str, characters: int) -> list[Encoding]:
    """A text encoded in pieces of so many characters or more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "PIECE_CHARACTERS", characters)
        return list(tokenizer.encode_in_pieces(text))


def joined(pieces: list[Encoding]) -> Encoding:
    return Encoding([i for piece in pieces for i in piece.ids], [at for piece in pieces for at in piece.offsets])


@given(st.lists(st.one_of(st.text(max_size=9), PIECES, SPACES), max_size=20).map("".join), st.integers(1, 6))
@example("the then\n\nthe  then \n then\u00a0 the's 1\r\n the", 1)
def test_pieces_equal_the_whole(text: str, characters: int) -> None:
    for tokenizer in (small_tokenizer(), SPACED):
        assert joined(in_pieces(tokenizer, text, characters)) == tokenizer.encode(text)


def test_a_text_is_cut_between_words() -> None:
    pieces = in_pieces(small_tokenizer(), "the then \n the\n\nthen", 1)
    covered = [(piece.offsets[0][0], piece.offsets[-1][1]) for piece in pieces]
    assert covered == [(0, 3), (3, 10), (10, 15), (15, 20)]


@pytest.mark.parametrize("change", ["splitter", "normalizer", "token"])
def test_other_rules_do_not_cut_a_text(tmp_path: Path, change: str) -> None:
    SPACED.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    text = "the then \n then\n\nthen the"
    match change:
        case "splitter":
            state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [state["pre_tokenizer"]]}
        case "normalizer":
            state["normalizer"] = {"type": "Sequence", "normalizers": []}
        case _:
            state["added_tokens"].append(state["added_tokens"][0] | {"id": SPACED.vocab_size, "content": "n the"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    tokenizer = Tokenizer.load(tmp_path)
    assert in_pieces(tokenizer, text, 1) == [tokenizer.encode(text)]


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
