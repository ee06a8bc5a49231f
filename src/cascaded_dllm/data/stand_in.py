"""Random windows in memory, for work that depends only on the sizes of the data and should not wait for it."""

import numpy as np

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.rng import numpy_generator

_NUM_WINDOWS = 64
"""Larger batches repeat them."""


def stand_in(held: Settings, spec: CascadeSpec, *, packing: str, unique: bool) -> StageArrays:
    """Windows of random tokens with stages at random positions, of the shapes that `StageArrays.build` makes.

    Args:
        held: settings of the dataset that they replace.
        spec: the stage lengths.
        packing: of its windows.
        unique: whether its stages keep a token id once.
    """
    generator = numpy_generator(0, "stand-in")
    windows = generator.integers(0, held.vocab_size, (_NUM_WINDOWS, spec.window_length), dtype=np.int32)
    order = generator.permuted(np.tile(np.arange(spec.window_length, dtype=np.int32), (_NUM_WINDOWS, 1)), axis=1)
    positions = tuple(np.sort(order[:, :length], axis=1) for length in spec.stage_lengths[:-1])
    return StageArrays(
        spec=spec,
        packing=packing,
        method=held.method,
        eos_id=held.eos_id,
        vocab_size=held.vocab_size,
        tokenizer=held.tokenizer,
        fingerprint="stand-in",
        dropped={},
        stages=(*(np.take_along_axis(windows, kept, axis=1) for kept in positions), windows),
        positions=positions,
        unique=unique,
    )
