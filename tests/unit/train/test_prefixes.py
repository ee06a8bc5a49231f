"""Prefixes in training: what is changed depends on (seed, step, place in the global batch, position) alone."""

import math
from contextlib import contextmanager

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.train import prefixes
from cascaded_dllm.train.objective import Batch
from cascaded_dllm.train.prefixes import PrefixTraining
from tests.statistical.chi_square import fits, is_refuted

V, B, P = 11, 4_000, 6
PREFIX = torch.arange(B * P).remainder(V).view(B, P)
INDEX = torch.arange(B)
ABSORBING = AbsorbingProcess(V)
DRAWS = Draws(3, "train-noise")


class Rewriter:
    """Writes token 3 everywhere, and remembers what it was asked for."""

    fingerprint = "by hand"

    def __init__(self):
        self.asked = []

    def __call__(self, window, index, step, seed):
        self.asked.append((window.tolist(), index.tolist(), step, seed))
        return torch.full((len(index), P), 3)


def changed(settings, *, prefix=PREFIX, index=INDEX, step=5, seed=1, process=ABSORBING, generate=None, window=INDEX):
    training = PrefixTraining(process, PrefixSettings(**settings), generate)
    return training.changed(prefix, window=window, index=index, step=step, seed=seed)


WAYS = {
    "random": {"noise_prob": 0.3},
    "mask": {"noise_prob": 0.3, "noise_kind": "mask"},
    "dropout": {"dropout": 0.3},
    "all": {"noise_prob": 0.3, "dropout": 0.3, "generated_prob": 0.3, "generated_level": 0.5},
}
EACH_WAY = pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)


def test_nothing_by_default():
    assert changed({}) is PREFIX
    assert changed({"generated_level": 0.7}) is PREFIX


@EACH_WAY
def test_a_prefix_does_not_see_its_batch(settings):
    whole = changed(settings, generate=Rewriter())
    assert float((whole != PREFIX).any(-1).double().mean()) > 0.2
    rows = torch.tensor([7, 1000, 3])
    part = changed(settings, prefix=PREFIX[rows], index=INDEX[rows], window=INDEX[rows], generate=Rewriter())
    assert torch.equal(part, whole[rows])


@EACH_WAY
def test_step_and_seed_decide(settings):
    first = changed(settings, generate=Rewriter())
    assert torch.equal(first, changed(settings, generate=Rewriter()))
    for other in ({"step": 6}, {"seed": 2}):
        # Where the same prefixes were chosen both times, other positions or tokens are.
        found = changed(settings, generate=Rewriter(), **other)
        assert 0.05 < float((found != first).any(-1).double().mean()) < 0.999


def test_true_prefixes_are_not_written_into():
    before = PREFIX.clone()
    changed(WAYS["all"], generate=Rewriter())
    assert torch.equal(PREFIX, before)


@pytest.mark.parametrize("prob", [0.1, 0.5, 1.0])
def test_dropout_takes_whole_prefixes(prob):
    found = changed({"dropout": prob})
    is_dropped = (found == V).all(-1)
    assert torch.equal(found[~is_dropped], PREFIX[~is_dropped])
    counts = torch.tensor([int(is_dropped.sum()), int((~is_dropped).sum())])
    assert fits(counts, torch.tensor([prob, 1 - prob], dtype=torch.float64))
    if prob < 1:
        assert is_refuted(counts, torch.tensor([1.5 * prob, 1 - 1.5 * prob], dtype=torch.float64))


def test_noise_of_the_uniform_process_is_made_of_tokens():
    found = changed({"noise_prob": 0.5}, process=UniformProcess(V))
    assert found.max() == V - 1
    assert 0.4 < float((found != PREFIX).double().mean()) < 0.5


