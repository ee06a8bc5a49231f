"""The cost of writing a text."""

from collections.abc import Sequence

from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.sampler import StageSampler


def token_forwards(stages: Sequence[StageSampler], nfe: Sequence[float], drawing: Drawing) -> float:
    """Positions that go through the networks for one text.

    The target counts in every call. The prefix counts in every call with `joint` attention, else once, and with
    guidance once more for the empty prefix. A placed stage has no prefix, but its layout counts. A stage without calls
    counts nothing.

    Args:
        stages: all stages of the cascade.
        nfe: network calls of every stage, for one text.
        drawing: how the text is drawn.
    """
    num_kept = 1 if drawing.guidance == 0 else 2
    total = 0.0
    for stage, before, calls in zip(stages, (None, *stages[:-1]), nfe, strict=True):
        if calls == 0:
            continue
        prefix = 0 if before is None or stage.is_placed else before.length
        total += calls * stage.length + stage.layout_forwards(drawing.gaps_per_call or 1)
        total += prefix * (calls if stage.model.config.prefix_attention == "joint" else num_kept)
    return total
