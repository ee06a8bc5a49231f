import math

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.train.objective import Batch, Objective

DRAWS = Draws(3, "train-noise")
NETWORKS = [
    pytest.param({"parameterization": parameterization, "prefix_attention": attention, "process": process}, id=name)
    for name, parameterization, attention, process in [
        ("score-joint", "score", "joint", "absorbing"),
        ("score-one_way", "score", "one_way", "absorbing"),
        ("normalized-joint", "normalized", "joint", "absorbing"),
        ("normalized-one_way", "normalized", "one_way", "absorbing"),
        ("uniform", "score", "one_way", "uniform"),
    ]
]
NETWORKS += [
    pytest.param(
        {"parameterization": "normalized", "copy_head": True, "prefix_attention": a, "process": "absorbing"},
        id=f"copy-{a}",
    )
    for a in ("joint", "one_way")
]


def spied(objective, times):
    """The same objective, whose process writes down the noise and the noised ids it was asked for."""
    kind = type(objective.process)

    class Spy(kind):
        def sample_xt(self, x0, sigma, u):
            xt = kind.sample_xt(self, x0, sigma, u)
            times.append((objective.schedule.time_at(sigma), sigma, xt))
            return xt

    return Objective(Spy(objective.process.vocab_size), objective.schedule, objective.t_min)


@pytest.fixture
def batch(make_dataset):
    prefix, target = make_dataset(2).batch(torch.arange(8).numpy())
    return Batch(torch.from_numpy(target), torch.from_numpy(prefix), torch.arange(8))


def part(batch, rows):
    rows = torch.as_tensor(rows)
    return Batch(batch.target[rows], None if batch.prefix is None else batch.prefix[rows], batch.index[rows])


def loss(objective, model, batch, step=4):
    return float(objective.loss(model, batch, draws=DRAWS, step=step, global_batch_size=8).detach())


@pytest.mark.parametrize("settings", NETWORKS)
@pytest.mark.parametrize("sizes", [(8,), (4, 4), (1, 2, 5), (1,) * 8])
def test_parts_add_up_to_the_whole(make_model, make_objective, batch, settings, sizes):
    model = make_model(**settings).eval()
    objective = make_objective(settings["process"])
    whole = loss(objective, model, batch)
    parts = [loss(objective, model, part(batch, rows)) for rows in torch.arange(8).split(sizes)]
    # float32 sums of some fifty terms.
    assert sum(parts) == pytest.approx(whole, rel=2e-6)


@pytest.mark.parametrize("settings", NETWORKS)
def test_gradients_of_the_parts_add_up(make_model, make_objective, batch, settings):
    objective = make_objective(settings["process"])
    gradients = []
    for sizes in [(8,), (3, 5)]:
        model = make_model(**settings).eval()
        for rows in torch.arange(8).split(sizes):
            objective.loss(model, part(batch, rows), draws=DRAWS, step=4, global_batch_size=8).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_noise_of_a_sequence_does_not_depend_on_the_batch(make_model, make_objective, batch, process):
    model, times = make_model(process=process).eval(), []
    objective = spied(make_objective(process), times)
    loss(objective, model, batch)
    changed = Batch(batch.target.clone(), batch.prefix, batch.index)
    changed.target[:5] = 0
    changed.target[6:] = 0
    for other in (part(batch, [5]), part(batch, [5, 1]), part(batch, [7, 6, 5]), changed):
        loss(objective, model, other)
    (_, sigma, xt), *others = times
    for (_, other_sigma, other_xt), place in zip(others, (0, 0, 2, 5), strict=True):
        assert other_sigma[place] == sigma[5]
        assert other_xt[place].tolist() == xt[5].tolist()


def test_noise_depends_on_step_and_stream(make_model, make_objective, batch):
    model, times = make_model().eval(), []
    objective = spied(make_objective(), times)
    for step, draws in [(4, DRAWS), (5, DRAWS), (4, Draws(4, "train-noise")), (4, Draws(3, "bound-noise"))]:
        objective.loss(model, batch, draws=draws, step=step, global_batch_size=8)
    assert len({tuple(sigma.tolist()) for _, sigma, _ in times}) == 4
    assert len({tuple(xt.flatten().tolist()) for _, _, xt in times}) == 4


