"""The grammar's law: every draw is accepted, scored and given back; no other text is."""

import math
from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.story_template import join_words, split_words

SEEDS = st.integers(0, 2**32 - 1)


@cache
def grammar() -> StoryGrammar:
    return StoryGrammar()


def draw(seed: int) -> str:
    return grammar().sample(np.random.default_rng(seed))


@given(SEEDS)
def test_draws_are_accepted(seed: int) -> None:
    text = draw(seed)
    assert grammar().accepts(text)
    assert -60 < grammar().log_prob(text) < -15
    assert join_words(split_words(text)) == text
    assert set(split_words(text)) <= grammar().words | {",", "."}


@given(SEEDS, SEEDS)
def test_different_derivations_are_different_texts(one: int, other: int) -> None:
    assert (draw(one) == draw(other)) is (grammar().parse(draw(one)) == grammar().parse(draw(other)))


@given(SEEDS, st.data())
def test_a_replaced_word_is_another_draw_or_none(seed: int, data: st.DataObject) -> None:
    """A text that differs in one word either has its own derivation, with another choice, or is rejected."""
    words = split_words(draw(seed))
    place = data.draw(st.integers(0, len(words) - 1))
    word = data.draw(st.sampled_from(sorted(grammar().words)))
    changed = join_words([*words[:place], word, *words[place + 1 :]])
    derivation = grammar().parse(changed)
    if word != words[place] and derivation is not None:
        assert derivation != grammar().parse(draw(seed))
        assert word in derivation.choices.values()
    assert math.isinf(grammar().log_prob(changed)) is (derivation is None)
    assert (grammar().explain(changed) is None) is (derivation is not None)


@given(SEEDS, st.data())
def test_a_missing_or_moved_word_is_rejected(seed: int, data: st.DataObject) -> None:
    words = split_words(draw(seed))
    place = data.draw(st.integers(0, len(words) - 1))
    assert not grammar().accepts(join_words(words[:place]))
    assert not grammar().accepts(join_words([*words[:place], *words[place + 1 :]]))
    assert not grammar().accepts(join_words(words) + " ")


@given(st.text(max_size=60))
def test_foreign_texts_are_rejected_with_a_reason(text: str) -> None:
    assert not grammar().accepts(text)
    assert grammar().explain(text)
