"""Options of `cdllm sample` as text, what they mean, and what is no such option."""

from inspect import signature

import pytest

from cascaded_dllm.cli.evaluate_gap import gap
from cascaded_dllm.cli.sample import NOT_SETTINGS, sample
from cascaded_dllm.cli.sample_drawing import (
    drawing_of,
    options_of,
    parse_keywords,
    parse_numbers,
    parse_pins,
    read_options,
)
from cascaded_dllm.cli.sample_options import SampleOptions
from cascaded_dllm.demo.text_request import TextRequest
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.control import Control, Pin
from cascaded_dllm.sample.drawing import Drawing, DrawingOptions
from cascaded_dllm.sample.token_law import TokenLaw
from cascaded_dllm.study_config import DrawingSettings


def test_what_is_given_is_found_again() -> None:
    given = {
        "predictor": ("analytic", "entropy"),
        "steps": (3, None),
        "tokens_per_call": (None, 2),
        "eta": None,
        "gaps_per_call": 2,
        "seed": 4,
        "guidance": 0.5,
        "prefix_noise": 0.1,
        "temperature": 0.9,
        "top_k": 5,
        "top_p": 0.8,
        "keywords": ("a", "b"),
        "outline": None,
        "pin": (Pin(1, "end", "x"),),
        "require_coverage": True,
    }
    drawing = drawing_of(given)
    assert drawing.law == TokenLaw(temperature=0.9, top_k=5, top_p=0.8)
    assert drawing.control == Control(keywords=("a", "b"), pins=(Pin(1, "end", "x"),), require_coverage=True)
    found = options_of(drawing)
    assert {name: found[name] for name in given} == given
    assert drawing_of({}) == Drawing()
    # Every setting of a drawing has an option, but for the texts that a file holds.
    names = {*Drawing.__dataclass_fields__, *TokenLaw.__dataclass_fields__, *Control.__dataclass_fields__}
    assert {"pins" if name == "pin" else name for name in given} == names - {"law", "control", "given"}


def test_what_is_handed_on_by_name_is_called_as_an_option() -> None:
    """Of another name it would be passed over."""
    of_drawing = {*DrawingOptions.__annotations__, "pin"} - {"pinned", "given"}
    of_run = {*SampleOptions.__dataclass_fields__} - {"drawing"}
    assert {*signature(sample).parameters} == of_drawing | of_run | {*NOT_SETTINGS}
    assert of_drawing - {*signature(gap).parameters} == {"keywords", "outline", "pin", "require_coverage"}
    assert {*TextRequest.__dataclass_fields__} - of_drawing == {"known", "text", "locked"}
    assert {*DrawingSettings.__dataclass_fields__} - of_drawing == {"name", "num_samples", "batch_size"}


def test_what_is_typed() -> None:
    typed = {
        "predictor": "analytic, first_hitting",
        "steps": "32, -,64",
        "tokens_per_call": "-1",
        "keywords": " storm, the keeper ,boat",
        "pin": ["3:start:The: storm", "1:12: x", "2:end:\n"],
        "lengths": "4, 8",
        "judge": "somebody/judge",
        "seed": 0,
        "compile": False,
    }
    assert read_options({**typed, "eta": None, "stage": [], "outline": None}) == {
        **typed,
        "predictor": ("analytic", "first_hitting"),
        "steps": (32, None, 64),
        "tokens_per_call": (-1,),
        "keywords": ("storm", "the keeper", "boat"),
        "pin": (Pin(3, "start", "The: storm"), Pin(1, 12, " x"), Pin(2, "end", "\n")),
        "lengths": (4, 8),
    }


def test_what_is_no_list() -> None:
    with pytest.raises(ConfigError, match=r"--steps is '3,x'; it must be a whole number, or one for each stage with"):
        parse_numbers("--steps", "3,x")
    with pytest.raises(ConfigError, match="--keywords is empty; give words with commas"):
        parse_keywords(" ")


@pytest.mark.parametrize("text", ["storm", "3:storm", "3:middle:x", "x:0:y", "3:-1:y", ":0:y"])
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(ConfigError, match="it must be STAGE:POSITION:TEXT, POSITION a number from 0 on, start or end"):
        parse_pins([text])