def test_chosen_prefixes_are_rewritten():
    """With the windows and places of the chosen ones, and nothing else changes."""
    rewriter = Rewriter()
    window = INDEX + 50_000
    found = changed({"generated_prob": 0.25, "generated_level": 1.0}, generate=rewriter, window=window)
    [(windows, places, step, seed)] = rewriter.asked
    chosen = torch.tensor(places)
    assert torch.tensor(windows).equal(chosen + 50_000)
    assert (step, seed) == (5, 1)
    assert (found[chosen] == 3).all()
    is_other = torch.ones(B, dtype=torch.bool).index_fill(0, chosen, False)
    assert torch.equal(found[is_other], PREFIX[is_other])
    counts = torch.tensor([len(chosen), B - len(chosen)])
    assert fits(counts, torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert is_refuted(counts, torch.tensor([0.3, 0.7], dtype=torch.float64))


def test_nobody_is_asked_when_nothing_is_chosen():
    rewriter = Rewriter()
    settings = {"generated_prob": 1e-9, "generated_level": 1.0}
    assert torch.equal(changed(settings, generate=rewriter), PREFIX)
    assert rewriter.asked == []


def test_order_of_the_changes():
    """What was rewritten is noised, and what was noised is dropped."""
    rewritten = {"generated_prob": 1.0, "generated_level": 1.0}
    found = changed(rewritten | {"noise_prob": 0.5, "noise_kind": "mask"}, generate=Rewriter())
    assert set(found.unique().tolist()) == {3, V}
    assert (changed(rewritten | {"noise_prob": 0.5, "dropout": 1.0}, generate=Rewriter()) == V).all()


@pytest.fixture
def batch(make_dataset):
    prefix, target = make_dataset(2).batch(torch.arange(8).numpy())
    return Batch(torch.from_numpy(target), torch.from_numpy(prefix), torch.arange(8), torch.arange(8))


@pytest.mark.parametrize("attention", ["joint", "one_way"])
@pytest.mark.parametrize("parameterization", ["score", "normalized"])
def test_loss_on_empty_prefixes(make_model, make_objective, batch, parameterization, attention):
    """A prefix of nothing but MASK is one like any other: the loss is that of a batch that has it."""
    model = make_model(parameterization=parameterization, prefix_attention=attention).eval()
    plain, dropping = make_objective(), make_objective(dropout=1.0)
    empty = Batch(batch.target, torch.full_like(batch.prefix, V), batch.index)
    losses = [
        objective.loss(model, one, draws=DRAWS, step=4, global_batch_size=8)
        for objective, one in ((dropping, batch), (plain, empty), (plain, batch))
    ]
    values = [float(loss.detach()) for loss in losses]
    assert math.isfinite(values[0])
    assert values[0] == values[1] != values[2]
    losses[0].backward()
    assert model.vocab_embed.embedding.grad[V].abs().max() > 0


@EACH_WAY
def test_bounds_are_on_true_prefixes(make_model, make_objective, batch, settings):
    settings = {key: value for key, value in settings.items() if not key.startswith("generated")}
    model = make_model().eval()
    plain, changing = make_objective(), make_objective(**settings)
    bounds = [one.bound(model, batch, draws=DRAWS, num_times=3).nll_nats for one in (plain, changing)]
    assert torch.equal(bounds[0], bounds[1])
    losses = [one.loss(model, batch, draws=DRAWS, step=2, global_batch_size=8).detach() for one in (plain, changing)]
    assert losses[0] != losses[1]


def test_a_stage_without_a_prefix_has_nothing_to_change(make_model, make_objective, batch):
    model = make_model().eval()
    first = Batch(batch.target, None, batch.index)
    losses = [
        objective.loss(model, first, draws=DRAWS, step=2, global_batch_size=8).detach()
        for objective in (make_objective(), make_objective(dropout=1.0, noise_prob=1.0))
    ]
    assert losses[0] == losses[1]


def test_prefixes_are_drawn_by_kernels_for_any_shape(monkeypatch):
    """Their number changes from step to step, and the kernel of a step may prepare something for every number."""
    entered = []

    @contextmanager
    def recorded():
        entered.append("in")
        yield
        entered.append("out")

    class Drawing(Rewriter):
        def __call__(self, *arguments):
            assert entered == ["in"]
            return super().__call__(*arguments)

    monkeypatch.setattr(prefixes, "for_changing_shapes", recorded)
    changed({"generated_prob": 1.0}, generate=Drawing())
    assert entered == ["in", "out"]
