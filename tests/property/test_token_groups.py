import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.text.token_groups import token_groups
from cascaded_dllm.text.tokenizer import Tokenizer

# 256 bytes and a few merges across the borders of characters.
TOKENIZER = Tokenizer.train(["日本語日本語 😀😀😀 été été naïve naïve e\u0301e\u0301 \ufffd\ufffd the the"], 290)
MANY = st.lists(st.integers(0, TOKENIZER.mask_id), max_size=40)


def texts(ids):
    groups = token_groups(ids, TOKENIZER.decode)
    # They are all tokens, once each and in order.
    assert [place for start, end in groups for place in range(start, end)] == list(range(len(ids)))
    return [TOKENIZER.decode(ids[start:end]) for start, end in groups]


@given(MANY)
def test_groups_of_any_tokens_join_to_the_whole_text(ids):
    assert "".join(texts(ids)) == TOKENIZER.decode(ids)


@given(st.text(max_size=40))
@example("日\x00😀\ufffd\r\n<|endoftext|>")
def test_groups_of_a_text_hold_whole_characters(text):
    ids = TOKENIZER.encode(text).ids
    found = texts(ids)
    assert "".join(found) == text
    assert all(found)
    assert sum(part.count("\ufffd") for part in found) == text.count("\ufffd")


@given(st.text(min_size=1, max_size=10), st.integers(0, 3), st.integers(0, 3))
def test_groups_of_a_cut_through_characters(text, begin, end):
    ids = TOKENIZER.encode(text).ids
    ids = ids[begin : len(ids) - end]
    assert "".join(texts(ids)) == TOKENIZER.decode(ids)


@given(MANY)
def test_no_group_can_be_divided(ids):
    for start, end in token_groups(ids, TOKENIZER.decode):
        whole = TOKENIZER.decode(ids[start:end])
        parts = [TOKENIZER.decode(ids[start:cut]) + TOKENIZER.decode(ids[cut:end]) for cut in range(start + 1, end)]
        assert whole not in parts


@pytest.mark.parametrize(("text", "expected"), [("a😀b", ["a", "😀", "b"]), ("", []), ("语", ["语"])])
def test_groups_by_hand(text, expected):
    plain = Tokenizer.train(["x"], 257)
    ids = plain.encode(text).ids
    assert len(ids) == len(text.encode())
    assert [plain.decode(ids[start:end]) for start, end in token_groups(ids, plain.decode)] == expected
