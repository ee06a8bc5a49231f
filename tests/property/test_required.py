"""Required words against a search through all texts: what is possible, and what a path may hold."""

import itertools
from unittest import mock

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascaded_dllm.sample import required as required_words
from cascaded_dllm.sample.required import RequiredWords, Word
from tests.reference.enumerate import contains_in_order

VOCAB = 3
WORDS = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3).map(tuple), max_size=3)
TEXT = st.lists(st.integers(0, VOCAB), min_size=1, max_size=5)
"""MASK is 3."""


def completions(text: list[int]) -> list[list[int]]:
    free = [range(VOCAB) if token == VOCAB else [token] for token in text]
    return [list(choice) for choice in itertools.product(*free)]


@given(st.lists(st.tuples(TEXT, WORDS), min_size=1, max_size=3))
def test_possible_is_what_some_completion_is(texts: list[tuple[list[int], list[Word]]]) -> None:
    """Several texts with words of their own in one table, as in a batch."""
    length = max(len(text) for text, _ in texts)
    padded = [text + [VOCAB] * (length - len(text)) for text, _ in texts]
    required = RequiredWords.build([words for _, words in texts])
    found = required.are_possible(torch.tensor(padded), VOCAB)
    expected = [
        any(contains_in_order(text, words) for text in completions(row))
        for row, (_, words) in zip(padded, texts, strict=True)
    ]
    assert found.tolist() == expected


@settings(max_examples=60)
@given(TEXT, WORDS, st.integers(0, 2**31), st.integers(1, 50))
def test_every_path_is_a_text_with_the_words(text: list[int], words: list[Word], seed: int, at_once: int) -> None:
    """Any token that a path leaves open may be put there: the text contains the words all the same.

    However many positions are looked at in one go, the path is the same.
    """
    required, xt = RequiredWords.build([words]), torch.tensor([text])
    if not required.are_possible(xt, VOCAB):
        return
    generator = torch.Generator().manual_seed(seed)
    law = torch.rand(len(text), VOCAB, generator=generator, dtype=torch.float64) + 0.01
    law = (law / law.sum(-1, keepdim=True)).log()
    states, width = required.tokens.shape[1:]
    log_probs = law[:, required.tokens[0].clamp_min(0).flatten()].view(1, len(text), states, width)
    u = torch.rand(1, len(text), generator=generator, dtype=torch.float64)
    path = required.draw(log_probs, xt, u, mask_id=VOCAB)
    with mock.patch.object(required_words, "_AT_ONCE", at_once):
        in_parts = required.draw(log_probs, xt, u, mask_id=VOCAB)
    assert torch.equal(in_parts.token, path.token)
    assert torch.equal(in_parts.excluded, path.excluded)
    free = []
    for position, token in enumerate(text):
        wanted, excluded = int(path.token[0, position]), path.excluded[0, position].tolist()
        if token != VOCAB:
            assert wanted in (-1, token)
            free.append([token])
        else:
            free.append([wanted] if wanted >= 0 else [other for other in range(VOCAB) if other not in excluded])
    assert all(contains_in_order(list(choice), words) for choice in itertools.product(*free))
    assert all(free)
