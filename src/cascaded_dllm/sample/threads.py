"""How many threads of a processor take part in the calls of a network."""

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch

from cascaded_dllm.sample.sampler import StageSampler

_OPERATIONS_A_THREAD = 1e9
"""Of a call. Threads wait for each other at every product, and where anything else runs on their cores they wait for
that too: the call of a network that is done in milliseconds takes ten times as long on two threads as on one."""


def fitting_threads(stages: Sequence[StageSampler], num_texts: int) -> int | None:
    """So many threads are worth while for the largest call of these stages; None where that is not ours to say.

    It is not where the networks are on no processor, or whoever started the program has said it by OMP_NUM_THREADS.

    Args:
        stages: of a cascade.
        num_texts: that are written together.
    """
    if stages[0].model.device.type != "cpu" or os.environ.get("OMP_NUM_THREADS"):
        return None
    operations = num_texts * max(map(_operations, stages))
    return max(1, min(torch.get_num_threads(), int(operations / _OPERATIONS_A_THREAD)))


def _operations(stage: StageSampler) -> int:
    """Of a call for one text, of which a token is written."""
    network, num_positions = stage.model, stage.length + (stage.prefix_length or 0)
    output = network.output_layer.linear.weight.numel()
    trunk = sum(map(torch.numel, network.parameters())) - output - network.vocab_embed.embedding.numel()
    return 2 * (trunk * num_positions + output)


@contextlib.contextmanager
def on_threads(number: int | None) -> Iterator[None]:
    """So many threads inside the block, and as many as before behind it; None changes nothing."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
