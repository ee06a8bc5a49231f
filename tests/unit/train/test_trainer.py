import itertools
import math

import numpy as np
import pytest
import torch

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.diffusion.fused_loss import PLAIN_EXECUTION, LossExecution
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import CheckpointError, ConfigError, NonFiniteError
from cascaded_dllm.train import objective
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.execution import Execution
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import require_divisible


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def moments(trainer):
    return {
        (index, name): value.clone()
        for index, entry in trainer.optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"training\.batch_size is 0; it must be at least 1"),
        ({"accum": 0}, r"training\.accum is 0; it must be at least 1"),
        ({"num_steps": -3}, r"training\.num_steps is -3; it must be at least 1"),
        ({"accum": 3}, r"training\.accum is 3; it must divide training\.batch_size, 8"),
        ({"ema_decay": 1.0}, r"training\.ema \(ema_decay\) is 1\.0; it must be at least 0 and less than 1"),
        ({"ema_decay": math.nan}, r"training\.ema \(ema_decay\) is nan"),
    ],
)
def test_settings_out_of_range(make_trainer, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(**changes)


def test_batch_that_does_not_divide_among_processes(make_trainer):
    loop = make_trainer(batch_size=12, accum=2).loop
    require_divisible(loop, 6)
    message = r"training\.batch_size is 12, .* among 4 processes in 2 parts \(training\.accum\); choose a multiple of 8"
    with pytest.raises(ConfigError, match=message):
        require_divisible(loop, 4)


def test_steps_end_after_num_steps(make_trainer):
    trainer = make_trainer(num_steps=4)
    results = list(trainer.steps())
    assert [result.step for result in results] == [1, 2, 3, 4]
    assert [result.lr for result in results] == [0.005, 0.01, 0.01, 0.01]
    assert {result.tokens for result in results} == {8 * 7}
    assert all(result.grad_norm > 0 and result.seconds > 0 for result in results)
    assert list(trainer.steps()) == []
    assert trainer.ema.num_updates == 4


def test_a_step_uses_the_clipped_gradient(make_trainer):
    """The gradient is scaled down to grad_clip, the norm before that is reported: moments tell."""
    sums = {}
    for grad_clip in (1e6, 0.01):
        trainer = make_trainer(optim=OptimConfig(lr=1e-2, beta1=0.5, grad_clip=grad_clip))
        (result,) = itertools.islice(trainer.steps(), 1)
        first_moments = [value for (_, name), value in moments(trainer).items() if name == "exp_avg"]
        # exp_avg is half the gradient after the first step.
        sums[grad_clip] = 2 * float(torch.cat([value.flatten() for value in first_moments]).norm())
        assert result.grad_norm > 0.1
    assert sums[1e6] == pytest.approx(result.grad_norm, rel=1e-4)
    assert sums[0.01] == pytest.approx(0.01, rel=1e-3)


ALL_CHANGES = {"noise_prob": 0.2, "noise_kind": "mask", "dropout": 0.3}


@pytest.mark.parametrize("prefix", [{}, ALL_CHANGES], ids=["true", "changed"])
@pytest.mark.parametrize(
    "model", [{}, {"dropout": 0.1}, {"prefix_attention": "one_way", "parameterization": "normalized"}]
)
def test_four_parts_of_two_are_one_of_eight(make_trainer, model, prefix):
    """Only the order of sums differs; eps keeps Adam from dividing rounding errors by rounding errors."""
    optim = OptimConfig(lr=1e-3, warmup=0, eps=1e-4)
    whole, parts = (make_trainer(accum=accum, model=model, optim=optim, prefix=prefix) for accum in (1, 4))
    start = weights(whole)
    for one, four in zip(whole.steps(), parts.steps(), strict=True):
        assert four.loss_nats_per_token == pytest.approx(one.loss_nats_per_token, abs=1e-6)
        assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert (weights(whole) - start).abs().max() > 1e-3
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-6)
    torch.testing.assert_close(parts.ema.state_dict(), whole.ema.state_dict(), rtol=0, atol=1e-6)


def test_every_window_is_seen_once_an_epoch(make_trainer, monkeypatch):
    trainer = make_trainer(batch_size=5, num_steps=8)
    seen = []
    batch = trainer.dataset.batch
    monkeypatch.setattr(trainer, "dataset", trainer.dataset)
    monkeypatch.setattr(trainer.dataset, "batch", lambda indices: seen.extend(indices.tolist()) or batch(indices))
    list(trainer.steps())
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]


