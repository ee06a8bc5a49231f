"""How many CPU threads take part in the calls of a network."""

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch

from cascaded_dllm.sample.sampler import StageSampler

_OPERATIONS_A_THREAD = 1e9
"""Operations of a call for which another thread pays off. Threads wait for each other at every matrix product, and for
anything else that runs on their cores: a call of some milliseconds can take ten times as long on two threads as on
one."""


def fitting_threads(stages: Sequence[StageSampler], num_texts: int) -> int | None:
    """The number of threads that pays off for the largest call of these stages, at most as many as PyTorch has now.

    None, which leaves the number as it is, if the networks are not on a CPU or OMP_NUM_THREADS is set.

    Args:
        stages: stages of a cascade.
        num_texts: texts that are written together.
    """
    if stages[0].model.device.type != "cpu" or os.environ.get("OMP_NUM_THREADS"):
        return None
    operations = num_texts * max(map(_operations, stages))
    return max(1, min(torch.get_num_threads(), int(operations / _OPERATIONS_A_THREAD)))


def _operations(stage: StageSampler) -> int:
    """Operations of a call for one text of which one token is written."""
    network, num_positions = stage.model, stage.length + (stage.prefix_length or 0)
    output = network.output_layer.linear.weight.numel()
    trunk = sum(map(torch.numel, network.parameters())) - output - network.vocab_embed.embedding.numel()
    return 2 * (trunk * num_positions + output)


@contextlib.contextmanager
def on_threads(number: int | None) -> Iterator[None]:
    """Sets the number of threads inside the block, and restores it afterwards; None changes nothing."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
