"""What a text costs to write."""

from collections.abc import Sequence

from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.sampler import StageSampler


def token_forwards(stages: Sequence[StageSampler], nfe: Sequence[float], drawing: Drawing) -> float:
    """Positions computed for one text: the target in every call, the prefix in every call or, if kept, once.

    With guidance the empty prefix is kept as well. A placed stage has no prefix, and computes its gaps. A stage without
    a call computes nothing.

    Args:
        stages: of the cascade, all of them.
        nfe: network calls of every stage, for one text.
        drawing: how it is drawn.
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