@pytest.mark.parametrize("poison", [math.inf, math.nan])
@pytest.mark.parametrize("accum", [1, 2])
def test_stops_before_a_step_with_a_loss_that_is_not_finite(make_trainer, poison, accum):
    trainer = make_trainer(accum=accum, optim=OptimConfig(lr=0.01, warmup=4))
    list(itertools.islice(trainer.steps(), 2))
    with torch.no_grad():
        trainer.model.output_layer.linear.weight[3, 3] = poison
    before, optimizer, average = weights(trainer), moments(trainer), trainer.ema.state_dict()
    average = {name: value.clone() for name, value in average.items()}
    groups = str(trainer.optimizer.state_dict()["param_groups"])
    with pytest.raises(NonFiniteError, match=r"the loss is (inf|nan) at step 3 with learning rate 0\.0075, it must"):
        next(trainer.steps())
    torch.testing.assert_close(weights(trainer), before, rtol=0, atol=0, equal_nan=True)
    assert_equal(moments(trainer), optimizer)
    assert_equal(trainer.ema.state_dict(), average)
    assert str(trainer.optimizer.state_dict()["param_groups"]) == groups
    assert (trainer.step, trainer.ema.num_updates) == (2, 2)


def test_stops_before_a_step_with_a_gradient_that_is_not_finite(make_trainer):
    trainer = make_trainer()
    before = weights(trainer)
    trainer.model.vocab_embed.embedding.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NonFiniteError, match=r"the gradient norm is (inf|nan) at step 1 .* start a new run"):
        next(trainer.steps())
    assert torch.equal(weights(trainer), before)
    assert moments(trainer) == {}


@pytest.mark.parametrize("poison", [math.inf, math.nan])
def test_numbers_that_are_left_on_the_device(make_trainer, poison):
    """Step 3 of 4 is broken and nobody has looked yet: it and those after it leave no trace, and the error names it."""
    trainer, before = (make_trainer(num_steps=8) for _ in range(2))
    trainer.execution = Execution(read_every=4)
    steps = trainer.steps()
    results = list(itertools.islice(steps, 2))
    list(itertools.islice(before.steps(), 2))
    assert [(result.loss_nats_per_token, result.grad_norm) for result in results] == [(None, None)] * 2
    hook = trainer.model.vocab_embed.embedding.register_hook(lambda gradient: gradient * poison)
    next(steps)
    hook.remove()
    with pytest.raises(NonFiniteError, match=r"the gradient norm is (inf|nan) at step 3 with learning rate 0\.01, it"):
        next(steps)
    assert torch.equal(weights(trainer), weights(before))
    assert_equal(moments(trainer), moments(before))
    assert_equal(trainer.ema.state_dict(), before.ema.state_dict())


def test_nothing_is_kept_of_steps_that_nobody_has_looked_at(make_trainer):
    trainer = make_trainer(num_steps=8)
    trainer.execution = Execution(read_every=4)
    trainer.model.vocab_embed.embedding.register_hook(lambda gradient: gradient * math.nan)
    next(trainer.steps())
    with pytest.raises(NonFiniteError, match="at step 1"):
        trainer.state()
    with pytest.raises(NonFiniteError, match="at step 1"), trainer.averaged_weights():
        pass


def test_reading_later_changes_nothing(make_trainer):
    """Numbers of steps 4, 8 and the last; a mask over updates that nothing has broken multiplies by one."""
    often, seldom = make_trainer(num_steps=10), make_trainer(num_steps=10)
    seldom.execution = Execution(read_every=4)
    results = [list(trainer.steps()) for trainer in (often, seldom)]
    read = {result.step: (result.loss_nats_per_token, result.grad_norm) for result in results[1]}
    assert [step for step, (loss, _) in read.items() if loss is not None] == [4, 8, 10]
    for result in results[0]:
        if result.step in (4, 8, 10):
            assert read[result.step] == (result.loss_nats_per_token, result.grad_norm)
    assert torch.equal(weights(seldom), weights(often))
    assert_equal(moments(seldom), moments(often))
    assert_equal(seldom.ema.state_dict(), often.ema.state_dict())


def restore(trainer, other):
    """Takes up where the other one stands, as from a checkpoint."""
    trainer.restore(other.state(), weights=other.model.state_dict(), ema=other.ema.state_dict(), source="by hand")


def test_restored_trainer_goes_on(make_trainer):
    unbroken, first, second = (make_trainer(num_steps=4) for _ in range(3))
    list(unbroken.steps())
    list(itertools.islice(first.steps(), 2))
    restore(second, first)
    assert [result.step for result in second.steps()] == [3, 4]
    assert torch.equal(weights(second), weights(unbroken))
    assert_equal(moments(second), moments(unbroken))
    assert_equal(second.ema.state_dict(), unbroken.ema.state_dict())


