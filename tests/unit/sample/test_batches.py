"""Finished batches of any texts: each text is a function of the seed and its number."""

import inspect
import itertools
import math
import re
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing, DrawingOptions, drawing_of_options, entries
from cascaded_dllm.sample.predictors import FirstHittingPredictor, RemaskPredictor, SurestPredictor, TweediePredictor
from cascaded_dllm.sample.samples import CascadeBatch
from cascaded_dllm.sample.token_law import TokenLaw
from tests.unit.model.unchecked import without_type_checks

PREDICTORS = [("euler", 4), ("analytic", 4), ("first_hitting", None)]
COUNT = 7


def rows(batches: list[CascadeBatch]) -> dict[int, list[list[int]]]:
    """The ids of every stage, by the number of their text."""
    return {
        number: [stage[row].tolist() for stage in samples.ids]
        for numbers, samples in batches
        for row, number in enumerate(numbers)
    }


def drawn(cascade: Cascade, numbers: list[int], *, batch_size: int = 32, **how) -> dict[int, list[list[int]]]:
    drawing = Drawing(**{"predictor": ("euler",), "steps": (4,), "seed": 3} | how)
    return rows(list(cascade.batches(numbers, drawing, batch_size=batch_size)))


@pytest.mark.parametrize(("predictor", "steps"), PREDICTORS)
def test_batches_of_any_size_and_order(drawn_from, predictor, steps):
    how = {"predictor": (predictor,), "steps": (steps,)}
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
    samples = drawn_from.generate(COUNT, predictor="analytic", steps=5, seed=1, batch_size=3)
    drawing = Drawing(predictor=("analytic",), steps=(5,), seed=1)
    parts = [part for _, part in drawn_from.batches(range(COUNT), drawing, batch_size=3)]
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
        drawing = Drawing(predictor=(predictor,), steps=(steps,), seed=3)
        calls, forwards = [0, 0], 0
        for numbers, samples in drawn_from.batches(range(COUNT), drawing, batch_size=batch_size):
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

    drawing = Drawing(predictor=("remask",), steps=(4,), seed=3)
    told_of = {"on_progress": lambda *now: told.append(now), "should_stop": should_stop}
    batches = list(drawn_from.batches(range(COUNT), drawing, batch_size=2, **told_of))
    # A batch has 6 states a stage, the first of which is none of its steps; at the last one it is finished.
    assert [numbers for numbers, _ in batches] == [(0, 1)]
    assert rows(batches) == drawn(drawn_from, [0, 1], predictor=("remask",))
    assert told[-1][1] == 2 * COUNT
    assert 4 < told[-1][0] < 8
    assert list(drawn_from.batches(range(COUNT), drawing, should_stop=lambda: True)) == []


def test_nothing_to_draw(drawn_from):
    assert list(drawn_from.batches([], Drawing())) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"predictor": ("magic",)}, "the predictor is 'magic'; it must be one of euler"),
        ({"predictor": ("euler",), "steps": (0,)}, "steps is 0; it must be at least 1"),
        ({"steps": (3,)}, "steps is 3 and the predictor first_hitting, which has no time grid"),
        (
            {"predictor": ("euler",), "tokens_per_call": (3,)},
            "tokens_per_call is 3 and the predictor euler",
        ),
        ({"eta": 0.5}, "eta is 0.5 and the predictor first_hitting; only remask masks tokens again"),
        ({"predictor": ("euler", "entropy"), "steps": (4, 4)}, "steps is 4 and the predictor entropy, which has no"),
        (
            {"predictor": ("euler",) * 3, "steps": (4, 4)},
            "2 steps are given for 3 stages; give one for all",
        ),
        ({"guidance": -1.0}, "guidance is -1.0; it must be at least 0"),
        ({"prefix_noise": 2.0}, "prefix_noise is 2.0; it must lie between 0"),
    ],
)
def test_settings_that_need_no_stage_to_be_refused(how, message):
    with pytest.raises(ConfigError, match=message):
        Drawing(**how).require_sound()


def test_numbers_of_texts(drawn_from):
    with pytest.raises(ConfigError, match="num_samples is 0; it must be at least 1"):
        drawn_from.generate(0)
    with pytest.raises(ConfigError, match="batch_size is 0; it must be at least 1"):
        drawn_from.generate(1, batch_size=0)
    with pytest.raises(ConfigError, match="num_samples is -1; it must be at least 1"):
        next(drawn_from.stream(-1))
    with pytest.raises(ConfigError, match="batch_size is 0; it must be at least 1"):
        next(drawn_from.stream(1, batch_size=0))
    Drawing(guidance=1.0, prefix_noise=0.5).require_sound()


