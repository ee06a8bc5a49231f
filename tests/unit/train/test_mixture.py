"""One flat network for all fills of a placed cascade: every batch holds as many texts of every stage."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.data.dataset import StageDataset, StageMixture
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError, DryBatchError
from cascaded_dllm.train.dry_batch import try_one_batch
from cascaded_dllm.train.flops import mean_masked_share, training_flops
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.meter import StepMeter
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer
from tests.unit.train import in_processes
from tests.unit.train.conftest import LENGTHS, NUM_WINDOWS, VOCAB_SIZE, _model, _stage_arrays
from tests.unit.train.forked import together

BATCH_SIZE, NUM_KINDS = 12, 3


def trainer(*, accum: int = 1, batch_size: int = BATCH_SIZE, **network: Any) -> Trainer:
    return Trainer(
        _model(**network),
        Objective(AbsorbingProcess(VOCAB_SIZE), LogLinearSchedule(), 1e-2, halves="fill"),
        StageMixture.of_fills(_stage_arrays()),
        optim=OptimConfig(lr=1e-2, warmup=2),
        loop=LoopConfig(batch_size=batch_size, accum=accum, num_steps=4, ema_decay=0.9, seed=1),
        course={},
    )


def losses(trained: Trainer) -> list[float | None]:
    return [result.loss_nats_per_token for result in trained.steps()]


def test_kinds() -> None:
    mixture = StageMixture.of_fills(_stage_arrays())
    assert [part.target_length for part in mixture.parts] == [3, 7, 7]
    assert [part.num_free for part in mixture.parts] == [3, 4, 7]
    assert len(mixture) == NUM_WINDOWS
    single = StageDataset(_stage_arrays(), 2)
    assert single.parts == (single,)


def test_loss_is_the_mean_over_the_kinds() -> None:
    """By hand: a third of the sequences each, at the times of their numbers, and what is known is never masked."""
    found = next(trainer().steps()).loss_nats_per_token
    arrays, model, schedule = _stage_arrays(), _model(), LogLinearSchedule()
    objective = Objective(AbsorbingProcess(VOCAB_SIZE), schedule, 1e-2, halves="fill")
    windows = global_batch_indices(NUM_WINDOWS, BATCH_SIZE, 0, seed=1)
    total = 0.0
    for kind, (stage, known) in enumerate(((0, 0), (1, LENGTHS[0]), (1, 0))):
        index = torch.arange(kind, BATCH_SIZE, NUM_KINDS)
        target = torch.from_numpy(arrays.stages[stage][windows[index.numpy()]].astype(np.int64))
        places = torch.arange(known).repeat(len(index), 1)
        batch = Batch(target, target[:, :known], index, places=places)
        share = objective.loss(model, batch, draws=Draws(1, "train-noise"), step=0, global_batch_size=BATCH_SIZE)
        total += float(share.detach())
    assert found == pytest.approx(total / ((3 + 7 + 7) / 3), rel=1e-6)


def test_parts_of_a_batch_change_nothing() -> None:
    assert losses(trainer(accum=4)) == pytest.approx(losses(trainer()), abs=1e-6)


def test_every_part_holds_all_kinds_at_all_times() -> None:
    whole = trainer(accum=2, batch_size=24)
    parts = list(whole._parts())
    assert [part.target.shape for part in parts] == 2 * [(4, 3), (4, 7), (4, 7)]
    assert sorted(torch.cat([part.index for part in parts]).tolist()) == list(range(24))
    # Times fall along the batch: a part that had its beginning alone would see late times only.
    assert all(float(part.index.float().std()) > 5 for part in parts)


def test_costs() -> None:
    trained = trainer()
    meter = StepMeter(trained, peak_flops=1e9)
    result = next(trained.steps())
    assert result.tokens == 4 * (3 + 7 + 7)
    meter.add(replace(result, seconds=1.0))
    line = meter.line(result)
    assert line["token_forwards"] == 4 * (3 + 7 + 7)
    share = mean_masked_share(LogLinearSchedule(), 1e-2)
    flops = sum(
        training_flops(
            trained.model.config,
            batch_size=4,
            prefix_length=0,
            target_length=length,
            masked_share=share * free / length,
        )
        for length, free in ((3, 3), (7, 4), (7, 7))
    )
    assert line["mfu"] == pytest.approx(flops / 1e9)


def test_batch_that_does_not_divide_among_the_kinds() -> None:
    with pytest.raises(
        ConfigError, match=r"batch_size is 8, which .* the texts of 3 kinds .*; choose a multiple of 3$"
    ):
        trainer(batch_size=8)
    with pytest.raises(ConfigError, match=r"1 process and training\.accum=2; choose a multiple of 6"):
        trainer(batch_size=8, accum=2)


def test_rehearsal_takes_the_longest_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two kinds of 7 tokens it is the one of which more can be masked."""
    trained, seen = trainer(), []
    part_loss = trained._part_loss
    monkeypatch.setattr(trained, "_part_loss", lambda batch: seen.append(batch) or part_loss(batch))
    trained.rehearse()
    [batch] = seen
    assert batch.target.shape == (4, 7)
    assert batch.places is None


@pytest.mark.parametrize(
    ("batch_size", "remedy"),
    [(12, r"4 x \(0 \+ 7\) .* give training\.accum=2, which"), (3, r"1 x \(0 \+ 7\) .* give dtype=bfloat16")],
)
def test_short_of_memory_it_is_told_what_can_be(batch_size: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = trainer(batch_size=batch_size)

    def short(_: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(trained, "_part_loss", short)
    with pytest.raises(DryBatchError, match=remedy):
        try_one_batch(trained)


@pytest.mark.slow
def test_two_processes_do_what_one_does() -> None:
    alone = in_processes.mixture_losses(Group())
    for process in together(in_processes.in_the_group, in_processes.mixture_losses, number=2):
        assert process.keys() == {"ddp", "fsdp"}
        for found in process.values():
            assert found == pytest.approx(alone["single"], abs=1e-5)
