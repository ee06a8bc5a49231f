"""Small networks are called on one thread, large ones on all that there are, and nobody else notices."""

from collections.abc import Iterator

import pytest
import torch

from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample import threads
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.unit.model.tiny import tiny_model

LENGTHS = (3, 5)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    tokenizer = Tokenizer.train(["the cat saw the dog"] * 3, vocab_size=270)
    stages = [
        StageSampler(
            tiny_model(vocab_size=tokenizer.vocab_size),
            AbsorbingProcess(tokenizer.vocab_size),
            LogLinearSchedule(),
            length,
            prefix_length=before,
        )
        for before, length in zip((0, *LENGTHS), LENGTHS, strict=False)
    ]
    return Cascade(tuple(stages), tokenizer, LENGTHS)


def seen(cascade: Cascade, monkeypatch: pytest.MonkeyPatch, num_texts: int = 2) -> tuple[set[int], set[int]]:
    """Threads at the calls of the networks, and wherever states are looked at."""
    inside, outside = set(), set()
    states = ScoreModel.states

    def spy(self: ScoreModel, *arguments: object, **settings: object) -> object:
        inside.add(torch.get_num_threads())
        return states(self, *arguments, **settings)

    monkeypatch.setattr(ScoreModel, "states", spy)
    for _ in cascade.stream(num_texts, batch_size=num_texts):
        outside.add(torch.get_num_threads())
    return inside, outside


@pytest.mark.usefixtures("two_threads")
def test_small_calls_are_for_one_thread(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(cascade, monkeypatch) == ({1}, {2})
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_large_calls_are_for_all(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cascade.stages[1].model
    embedding, output = model.vocab_embed.embedding.numel(), model.output_layer.linear.weight.numel()
    trunk = sum(parameter.numel() for parameter in model.parameters()) - embedding - output
    # A token is embedded without a product, and only what is written goes through the output layer.
    monkeypatch.setattr(threads, "_OPERATIONS_A_THREAD", 2.0 * (trunk * sum(LENGTHS) + output))
    assert [threads.fitting_threads(cascade.stages, number) for number in (1, 2, 99)] == [1, 2, 2]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 99)
        assert [threads.fitting_threads(cascade.stages, number) for number in (1, 10, 50, 200)] == [1, 10, 50, 99]
    assert seen(cascade, monkeypatch, num_texts=1) == ({1}, {2})
    assert seen(cascade, monkeypatch, num_texts=2) == ({2}, {2})


@pytest.mark.usefixtures("two_threads")
def test_who_says_the_number_gets_it(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert seen(cascade, monkeypatch) == ({2}, {2})


@pytest.mark.usefixtures("two_threads")
def test_a_call_that_fails_changes_nothing(cascade: Cascade, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(ScoreModel, "states", fails)
    with pytest.raises(MemoryError, match="no memory"):
        cascade.generate(1)
    assert torch.get_num_threads() == 2
