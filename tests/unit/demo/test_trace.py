"""Frames say of every state all that it holds."""

import json

import pytest
import torch

from cascaded_dllm.demo.trace import END, MASKED, Trace
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.control import GivenStage
from cascaded_dllm.sample.samples import CascadeState
from cascaded_dllm.sample.state import SamplerState


def test_frames_are_the_states(cascade: Cascade) -> None:
    states = list(cascade.stream(1, seed=4, require_coverage=True))
    trace = Trace(cascade.tokenizer)
    frames = [trace.frame(seen) for seen in states]
    assert json.loads(json.dumps(frames)) == [{**f, "pieces": [list(p) for p in f["pieces"]]} for f in frames]
    for seen, frame in zip(states, frames, strict=True):
        assert (frame["stage"], frame["step"], frame["steps"]) == (seen.stage, seen.state.step, seen.state.num_steps)
        ids = [token for _, _, of_piece in frame["pieces"] for token in of_piece]
        assert ids == seen.state.xt[0].tolist()
        for text, origin, of_piece in frame["pieces"]:
            is_masked, is_end = (
                set(of_piece) == {token} for token in (cascade.tokenizer.mask_id, cascade.tokenizer.eos_id)
            )
            assert (origin == MASKED) == is_masked
            assert (origin == END) == is_end
            assert text == ("" if origin in (MASKED, END) else cascade.tokenizer.decode(of_piece))
            assert origin <= seen.stage
    samples = cascade.generate(1, seed=4, require_coverage=True)
    ending = trace.ending(1.234)
    assert ending == {"text": samples.final_texts[0].strip(), "calls": round(sum(samples.nfe), 2), "seconds": 1.23}
    found = [origin for _, origin, of_piece in frames[-1]["pieces"] for _ in of_piece]
    expected = samples.provenance(0)[-1]
    assert [one for one, other in zip(expected, found, strict=True) if other > 0] == [o for o in found if o > 0]


def test_characters_are_not_torn(cascade: Cascade) -> None:
    ids = [*cascade.tokenizer.encode(" the é").ids, cascade.tokenizer.eos_id, cascade.tokenizer.mask_id]
    state = SamplerState(torch.tensor([ids]), 1, 2, 1.0)
    pieces = Trace(cascade.tokenizer).frame(CascadeState(1, 0, state))["pieces"]
    assert [text for text, _, _ in pieces][-3:] == ["é", "", ""]
    assert [origin for _, origin, _ in pieces][-3:] == [1, END, MASKED]
    assert len(pieces[-3][2]) == 2


@pytest.mark.parametrize("first", [1, 2])
def test_stages_that_are_given(cascade: Cascade, first: int) -> None:
    """A given stage is one frame without a step; what a later one kept of it is seen, also if it is the first known."""
    whole = cascade.generate(1, seed=2).given(2)
    given = GivenStage(stage=2, ids=tuple(text[first - 1 :] for text in whole.ids))
    trace = Trace(cascade.tokenizer)
    frames = [trace.frame(seen) for seen in cascade.stream(1, given=given)]
    assert [(frame["stage"], frame["steps"]) for frame in frames if frame["steps"] == 0] == [
        (stage, 0) for stage in range(first, 3)
    ]
    assert {origin for frame in frames for _, origin, _ in frame["pieces"] if origin > 0} <= set(range(first, 4))