def test_one_value_for_all_stages_goes_to_those_that_take_it():
    drawing = Drawing(predictor=("analytic", "first_hitting", "remask"), steps=(9,), tokens_per_call=(2,), eta=0.3)
    plans = [(plan.predictor, plan.num_steps) for plan in drawing.plans(3)]
    assert plans == [(TweediePredictor(), 9), (FirstHittingPredictor(2), None), (RemaskPredictor(0.3), 9)]
    each = Drawing(predictor=("first_hitting",), tokens_per_call=(1, 2, None))
    assert [plan.predictor for plan in each.plans(3)] == [FirstHittingPredictor(count) for count in (1, 2, 1)]
    assert Drawing(predictor=("euler", "confidence"), steps=(7, None)).plans(2)[0].num_steps == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"predictor": FirstHittingPredictor(3)}, {"tokens_per_call": (3,)}),
        ({"predictor": TweediePredictor(), "steps": 5}, {"predictor": ("analytic",), "steps": (5,)}),
        (
            {
                "predictor": [TweediePredictor(), "first_hitting", SurestPredictor("entropy", 2)],
                "steps": [4, None, None],
            },
            {
                "predictor": ("analytic", "first_hitting", "entropy"),
                "steps": (4, None, None),
                "tokens_per_call": (None, None, 2),
            },
        ),
        ({"predictor": ["remask", RemaskPredictor()]}, {"predictor": ("remask", "remask"), "eta": 0.1}),
        ({"predictor": RemaskPredictor(0.4)}, {"predictor": ("remask",), "eta": 0.4}),
        ({"keywords": ["a"], "top_p": 0.5}, {"law": TokenLaw(top_p=0.5), "control": Control(keywords=("a",))}),
        ({}, {}),
    ],
)
def test_options_and_predictors_as_objects(options, expected):
    drawing = drawing_of_options(options)
    assert drawing == Drawing(**expected)
    given = options.get("predictor", "first_hitting")
    for plan, asked in zip(drawing.plans(drawing.num_entries), entries(given), strict=True):
        assert asked in (plan.predictor, plan.predictor.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictor": 3}, "predictor holds 3; it must be a name, euler, .*, or an object: EulerPredictor, "),
        ({"predictor": ["euler", FirstHittingPredictor]}, "predictor holds <class .*FirstHittingPredictor'>; it must"),
        (
            {"predictor": FirstHittingPredictor(), "tokens_per_call": 2},
            "tokens_per_call is 2, and a predictor has its own; leave tokens_per_call out",
        ),
        ({"predictor": RemaskPredictor(), "eta": 0.2}, r"eta is 0\.2, and a predictor has its own; leave eta out"),
        (
            {"predictor": [RemaskPredictor(0.3), "remask"]},
            r"remask has an eta of 0\.1 and 0\.3; give one for all stages",
        ),
    ],
)
def test_predictors_that_contradict_options(options, message):
    with pytest.raises(ConfigError, match=message):
        drawing_of_options(options)


def test_a_drawing_in_place_of_options(drawn_from):
    drawing = Drawing(predictor=("analytic",), steps=(5,), seed=1)
    one, other = drawn_from.generate(4, drawing), drawn_from.generate(4, predictor=TweediePredictor(), steps=5, seed=1)
    assert all(torch.equal(*pair) for pair in zip(one.ids, other.ids, strict=True))
    with pytest.raises(ConfigError, match="a drawing is given, and beside it seed, top_p; give only one of them"):
        drawn_from.generate(1, drawing, seed=3, top_p=0.5)
    with pytest.raises(TypeError, match="there is no option sed; there are predictor, steps, tokens_per_call, eta"):
        drawn_from.generate(1, sed=3)


def test_help_names_every_option():
    told = inspect.getdoc(Cascade.generate)
    assert [name for name in DrawingOptions.__annotations__ if f"\n    {name}: " not in told] == []


def test_drawing_of_some_stages() -> None:
    drawing = Drawing(
        predictor=("first_hitting", "remask", "tweedie"), steps=(None, 2, None), tokens_per_call=(4, None, None),
        eta=0.5, gaps_per_call=2, seed=3,
    )  # fmt: skip
    whole = {"gaps_per_call": 2, "seed": 3}
    assert drawing.of_stages(3, slice(1)) == Drawing(predictor=("first_hitting",), tokens_per_call=(4,), **whole)
    assert drawing.of_stages(3, slice(-1, None)) == Drawing(predictor=("analytic",), steps=(128,), **whole)
    assert drawing.of_stages(3, slice(2)) == Drawing(
        predictor=("first_hitting", "remask"), steps=(None, 2), tokens_per_call=(4, None), eta=0.5, **whole
    )


