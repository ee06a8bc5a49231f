"""One batch is tried before the run begins: it finds what would fail, names the remedy, and leaves nothing behind."""

import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch

from cascaded_dllm.errors import DryBatchError
from cascaded_dllm.train import dry_batch
from cascaded_dllm.train.dry_batch import try_one_batch
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.run_events import Resumed
from cascaded_dllm.train.trainer import Trainer


def state(trainer):
    """Everything that training could change, bit for bit."""
    return {
        "weights": [parameter.detach().clone() for parameter in trainer.model.parameters()],
        "gradients": [parameter.grad for parameter in trainer.model.parameters()],
        "average": [value.clone() for value in trainer.ema.state_dict().values()],
        "moments": [
            value.clone() for entry in trainer.optimizer.state_dict()["state"].values() for value in entry.values()
        ],
        "groups": str(trainer.optimizer.state_dict()["param_groups"]),
        "counts": [torch.tensor([trainer.step, trainer.ema.num_updates])],
        "global generator": [torch.get_rng_state()],
    }


def assert_same(first, second):
    for key, value in first.items():
        if isinstance(value, str):
            assert value == second[key]
            continue
        for one, other in zip(value, second[key], strict=True):
            assert (one is None) is (other is None), key
            assert one is None or torch.equal(one, other), key


@pytest.mark.parametrize("steps_done", [0, 2])
@pytest.mark.parametrize("model", [{}, {"dropout": 0.1}], ids=["plain", "dropout"])
def test_nothing_is_changed(make_trainer, model, steps_done):
    tried, other = (make_trainer(model=model, accum=2) for _ in range(2))
    for trainer in (tried, other):
        list(itertools.islice(trainer.steps(), steps_done))
        trainer.optimizer.zero_grad(set_to_none=True)
    before = state(tried)
    try_one_batch(tried)
    assert_same(before, state(tried))
    losses = [[result.loss_nats_per_token for result in trainer.steps()] for trainer in (tried, other)]
    assert losses[0] == losses[1]
    assert_same(state(tried), state(other))


@pytest.mark.parametrize("accum", [1, 2, 8])
def test_the_part_with_the_most_noise_is_tried(make_trainer, monkeypatch, accum):
    """Of a global batch of 8 with evenly spread times, every accum-th from the largest on; no part is worse."""
    trainer, seen = make_trainer(accum=accum, num_steps=12), []
    times = Objective.times

    def spy(self, index, *arguments, **others):
        t = times(self, index, *arguments, **others)
        seen.append(t)
        return t

    monkeypatch.setattr(Objective, "times", spy)
    try_one_batch(trainer)
    tried = seen[-1]
    assert len(tried) == 8 // accum
    everyone = seen[0]
    assert tried.tolist() == everyone.sort(descending=True).values[::accum].tolist()
    list(trainer.steps())
    largest = max(float(t.mean()) for t in seen[2:])
    # The places of the times are the same from step to step but for one shift, of at most an eighth.
    assert float(tried.mean()) > largest - 1 / 8


@pytest.mark.parametrize("steps_done", [0, 1])
def test_memory_of_the_optimizer_is_taken_while_it_has_none(make_trainer, steps_done):
    """Twice the weights, which it will need from the first step on."""
    trainer = make_trainer()
    list(itertools.islice(trainer.steps(), steps_done))
    shapes = [parameter.shape for parameter in trainer.model.parameters()]
    with mock.patch.object(torch, "empty_like", side_effect=torch.empty_like) as empty_like:
        trainer.rehearse()
    taken = [call.args[0].shape for call in empty_like.call_args_list if isinstance(call.args[0], torch.nn.Parameter)]
    assert taken.count(shapes[0]) >= (2 if steps_done == 0 else 0)
    assert (len(taken) >= 2 * len(shapes)) is (steps_done == 0)


OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total of 78 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB)"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("device", OUT_OF_MEMORY)
def test_short_of_memory(make_trainer, monkeypatch, device):
    trainer = make_trainer(accum=2)
    monkeypatch.setattr(Trainer, "rehearse", mock.Mock(side_effect=OUT_OF_MEMORY[device]))
    message = (
        r"there is no room for 4 x \(3 \+ 7\) tokens in the memory of cpu, beside the network and its optimizer \("
        r".*\); give training\.accum=4, which changes no number, or dtype=bfloat16, or a smaller training\.batch_size$"
    )
    with pytest.raises(DryBatchError, match=message):
        try_one_batch(trainer)


