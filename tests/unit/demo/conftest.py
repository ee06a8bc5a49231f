"""A cascade of random weights whose texts hold everything that a page can be given: parts of characters, and ends."""

import pytest

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model

LENGTHS = (5, 8, 12)


@pytest.fixture(scope="session")
def cascade() -> Cascade:
    tokenizer = Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=290)
    stages = tuple(
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size, seed=seed, parameterization="normalized"),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
        )
        for seed, length in enumerate(LENGTHS, start=1)
    )
    return Cascade(stages, tokenizer, LENGTHS)
