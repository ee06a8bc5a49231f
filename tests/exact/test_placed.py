"""A placed stage on a vocabulary that can be enumerated: layout and fill are laws, and their bound is one."""

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.layout import gap_log_law, gaps_of, hidden_gaps, layout_nats, places_of
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.sample.layout import draw_gaps
from cascaded_dllm.sample.predictors import FirstHittingPredictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.train.objective import Batch, Objective
from tests.reference import enumerate as oracle
from tests.reference import placed as reference
from tests.statistical.chi_square import fits, is_refuted
from tests.unit.model.tiny import tiny_model, tiny_placed

V, N, M = 2, 2, 4
NEW = M - N
FLAT = {"vocab_size": V, "parameterization": "normalized", "time_conditioning": False, "absolute_positions": True}
Z = [list(z) for z in itertools.product(range(V), repeat=N)]


def network(seed: int = 3, dtype: torch.dtype = torch.float64) -> PlacedModel:
    return tiny_placed(N, NEW, seed=seed, dtype=dtype, **FLAT)


@pytest.mark.parametrize("z", Z, ids=str)
def test_layouts_and_fills_sum_to_one(z: list[int]) -> None:
    model = network()
    law = reference.layout_law(model.layout, z)
    assert len(law) == math.comb(M, N)
    assert math.isclose(sum(law.values()), 1, rel_tol=1e-12)
    assert max(law.values()) > 1.2 * min(law.values()), "a law that the network has no part in would prove nothing"
    table = reference.conditionals(model, V, M)
    for gaps in law:
        fill = oracle.completion_law(table, reference.placed_state(z, gaps, V), V)
        assert math.isclose(float(fill.sum()), 1, rel_tol=1e-12)
        stands = torch.tensor([[text[place] for place in reference.places(gaps)] for text in oracle.all_states(V, M)])
        assert (fill[(stands != torch.tensor(z)).any(-1)] == 0).all()


@pytest.mark.parametrize("z", Z, ids=str)
def test_cost_of_a_layout_is_the_mean_over_orders(z: list[int]) -> None:
    """Over all sets of hidden gaps, each number of them equally often; and it bounds -log p."""
    model, num_gaps = network().layout, N + 1
    law = reference.layout_law(model, z)
    for gaps in law:
        total = 0.0
        for count in range(1, num_gaps + 1):
            sets = list(itertools.combinations(range(num_gaps), count))
            is_hidden = torch.tensor([[gap in chosen for gap in range(num_gaps)] for chosen in sets])
            true = torch.tensor(gaps).expand(len(sets), -1)
            with torch.no_grad():
                logits = model(torch.tensor(z).expand(len(sets), -1), torch.where(is_hidden, model.hidden_label, true))
                total += float(layout_nats(logits, true, is_hidden).mean()) / num_gaps
        orders = reference.order_nats(model, z, gaps)
        assert math.isclose(total, sum(orders) / len(orders), rel_tol=1e-9)
        assert total > -math.log(law[gaps]) - 1e-12


@functools.cache
def enumerated_laws() -> tuple[Tensor, Tensor, Tensor]:
    """Conditionals of the placed stage and of the one before, and the law of all texts."""
    model, first = network(dtype=torch.float32), tiny_model(seed=8, **FLAT)
    table, first_table = reference.conditionals(model, V, M), reference.conditionals(first, V, N)
    first_law = oracle.any_order_law(first_table, V, N)
    law = torch.zeros(len(oracle.all_states(V, M)), dtype=torch.float64)
    for z in Z:
        for gaps, probability in reference.layout_law(model.layout, z).items():
            fill = oracle.completion_law(table, reference.placed_state(z, gaps, V), V)
            law += first_law[oracle.index_of(z, V)] * probability * fill
    return table, first_table, law


@pytest.mark.parametrize(
    "schedule",
    [LogLinearSchedule(), pytest.param(GeometricSchedule(1e-4, 20.0), marks=pytest.mark.slow)],
    ids=["loglinear", "geometric"],
)
def test_bound_of_a_placed_stage(schedule: Schedule) -> None:
    """The estimate approaches the exact cost, and with stage 1 it lies above -log p(x), which is a sum over all z."""
    model, texts = network(dtype=torch.float32), oracle.all_states(V, M)
    table, first_table, law = enumerated_laws()
    assert math.isclose(float(law.sum()), 1, rel_tol=1e-12)
    objective = Objective(AbsorbingProcess(V), schedule, t_min=1e-4)
    for number, places in ((5, [0, 2]), (9, [1, 3]), (14, [0, 1])):
        text = texts[number].tolist()
        z, gaps = [text[place] for place in places], tuple(gaps_of(torch.tensor([places]), M)[0].tolist())
        cost_of_layout = sum(orders := reference.order_nats(model.layout, z, gaps)) / len(orders)
        cost_of_fill = completion_cost(table, text, places)
        index = torch.arange(4000)
        texts_of_batch, z_of_batch, places_of_batch = (
            torch.tensor(values).expand(len(index), -1) for values in (text, z, places)
        )
        batch = Batch(texts_of_batch, z_of_batch, index, places=places_of_batch)
        found = objective.bound(model, batch, draws=Draws(1, "bound"), num_times=16)
        assert found.layout_nats is not None
        for estimate, exact in (
            (found.layout_nats, cost_of_layout),
            (found.nll_nats - found.layout_nats, cost_of_fill),
        ):
            error = float(estimate.std()) / len(index) ** 0.5
            assert error < 0.04
            # Of the fill, what is omitted below t_min and at t = 1 is less than the error.
            assert abs(float(estimate.mean()) - exact) < 4 * error
        first_cost = oracle.denoising_integral(first_table, z, V)
        assert first_cost + cost_of_layout + cost_of_fill > -math.log(float(law[number]))