def test_times_are_spread_evenly_over_the_global_batch(make_model, make_objective, batch):
    model, times = make_model().eval(), []
    objective = spied(make_objective(t_min=0.1), times)
    for rows in ([0, 1, 2], [3, 4], [5, 6, 7]):
        loss(objective, model, part(batch, rows))
    t = torch.cat([t for t, _, _ in times]).sort().values
    assert t.min() > 0.1
    assert t.max() <= 1
    torch.testing.assert_close(t.diff(), torch.full((7,), 0.9 / 8), rtol=0, atol=1e-5)


def test_loss_of_a_network_that_knows_nothing(make_model, make_objective, batch):
    """With equal logits every masked token costs dsigma / expm1(sigma) * log V; all others cost nothing."""
    model, times = make_model(parameterization="normalized").eval(), []
    for layer_parameter in model.output_layer.linear.parameters():
        torch.nn.init.zeros_(layer_parameter)
    objective = spied(make_objective(), times)
    found = loss(objective, model, batch)
    t, sigma, xt = times[0]
    rate = objective.schedule(t.double()).dsigma / torch.expm1(sigma.double())
    masked = (xt == model.config.vocab_size).sum(-1)
    assert masked.sum() > 10
    expected = float((rate * masked).sum()) * math.log(model.config.vocab_size) / 8
    assert found == pytest.approx(expected, rel=1e-4)  # t is recovered from sigma in float32


@pytest.mark.parametrize("settings", NETWORKS)
def test_bound_does_not_depend_on_the_batch(make_model, make_objective, batch, settings):
    model = make_model(**settings).eval()
    objective = make_objective(settings["process"])
    whole = objective.bound(model, batch, draws=DRAWS, num_times=5)
    assert whole.nll_nats.shape == (8,)
    assert whole.nll_nats.std() > 0.1
    for rows in ([0], [7], [2, 5, 3]):
        found = objective.bound(model, part(batch, rows), draws=DRAWS, num_times=5)
        torch.testing.assert_close(found.nll_nats, whole.nll_nats[rows], rtol=1e-5, atol=0)
        torch.testing.assert_close(found.standard_error, whole.standard_error[rows], rtol=1e-4, atol=0)


def test_bound_depends_on_the_prefix(make_model, make_objective, batch):
    model, objective = make_model(), make_objective()
    other = Batch(batch.target, (batch.prefix + 1) % 11, batch.index)
    bounds = [objective.bound(model.eval(), b, draws=DRAWS, num_times=3).nll_nats for b in (batch, other)]
    assert (bounds[0] - bounds[1]).abs().max() > 1e-3


def test_bound_leaves_the_gradient_mode_alone(make_model, make_objective, batch):
    objective, model = make_objective(), make_model().eval()
    assert not objective.bound(model, batch, draws=DRAWS, num_times=2).nll_nats.requires_grad
    assert torch.is_grad_enabled()
    assert objective.loss(model, batch, draws=DRAWS, step=0, global_batch_size=8).requires_grad


def test_a_batch_without_a_masked_token_costs_nothing(make_model, make_objective):
    """At small times hardly anything is masked: the loss is zero and has a gradient of zeros, not none."""
    model = make_model().eval()
    one = Batch(torch.tensor([[1]]), None, torch.tensor([0]))
    objective = make_objective()
    losses = [objective.loss(model, one, draws=DRAWS, step=step, global_batch_size=1) for step in range(40)]
    zeros = [value for value in losses if float(value.detach()) == 0]
    assert zeros, "none of 40 draws left the token as it was"
    zeros[0].backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_batch_on_a_device(batch):
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.target, batch.target)
    assert torch.equal(moved.prefix, batch.prefix)
    assert Batch(batch.target, None, batch.index).to(torch.device("cpu")).prefix is None