def test_steps_in_the_name_of_a_run():
    lengths = (8, 16, 40)
    assert Drawing(predictor=("analytic",)).amount_of_work(lengths) == "steps_128"
    assert Drawing(predictor=("euler",), steps=(5,)).amount_of_work(lengths) == "steps_5"
    assert Drawing().amount_of_work(lengths) == "calls_64"
    assert Drawing(tokens_per_call=(1, 3, 4)).amount_of_work(lengths) == "calls_24"
    mixed = Drawing(predictor=("analytic", "entropy", "euler"), steps=(4, None, 6))
    assert mixed.amount_of_work(lengths) == f"calls_{5 + 16 + 7}"


def test_a_drawing_is_stored_and_read():
    control = Control(pins=(Pin(2, "end", " x"), Pin(1, 3, "y")), given=GivenStage(stage=1, ids=(((1, 2),), ((3, 4),))))
    drawing = Drawing(predictor=("euler", "remask"), steps=(3, None), eta=0.2, law=TokenLaw(top_k=4), control=control)
    assert Drawing.from_dict(asdict(drawing)) == drawing
    assert drawing.described()["control"]["given"] == {"stage": 1, "texts": 2}
    assert Drawing.from_dict(Drawing().described()) == Drawing()


def test_settings_that_the_stages_refuse(drawn_from):
    with pytest.raises(ConfigError, match=r"guidance is 1\.0, and stage 2 was trained without prefix dropout"):
        drawn_from.require_drawable(Drawing(guidance=1.0))


@pytest.mark.parametrize("value", [1.0, 1.5, True, None, "1", [1], math.nan])
@without_type_checks()
def test_numbers_that_are_not_whole(drawn_from, value):
    for name in ("seed", "num_samples", "batch_size", "gaps_per_call"):
        if (name, value) == ("gaps_per_call", None):
            continue
        message = rf"{name} is {re.escape(repr(value))}; it must be a whole number"
        with pytest.raises(ConfigError, match=message):
            drawn_from.generate(**{"num_samples": 1, name: value})
    if value not in (None, [1]):
        for options in ({"steps": value, "predictor": "euler"}, {"tokens_per_call": value}, {"top_k": value}):
            name = next(iter(options))
            with pytest.raises(ConfigError, match=rf"{name} is {value!r}; it must be a whole number of at least 1"):
                drawn_from.generate(1, **options)


@pytest.mark.parametrize("value", [None, "0.5", [0.5]])
@without_type_checks()
def test_no_numbers(drawn_from, value):
    message = rf" is {re.escape(repr(value))}; it must be a number"
    for name in ("temperature", "top_p", "guidance", "prefix_noise"):
        with pytest.raises(ConfigError, match=name + message):
            drawn_from.generate(1, **{name: value})
    if value is not None:
        with pytest.raises(ConfigError, match="eta" + message):
            drawn_from.generate(1, predictor="remask", eta=value)


@without_type_checks()
def test_seeds_of_other_libraries(drawn_from):
    plain = drawn_from.generate(2, seed=3)
    for seed in (np.int64(3), np.array(3), torch.tensor(3)):
        assert all(map(torch.equal, plain.ids, drawn_from.generate(2, seed=seed).ids))
    assert drawn_from.generate(np.int64(2), seed=3, batch_size=np.int64(1)).final_texts == plain.final_texts


@pytest.mark.parametrize("kind", [np.float32, torch.tensor, Fraction])
@without_type_checks()
def test_numbers_of_other_libraries(drawn_from, kind):
    for options in ({"temperature": 0.5, "top_p": 0.75}, {"predictor": "remask", "eta": 0.5, "steps": 4}):
        plain = drawn_from.generate(2, **options).final_texts
        other = {name: kind(value) if isinstance(value, float) else value for name, value in options.items()}
        assert drawn_from.generate(2, **other).final_texts == plain
    assert drawing_of_options({"guidance": kind(0.5), "prefix_noise": kind(0.25)}) == Drawing(
        guidance=0.5, prefix_noise=0.25
    )


@without_type_checks()
def test_largest_temperature(drawn_from):
    assert len(drawn_from.generate(1, temperature=10**300)) == 1
    with pytest.raises(ConfigError, match=r"temperature is 1000+; it must be at least 0 and finite"):
        drawn_from.generate(1, temperature=10**400)