def completion_cost(table: Tensor, text: list[int], places: list[int]) -> float:
    """-log p of the new tokens in the mean over all orders in which they can be written."""
    new = [place for place in range(M) if place not in places]
    nats = []
    for order in itertools.permutations(new):
        state = [token if place in places else V for place, token in enumerate(text)]
        total = 0.0
        for place in order:
            total -= math.log(float(table[oracle.index_of(state, V + 1), place, text[place]]))
            state[place] = text[place]
        nats.append(total)
    return sum(nats) / len(nats)


def test_samples_follow_the_law() -> None:
    """First hitting of layout and fill; and neither uniform layouts nor another network's would pass for it."""
    model, z, num_texts = network(), [1, 0], 20_000
    sampler = StageSampler(model, AbsorbingProcess(V), LogLinearSchedule(), M, prefix_length=N)
    *_, last = sampler.states(
        torch.tensor([z]).expand(num_texts, -1),
        predictor=FirstHittingPredictor(),
        num_steps=1,
        draws=Draws(4, "placed"),
        sample_index=torch.arange(num_texts),
    )
    found = torch.bincount(torch.tensor([oracle.index_of(text, V) for text in last.xt.tolist()]), minlength=V**M)
    table = reference.conditionals(model, V, M)

    def law(layout: dict[reference.Gaps, float]) -> Tensor:
        fills = (p * oracle.completion_law(table, reference.placed_state(z, g, V), V) for g, p in layout.items())
        return torch.stack(list(fills)).sum(0)

    exact = reference.layout_law(model.layout, z)
    assert fits(found, law(exact))
    assert is_refuted(found, law(dict.fromkeys(exact, 1 / len(exact))))
    assert is_refuted(found, law(reference.layout_law(network(seed=4).layout, z)))


@pytest.mark.parametrize("known", [None, 0])
def test_drawn_gaps_follow_the_law(known: int | None) -> None:
    """All of them, and those that remain when one is known."""
    model, z, num_texts = network().layout, [1, 0], 20_000
    start = torch.full((num_texts, N + 1), model.hidden_label)
    if known is not None:
        start[:, 1] = known
    texts = torch.tensor([z]).expand(num_texts, -1)
    gaps = draw_gaps(model, texts, start, draws=Draws(2, "gaps"), sample_index=torch.arange(num_texts))
    every = [gap for gap in reference.layouts(N + 1, NEW) if known is None or gap[1] == known]
    found = torch.tensor([(gaps == torch.tensor(gap)).all(-1).sum() for gap in every])
    assert int(found.sum()) == num_texts
    if known is None:
        exact = torch.tensor([reference.layout_law(model, z)[gap] for gap in every], dtype=torch.float64)
    else:
        # Either of the two others is revealed first, and the last one is what is left.
        first, last = (reference.gap_law(model, z, {1: known}, gap) for gap in (0, 2))
        exact = torch.tensor([(first[gap[0]] + last[gap[2]]) / 2 for gap in every], dtype=torch.float64)
    assert fits(found, exact)
    assert is_refuted(found, torch.full_like(exact, 1 / len(exact)))


def test_gaps_and_places() -> None:
    for gaps in reference.layouts(4, 5):
        places = places_of(torch.tensor([gaps]))
        assert places[0].tolist() == reference.places(gaps)
        assert gaps_of(places, 8)[0].tolist() == list(gaps)


def test_every_number_of_hidden_gaps_is_as_frequent() -> None:
    order = torch.rand(1200, 6, generator=torch.Generator().manual_seed(0))
    share = (torch.arange(1200) + 0.5) / 1200
    is_hidden = hidden_gaps(order, share)
    assert torch.bincount(is_hidden.sum(-1)).tolist() == [0] + [200] * 6
    assert hidden_gaps(order[:1], torch.tensor([1.0])).all()
    # The smallest first.
    few = is_hidden.sum(-1) < 6
    assert (order.masked_fill(~is_hidden, -1).amax(-1) < order.masked_fill(is_hidden, 2).amin(-1))[few].all()


def test_gradient_of_a_layout_is_finite() -> None:
    """Also where a single gap is hidden, which is sure, and where labels are impossible."""
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    gaps = torch.tensor([[2, 0, 0], [0, 1, 1]])
    is_hidden = torch.tensor([[True, False, False], [True, True, False]])
    nats = layout_nats(logits, gaps, is_hidden)
    assert nats[0] == 0
    (grad,) = torch.autograd.grad(nats.sum(), logits)
    assert grad.isfinite().all()
    assert (grad[0] == 0).all()
    assert (grad[1, :2, :2] != 0).all()
    assert (grad[1, :, 2] == 0).all(), "2 is more than the one that is left"
    assert (
        gap_log_law(logits.detach(), torch.ones(2, 3).long(), torch.zeros(2, 3).bool())
        .exp()
        .sum(-1)
        .allclose(torch.ones(2, 3).double())
    )
