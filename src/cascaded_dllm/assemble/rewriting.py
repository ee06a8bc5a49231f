"""The cost of prefixes that earlier stages rewrite, computed from the settings of these stages."""

from collections.abc import Sequence
from typing import NamedTuple

from cascaded_dllm.config_groups import GeneratedPrefixSettings
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import Schedule
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.sample.expected_calls import expected_calls
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import T_END
from cascaded_dllm.train.flops import writing_flops
from cascaded_dllm.train.prefixes import WritingCost


class Writer(NamedTuple):
    """A stage that rewrites.

    Attributes:
        model: its network.
        schedule: of its noise.
        length: number of tokens that it writes.
        prefix_length: number of tokens in its prefix.
    """

    model: ScoreModelConfig
    schedule: Schedule
    length: int
    prefix_length: int


def rewriting_cost(writers: Sequence[Writer], settings: GeneratedPrefixSettings) -> WritingCost:
    """The average cost of one rewritten prefix, forward only, counted like a text in `cost.token_forwards`.

    Args:
        writers: the stages that rewrite, one after another.
        settings: how they rewrite.
    """
    token_forwards = flops = 0.0
    for model, schedule, length, prefix_length in writers:
        calls, rows = expected_calls(
            process_from_name(model.process, model.vocab_size),
            schedule,
            length=length,
            is_normalized=model.parameterization == "normalized",
            predictor=predictor_from_name(settings.predictor),
            num_steps=settings.num_steps,
            level=settings.level,
            t_end=T_END,
        )
        is_joint = model.prefix_attention == "joint"
        token_forwards += calls * length + prefix_length * (calls if is_joint else 1)
        flops += writing_flops(model, calls=calls, rows=rows, prefix_length=prefix_length, target_length=length)
    return WritingCost(token_forwards, flops)
