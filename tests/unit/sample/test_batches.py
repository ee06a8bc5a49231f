"""Finished batches of any texts: each text is a function of the seed and its number."""

import itertools

import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade, CascadeBatch
from cascaded_dllm.sample.drawing import Drawing

PREDICTORS = [("euler", 4), ("analytic", 4), ("first_hitting", None)]
COUNT = 7


def rows(batches: list[CascadeBatch]) -> dict[int, list[list[int]]]:
    """The ids of every stage, by the number of their text."""
    return {
        number: [stage[row].tolist() for stage in samples.ids]
        for numbers, samples in batches
        for row, number in enumerate(numbers)
    }


def drawn(cascade: Cascade, numbers: list[int], **how) -> dict[int, list[list[int]]]:
    return rows(list(cascade.batches(numbers, Drawing(**{"predictor": "euler", "steps": 4, "seed": 3} | how))))


@pytest.mark.parametrize(("predictor", "steps"), PREDICTORS)
def test_batches_of_any_size_and_order(drawn_from, predictor, steps):
    how = {"predictor": predictor, "steps": steps}
    together = drawn(drawn_from, list(range(COUNT)), batch_size=32, **how)
    assert sorted(together) == list(range(COUNT))
    for batch_size in (1, 3):
        assert drawn(drawn_from, list(range(COUNT)), batch_size=batch_size, **how) == together
    mixed = [5, 0, 6, 3, 1, 4, 2]
    assert drawn(drawn_from, mixed, batch_size=3, **how) == together
    assert drawn(drawn_from, [4, 6], **how) == {number: together[number] for number in (4, 6)}
    other = drawn(drawn_from, list(range(COUNT)), seed=4, **how)
    assert all(other[number] != together[number] for number in range(COUNT))


def test_generate_is_the_collection_of_batches(drawn_from):
    how = {"predictor": "analytic", "steps": 5, "seed": 1, "batch_size": 3}
    samples = drawn_from.generate(COUNT, **how)
    parts = [part for _, part in drawn_from.batches(range(COUNT), Drawing(**how))]
    assert [len(part.texts[0]) for part in parts] == [3, 3, 1]
    for k in range(2):
        assert torch.equal(torch.cat([part.ids[k] for part in parts]), samples.ids[k])
        assert list(itertools.chain(*(part.texts[k] for part in parts))) == samples.texts[k]
    assert sum(part.token_forwards for part in parts) == samples.token_forwards


@pytest.mark.parametrize(("predictor", "steps"), PREDICTORS)
def test_cost_does_not_depend_on_the_batch(drawn_from, predictor, steps):
    """As whole numbers: the calls of all texts, and the positions that they computed."""
    costs = set()
    for batch_size in (1, 2, 3, 32):
        drawing = Drawing(predictor=predictor, steps=steps, seed=3, batch_size=batch_size)
        calls, forwards = [0, 0], 0
        for numbers, samples in drawn_from.batches(range(COUNT), drawing):
            whole = [round(nfe * len(numbers)) for nfe in samples.nfe]
            assert whole == pytest.approx([nfe * len(numbers) for nfe in samples.nfe], abs=1e-6)
            calls = [before + now for before, now in zip(calls, whole, strict=True)]
            forwards += samples.token_forwards
        costs.add((*calls, forwards))
    assert len(costs) == 1


def test_stop_between_two_steps(drawn_from):
    """The batch that is being drawn is lost, the ones before it have come."""
    asked, told = [], []

    def should_stop():
        asked.append(1)
        return len(asked) > 15

    drawing = Drawing(predictor="euler", steps=4, batch_size=2, seed=3)
    batches = list(
        drawn_from.batches(range(COUNT), drawing, on_progress=lambda *now: told.append(now), should_stop=should_stop)
    )
    # A batch has 6 states a stage, the first of which is none of its steps; at the last one it is finished.
    assert [numbers for numbers, _ in batches] == [(0, 1)]
    assert rows(batches) == drawn(drawn_from, [0, 1])
    assert told[-1][1] == 2 * COUNT
    assert 4 < told[-1][0] < 8
    assert list(drawn_from.batches(range(COUNT), drawing, should_stop=lambda: True)) == []


def test_nothing_to_draw(drawn_from):
    assert list(drawn_from.batches([], Drawing())) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"predictor": "magic"}, "the predictor is 'magic'; it must be one of euler"),
        ({"predictor": "euler", "steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": 3}, "steps is 3 and the predictor first_hitting, which has no time grid"),
        ({"guidance": -1.0}, "guidance is -1.0; it must be at least 0"),
        ({"prefix_noise": 2.0}, "prefix_noise is 2.0; it must lie between 0"),
    ],
)
def test_settings_that_need_no_stage_to_be_refused(how, message):
    with pytest.raises(ConfigError, match=message):
        Drawing(**how).require_sound(1)


def test_number_of_texts():
    with pytest.raises(ConfigError, match="num_samples is 0; it must be at least 1"):
        Drawing().require_sound(0)
    Drawing(guidance=1.0, prefix_noise=0.5).require_sound(1)


def test_settings_that_the_stages_refuse(drawn_from):
    with pytest.raises(ConfigError, match=r"guidance is 1\.0, and the stage was trained without prefix dropout"):
        drawn_from.require_drawable(Drawing(guidance=1.0))