def test_short_of_memory_with_nothing_left_to_divide(make_trainer, monkeypatch):
    trainer = make_trainer(batch_size=1)
    trainer.model.compute_dtype = torch.bfloat16
    monkeypatch.setattr(Trainer, "rehearse", mock.Mock(side_effect=OUT_OF_MEMORY["cuda"]))
    with pytest.raises(DryBatchError, match=r"no room for 1 x .*MiB.*\); give a smaller model$"):
        try_one_batch(trainer)


def test_more_than_the_memory_of_the_machine(make_trainer, monkeypatch):
    """The system would give it out all the same, and then kill the process."""
    trainer = make_trainer(accum=2, model={"num_blocks": 3})
    config, size = trainer.model.config, sum(parameter.nbytes for parameter in trainer.model.parameters())
    needed = 5 * size + 4 * (4 * 10 * 10 * config.hidden_size * 2)
    monkeypatch.setattr(dry_batch, "memory_limit", lambda: needed - 1)
    message = (
        r"no room for 4 x \(3 \+ 7\) .* \(together 0.0 GB at least, of 0.0\); give training\.accum=4, which changes"
    )
    with pytest.raises(DryBatchError, match=message):
        try_one_batch(trainer)
    monkeypatch.setattr(dry_batch, "memory_limit", lambda: needed)
    try_one_batch(trainer)
    # Four parts of two would not do either; of one sequence, eight may.
    monkeypatch.setattr(dry_batch, "memory_limit", lambda: 5 * size + (needed - 5 * size) // 4)
    with pytest.raises(DryBatchError, match=r"no room for 4 x .*; give training\.accum=8, which changes"):
        try_one_batch(trainer)
    # No part is small enough for it.
    monkeypatch.setattr(dry_batch, "memory_limit", lambda: 5 * size + 1)
    with pytest.raises(DryBatchError, match=r"no room for 4 x .*; give dtype=bfloat16, or a smaller training\.batch"):
        try_one_batch(trainer)
    # No batch is small enough for it.
    monkeypatch.setattr(dry_batch, "memory_limit", lambda: 5 * size - 1)
    with pytest.raises(
        DryBatchError, match=r"no room for the network .* of cpu \(together 0.0 GB .*; give a smaller m"
    ):
        try_one_batch(trainer)


def test_the_least_memory_of_less(make_trainer, monkeypatch):
    """In bfloat16, of a placed stage whose fill is frozen, of frozen weights, and of weights split among processes."""
    trainer = make_trainer(model={"num_blocks": 3})
    weights = list(trainer.model.parameters())
    size = sum(parameter.nbytes for parameter in weights)
    kept = dry_batch._kept_bytes(trainer)
    trainer.model.compute_dtype = torch.bfloat16
    assert dry_batch._kept_bytes(trainer) == kept // 2 > 0
    monkeypatch.setattr(trainer, "objective", replace(trainer.objective, halves="layout"))
    assert dry_batch._kept_bytes(trainer) == 0
    weights[0].requires_grad_(False)
    assert dry_batch._state_bytes(trainer) == 5 * (size - weights[0].nbytes)
    split = mock.Mock(group=mock.Mock(size=2), storage=mock.Mock(is_split=True))
    monkeypatch.setattr(type(trainer), "group", split.group)
    monkeypatch.setattr(trainer, "parallel", split)
    assert dry_batch._state_bytes(trainer) == 5 * (size - weights[0].nbytes) // 2


def test_data_that_does_not_fit_the_network(make_trainer, monkeypatch):
    """A token that the network does not have."""
    trainer = make_trainer()
    batch = trainer.dataset.batch

    def other_tokens(indices):
        prefix, target = batch(indices)
        return prefix, target + 50

    monkeypatch.setattr(trainer.dataset, "batch", other_tokens)
    with pytest.raises(
        DryBatchError, match=r"a first batch cannot be computed \(.*\): the data and the network do not"
    ):
        try_one_batch(trainer)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_run_tries_before_it_begins(make_run, monkeypatch):
    """Nothing is logged and no checkpoint is written; with other settings the same folder takes the run."""
    run = make_run()
    monkeypatch.setattr(Trainer, "rehearse", mock.Mock(side_effect=OUT_OF_MEMORY["cuda"]))
    with pytest.raises(DryBatchError, match="there is no room for"):
        list(run.events())
    assert not (run.folder / "checkpoints").exists()
    assert not (run.folder / "metrics.jsonl").exists()
    monkeypatch.undo()
    assert next(make_run().events()).step == 1


def test_a_finished_run_tries_nothing(make_run, monkeypatch):
    list(make_run().events())
    monkeypatch.setattr(Trainer, "rehearse", mock.Mock(side_effect=OUT_OF_MEMORY["cuda"]))
    assert list(make_run().events()) == [Resumed(6, [])]
