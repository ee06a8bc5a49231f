import pytest
import torch

from cascaded_dllm.cli.show import story_lines, written_by
from cascaded_dllm.sample.cascade import Cascade, CascadeSamples
from cascaded_dllm.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([[5, 6]], [[1, 1]]),
        ([[5, 6], [5, 9, 6]], [[1, 1], [1, 2, 1]]),
        # What stage 3 takes over from stage 2 keeps the stage it was first written in.
        ([[5], [4, 5], [3, 4, 5, 7]], [[1], [2, 1], [3, 2, 1, 3]]),
        # A token that a later stage dropped and wrote again is its own.
        ([[5, 6], [7, 7], [5, 7]], [[1, 1], [2, 2], [3, 2]]),
        # Order counts: only one of two exchanged tokens can have stayed.
        ([[1, 2], [2, 1]], [[1, 1], [2, 1]]),
        # Two copies, of which one was there before.
        ([[8], [8, 8]], [[1], [1, 2]]),
        ([[], [3]], [[], [2]]),
        ([[3], []], [[1], []]),
    ],
)
def test_stage_that_wrote_a_token(stages, expected):
    assert written_by(stages) == expected


def test_nested_stages_of_any_number():
    stages = [list(range(0, 16, step)) for step in (8, 4, 2, 1)]
    origins = written_by(stages)
    assert origins[-1] == [1, 4, 3, 4, 2, 4, 3, 4, 1, 4, 3, 4, 2, 4, 3, 4]


def test_lines_show_every_stage_without_end_of_text():
    tokenizer = Tokenizer.train(["The fox found a key."], 400)
    cascade = Cascade((), tokenizer, ())
    whole, eos = tokenizer.encode("The fox found a key.").ids, tokenizer.eos_id
    short = [whole[0], whole[-1]]
    samples = CascadeSamples(
        ids=(torch.tensor([short, short]), torch.tensor([whole, [eos] * len(whole)])),
        texts=(["", ""], ["", ""]),
        nfe=(1.0, 1.0),
        token_forwards=1,
    )
    lines = story_lines(cascade, samples, 0)
    assert lines.plain == f"  1  {tokenizer.decode(short)}\n  2  The fox found a key.\n"
    styles = {lines.plain[span.start : span.end]: span.style for span in lines.spans}
    assert styles[tokenizer.decode(whole[:1])] == "bold yellow"
    assert styles[tokenizer.decode(whole[1:2])] == "cyan"
    assert story_lines(cascade, samples, 1).plain.endswith("  2  \n")
