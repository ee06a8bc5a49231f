"""A cascade of two stages of random weights, for tests of what is done with what it draws."""

import pytest

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model

LENGTHS = (3, 6)


@pytest.fixture(scope="module")
def drawn_from() -> Cascade:
    """Stages of 3 and 6 tokens in the normalized reading, whose steps call the network for a part of a batch only."""
    tokenizer = Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=270)
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size, seed=seed, parameterization="normalized"),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
        )
        for seed, length in zip((1, 2), LENGTHS, strict=True)
    )
    return Cascade(stages, tokenizer, LENGTHS)
