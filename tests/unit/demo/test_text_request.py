"""What a page asks for becomes the drawing that a program would ask for."""

from typing import Any

import pytest

from cascaded_dllm.demo.text_request import TextRequest
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.token_law import TokenLaw

FIRST, SECOND = (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6, 7, 8)


def drawing(cascade: Cascade, **asked: Any) -> Drawing:
    return TextRequest.parse(asked).drawing(cascade)


def test_nothing_is_asked_by_default(cascade: Cascade) -> None:
    assert drawing(cascade) == Drawing()


def test_settings(cascade: Cascade) -> None:
    asked = {"seed": 3, "predictor": "remask", "steps": 7, "temperature": 1, "top_k": 4, "top_p": 0.5, "guidance": 2}
    assert drawing(cascade, **asked) == Drawing(
        predictor=("remask",), steps=(7,), seed=3, law=TokenLaw(temperature=1.0, top_k=4, top_p=0.5), guidance=2.0
    )
    assert drawing(cascade, tokens_per_call=2, keywords=["a", "b c"], require_coverage=True) == Drawing(
        tokens_per_call=(2,), control=Control(keywords=("a", "b c"), require_coverage=True)
    )


def test_stages_that_stay(cascade: Cascade) -> None:
    control = drawing(cascade, known=[FIRST, SECOND]).control
    assert control == Control(given=GivenStage(stage=2, ids=((FIRST, SECOND),)))


def test_words_that_stay(cascade: Cascade) -> None:
    locked = [{"position": 2, "ids": [7, 8]}, {"position": 0, "ids": [9]}]
    control = drawing(cascade, known=[FIRST], locked=locked).control
    assert control == Control(given=GivenStage(stage=1, ids=((FIRST,),)), pins=(Pin(2, 2, (7, 8)), Pin(2, 0, (9,))))
    assert drawing(cascade, locked=locked[1:]).control == Control(pins=(Pin(1, 0, (9,)),))


def test_an_edited_text(cascade: Cascade) -> None:
    """As it is where stages follow and it fills its own, or is of the first; or else as words to be written around."""
    ids = tuple(cascade.tokenizer.encode(" the cat saw").ids)
    assert len(ids) < len(FIRST)
    assert drawing(cascade, text=" the cat saw").control == Control(given=GivenStage(stage=1, ids=((ids,),)))
    whole = cascade.tokenizer.decode(SECOND)
    assert tuple(cascade.tokenizer.encode(whole).ids) == SECOND
    assert drawing(cascade, known=[FIRST], text=whole).control == Control(
        given=GivenStage(stage=2, ids=((FIRST, SECOND),))
    )
    around = Control(given=GivenStage(stage=1, ids=((FIRST,),)), outline=" the cat saw")
    assert drawing(cascade, known=[FIRST], text=" the cat saw").control == around
    last = Control(given=GivenStage(stage=2, ids=((FIRST, SECOND),)), outline="the cat ")
    assert drawing(cascade, known=[FIRST, SECOND], text="the cat<|endoftext|>").control == last


def test_a_flat_model_is_written_around(cascade: Cascade) -> None:
    flat = Cascade(cascade.stages[:1], cascade.tokenizer, (5,))
    assert drawing(flat, text=" the cat").control == Control(outline=" the cat")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keyword": ["a"]}, "the key keyword is unknown; did you mean keywords"),
        ({"keywords": "a"}, "keywords is 'a'; it must be a list"),
        ({"known": [[1.5]]}, "known is 1.5; it must be of type int"),
        ({"locked": [{"position": 1}]}, r"the key locked\[0\].ids is missing"),
        ({"seed": None}, "seed is null; it must be of type int"),
        ({"keywords": ["a"], "known": [FIRST]}, "keywords and from_stage are given together"),
    ],
)
def test_what_cannot_be_asked(cascade: Cascade, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawing(cascade, **asked)
