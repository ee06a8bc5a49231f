import json
import random
from pathlib import Path

import pytest

from cascaded_dllm.cascade.select import SELECTION_METHODS, select_positions, select_stages
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance.custom import BACKGROUND

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "stage_selection.json").read_text())
CASES = [
    (method, field, case)
    for method, field in (("constituency", "labels"), ("keybert_no_stopword", "scores"))
    for case in GOLDEN[method]
]


def expected_stages(case: dict) -> list[list[int]] | None:
    return None if case["stage1"] is None else [case["stage1"], case["stage2"], case["input_ids"]]


@pytest.mark.parametrize(("method", "field", "case"), CASES)
def test_golden(method, field, case):
    lengths = GOLDEN["stage_lengths"]
    expected = expected_stages(case)
    assert select_stages(case["input_ids"], case[field], lengths, method=method) == expected
    shortened = None if expected is None else expected[:2]
    assert select_stages(case["input_ids"], case[field], lengths[:2], method=method) == shortened


@pytest.mark.parametrize("method", ["keybert", "tfidf", "random"])
def test_score_methods_share_the_keybert_rule(method):
    for case in GOLDEN["keybert_no_stopword"]:
        stages = select_stages(case["input_ids"], case["scores"], GOLDEN["stage_lengths"], method=method)
        assert stages == expected_stages(case)


@pytest.mark.parametrize("lengths", [(6,), (14,), (48,), (2, 6), (3, 6, 10, 14), (1, 2, 6, 14, 48)])
def test_any_number_of_stages_agrees_with_the_golden_ones(lengths):
    """Stages come from one order, so a stage of a given length is the same in any cascade that can be filled."""
    for method, field, case in CASES:
        expected = expected_stages(case)
        if expected is None:
            continue
        by_length = dict(zip(GOLDEN["stage_lengths"], expected, strict=True))
        stages = select_stages(case["input_ids"], case[field], lengths, method=method)
        assert stages is not None
        assert [len(stage) for stage in stages] == list(lengths)
        for length, stage in zip(lengths, stages, strict=True):
            assert by_length.get(length, stage) == stage


def test_whole_window_needs_no_eligible_token():
    assert select_stages([5, 5, 5], [-100, -100, -100], [3], method="constituency") == [[5, 5, 5]]


def test_window_that_cannot_fill_a_stage_is_dropped():
    assert select_stages([5, 5, 6], [1, 1, 1], [1, 2], method="constituency") == [[5], [5, 6]]
    assert select_stages([5, 5, 5], [1, 1, 1], [1, 2], method="constituency") is None
    assert select_stages([5, 6, 7], [1, -100, -100], [1, 2, 3], method="constituency") is None


def test_copies_may_be_kept():
    """By importance alone, in text order among equals, with tokens in no word last."""
    kept = select_positions([5, 9, 5, 6, 9], [2, -100, 1, 2, 1], [2, 4], method="constituency", unique=False)
    assert kept == [[2, 4], [0, 2, 3, 4]]
    assert select_positions([5, 9, 9], [-100, -100, 3], [2], method="constituency", unique=False) == [[0, 2]]
    # Where large scores come first, -100 is a score like any other.
    assert select_positions([5, 5, 5], [0.5, -100, 0.7], [1, 2], method="tfidf", unique=False) == [[2], [0, 2]]


def test_full_stop_repeats_and_is_not_remembered():
    ids, scores = [9, 3, 9, 9], [1.1, 0.5, 1.1, 0.2]
    assert select_positions(ids, scores, [3, 4], method="keybert") == [[0, 1, 2], [0, 1, 2, 3]]
    assert select_positions(ids, scores, [2], method="keybert") == [[0, 2]]
    # A score of exactly 1 is a word, and taken once.
    assert select_positions([9, 3, 9], [1.0, 0.5, 1.0], [2], method="keybert") == [[0, 1]]


def test_ties_go_to_the_earlier_token():
    assert select_positions([1, 2, 3, 4], [3, 1, 1, 1], [2, 3], method="constituency") == [[1, 2], [1, 2, 3]]
    assert select_positions([1, 2, 3, 4], [0.1, 0.9, 0.9, 0.9], [2, 3], method="tfidf") == [[1, 2], [1, 2, 3]]


def test_arguments_are_left_alone():
    ids, importance, lengths = [3, 1, 2], [2, 1, 3], [1, 3]
    select_stages(ids, importance, lengths, method="constituency")
    assert (ids, importance, lengths) == ([3, 1, 2], [2, 1, 3], [1, 3])


def test_rejects_an_unknown_method():
    with pytest.raises(ConfigError, match=r"method is 'syntax'; it must be one of constituency, keybert_no_stopword"):
        select_stages([1, 2], [1, 2], [1], method="syntax")


def test_rejects_a_stage_longer_than_the_window():
    with pytest.raises(ConfigError, match="stage length 3 is longer than the window of 2 tokens"):
        select_stages([1, 2], [1, 2], [1, 3], method="constituency")


def test_rejects_lengths_that_do_not_increase():
    with pytest.raises(ConfigError, match="must strictly increase"):
        select_stages([1, 2, 3], [1, 2, 3], [2, 1], method="constituency")


def test_rejects_importance_of_another_length():
    with pytest.raises(DataError, match="3 token ids came with 2 importance values"):
        select_stages([1, 2, 3], [1, 2], [1], method="constituency")


def test_methods_are_closed():
    assert SELECTION_METHODS == ("constituency", "keybert_no_stopword", "keybert", "tfidf", "random", "custom")


@pytest.mark.parametrize("unique", [True, False])
def test_numbers_of_a_user_are_only_compared(unique):
    """A copy is not kept for being above 1; what keeps full stops is the scale of KeyBERT alone."""
    ids, importance = [5, 5, 6, 7, 8], [9.0, 9.0, 3.0, 2.0, BACKGROUND]
    [kept] = select_positions(ids, importance, [3], method="custom", unique=unique)
    assert kept == ([0, 2, 3] if unique else [0, 1, 2])
    assert select_positions(ids, importance, [3], method="keybert") == [[0, 1, 2]]
    # A token in no word comes last, and is kept where there is nothing else.
    assert select_positions(ids, importance, [4], method="custom") == [[0, 2, 3, 4]]


def test_random_windows_against_a_plain_reference():
    """The rule written a second time, without sorting: repeatedly the best position that may still be taken."""
    draw = random.Random(1)
    for _ in range(200):
        ids = [draw.randrange(8) for _ in range(20)]
        labels = [draw.choice((1, 2, 3, 7, -100)) for _ in ids]
        taken: list[int] = []
        while len(taken) < 5:
            open_positions = [i for i in range(20) if labels[i] != -100 and all(ids[i] != ids[j] for j in taken)]
            if not open_positions:
                break
            taken.append(min(open_positions, key=lambda i: (labels[i], i)))
        expected = [sorted(taken)] if len(taken) == 5 else None
        assert select_positions(ids, labels, [5], method="constituency") == expected
