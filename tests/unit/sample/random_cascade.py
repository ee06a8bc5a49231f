"""Cascades of random weights, for tests of what is done with what they draw."""

from collections.abc import Sequence

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model


def random_cascade(lengths: Sequence[int], *, vocab_size: int) -> Cascade:
    """Stages in the normalized reading, whose steps call the network for a part of a batch only.

    Args:
        lengths: tokens of each.
        vocab_size: of the tokenizer; few more than the bytes, so that texts hold parts of characters.
    """
    tokenizer = Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=vocab_size)
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size, seed=seed, parameterization="normalized"),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
        )
        for seed, length in enumerate(lengths, start=1)
    )
    return Cascade(stages, tokenizer, tuple(lengths))