@pytest.mark.parametrize("broken", ["weights", "ema"])
def test_weights_that_are_no_numbers_are_refused(make_trainer, broken):
    """Before anything is touched: neither a network nor its average goes on from them."""
    first, second = make_trainer(), make_trainer()
    next(first.steps())
    kept = {"weights": first.model.state_dict(), "ema": first.ema.state_dict()}
    name = "output_layer.linear.bias"
    kept[broken] = {**kept[broken], name: torch.full_like(kept[broken][name], torch.nan)}
    before = weights(second)
    with pytest.raises(
        CheckpointError, match=r"weights in by hand are NaN or infinite: output_layer\.linear\.bias; give"
    ):
        second.restore(first.state(), source="by hand", **kept)
    assert second.step == 0
    assert torch.equal(weights(second), before)


def test_other_settings_are_refused(make_trainer):
    """Before anything is touched, and before the weights of another network are compared."""
    first = make_trainer(model={"num_blocks": 2})
    next(first.steps())
    second = make_trainer(course={"some.key": "another"})
    before = weights(second)
    with pytest.raises(CheckpointError, match=r"checkpoint at step 1 .*: some\.key was the same and is another; give"):
        restore(second, first)
    assert second.step == 0
    assert torch.equal(weights(second), before)


def test_averaged_weights_inside_the_block_only(make_trainer):
    trainer = make_trainer()
    list(itertools.islice(trainer.steps(), 3))
    own, average = weights(trainer), torch.cat([value.flatten() for value in trainer.ema.state_dict().values()])
    assert not torch.equal(own, average)

    def use() -> None:
        with trainer.averaged_weights():
            assert torch.equal(weights(trainer), average)
            assert not trainer.model.training
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        use()
    assert torch.equal(weights(trainer), own)
    next(trainer.steps())
    assert trainer.model.training


def test_dropout_depends_on_the_place_in_the_global_batch_alone(make_trainer):
    """Without dropout the loss differs; two seeds of dropout differ; the same seed does not."""
    losses = [
        next(make_trainer(model={"dropout": rate, "seed": 3}, seed=seed).steps()).loss_nats_per_token
        for rate, seed in [(0.0, 1), (0.1, 1), (0.1, 1), (0.1, 2)]
    ]
    assert losses[1] == losses[2]
    assert len(set(losses)) == 3


def test_batch_of_a_stage_and_of_a_flat_model(make_dataset):
    batch = make_batch(make_dataset(2), np.array([4, 2]), np.array([6, 9]))
    assert batch.index.tolist() == [6, 9]
    assert batch.window.tolist() == [4, 2]
    assert (batch.target.shape, batch.prefix.shape) == ((2, 7), (2, 3))
    assert torch.equal(batch.prefix, batch.target[:, :3])
    assert make_batch(make_dataset(0), np.array([1]), np.array([0]), torch.device("cpu")).prefix is None


def test_steps_take_their_gradients_as_the_execution_says(make_trainer, monkeypatch):
    """And bounds as they are, which have none."""
    rounded, used = LossExecution(gradient_dtype=torch.bfloat16), []
    fused = objective.fused_absorbing_score_entropy

    def spy(*arguments, execution, **settings):
        used.append(execution)
        return fused(*arguments, execution=execution, **settings)

    plain, trainer = make_trainer(num_steps=2), make_trainer(num_steps=2)
    expected = [result.loss_nats_per_token for result in plain.steps()]
    monkeypatch.setattr(objective, "fused_absorbing_score_entropy", spy)
    trainer.execution = Execution(loss=rounded)
    trainer.rehearse()
    assert used == [rounded]
    found = [result.loss_nats_per_token for result in trainer.steps()]
    assert found == pytest.approx(expected, rel=1e-3)
    assert found[0] == expected[0]
    assert found[1] != expected[1]
    assert used == [rounded] * 3
    batch = make_batch(trainer.dataset, np.arange(4), np.arange(4))
    with trainer.averaged_weights():
        trainer.objective.bound(trainer.model, batch, draws=Draws(0, "test"), num_times=2)
    assert used[3:] == [PLAIN_EXECUTION] * len(used[3:]) != []


def test_the_next_batch_is_asked_for_ahead(make_trainer, monkeypatch):
    """All of it, by the step before, and nothing after the last one; the second half of a run asks for the same."""
    asked, read = [], []
    monkeypatch.setattr(StageDataset, "read_ahead", lambda self, indices: asked.append(indices.tolist()))
    batch = StageDataset.batch
    monkeypatch.setattr(StageDataset, "batch", lambda self, i: (read.append(i.tolist()), batch(self, i))[1])
    list(make_trainer(num_steps=3, accum=2).steps())
    assert len(read) == 3 * 2
    assert asked == read[2:]
