"""The bound token by token against the sum over all orders, for a flat stage, one with a prefix and a placed one."""

import itertools
import math

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, UniformProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.sequential import require_sequential, sequential_nats
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Batch, Objective
from tests.unit.model.tiny import tiny_model, tiny_placed

V, M = 3, 4
TIMELESS = {"vocab_size": V, "parameterization": "normalized", "time_conditioning": False, "absolute_positions": True}
TEXT, PREFIX, PLACES = [2, 0, 1, 1], [2, 1], [0, 2]
NUM_ORDERS = 3000


def mean_over_orders(model: ScoreModel, prefix: list[int] | None, known: list[int]) -> float:
    """-log p of the tokens that are not known, a call a token, in the mean over all orders."""
    nats = []
    for order in itertools.permutations([place for place in range(M) if place not in known]):
        state = [token if place in known else V for place, token in enumerate(TEXT)]
        total = 0.0
        for place in order:
            given = None if prefix is None else torch.tensor([prefix])
            with torch.no_grad():
                scores = model(torch.tensor([state]), torch.ones(1), given)[0, place, :V].double()
            total -= float(scores.log_softmax(-1)[TEXT[place]])
            state[place] = TEXT[place]
        nats.append(total)
    return sum(nats) / len(nats)


def batch(*, has_prefix: bool = False, is_placed: bool = False, copies: int = 1) -> Batch:
    index = torch.arange(copies)
    target = torch.tensor([TEXT]).expand(copies, -1)
    prefix = torch.tensor([PREFIX]).expand(copies, -1) if has_prefix or is_placed else None
    return Batch(target, prefix, index, places=torch.tensor([PLACES]).expand(copies, -1) if is_placed else None)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (tiny_model(seed=1, **TIMELESS), {}),
        (tiny_model(seed=2, **TIMELESS), {"has_prefix": True}),
        (tiny_model(seed=2, prefix_attention="one_way", **TIMELESS), {"has_prefix": True}),
        (tiny_model(seed=3, copy_head=True, **TIMELESS), {"has_prefix": True}),
        (tiny_placed(2, 2, seed=4, **TIMELESS), {"is_placed": True}),
    ],
    ids=["flat", "joint", "one_way", "copy_head", "placed"],
)
def test_mean_over_orders(model: ScoreModel, options: dict[str, bool]) -> None:
    """With many orders, and as the integral over time says; another text costs something else."""
    known = PLACES if options.get("is_placed") else []
    exact = mean_over_orders(model, PREFIX if options.get("has_prefix") else None, known)
    draws = Draws(1, "orders")
    [found] = sequential_nats(model, batch(**options), draws=draws, num_orders=NUM_ORDERS // 10, num_rows=64).tolist()
    assert abs(found - exact) < 0.03 * exact
    objective = Objective(AbsorbingProcess(V), LogLinearSchedule(1e-4), 1e-4)
    estimate = objective.bound(model, batch(**options, copies=NUM_ORDERS), draws=Draws(0, "bound"), num_times=8)
    integral = estimate.nll_nats - (0 if estimate.layout_nats is None else estimate.layout_nats)
    error = float(integral.std()) / math.sqrt(NUM_ORDERS)
    assert abs(float(integral.mean()) - exact) < 4 * error < 0.1 * exact
    uniform = (M - len(known)) * math.log(V)
    assert abs(exact - uniform) > 8 * error, "a network that knows nothing would prove nothing"


def test_one_order_has_the_probability_of_its_tokens() -> None:
    """A single order is a law of texts: over all of them it sums to one."""
    model = tiny_model(seed=1, **TIMELESS)
    texts = torch.tensor(list(itertools.product(range(V), repeat=3)))
    # All have the number 0, and so the same order.
    every = Batch(texts, None, torch.zeros(len(texts), dtype=torch.long))
    nats = sequential_nats(model, every, draws=Draws(3, "orders"), num_orders=1, num_rows=2)
    assert math.isclose(float((-nats).exp().sum()), 1, rel_tol=1e-6)


def test_rows_of_a_call_decide_nothing() -> None:
    model = tiny_model(seed=2, **TIMELESS)
    found = [
        sequential_nats(model, batch(has_prefix=True), draws=Draws(3, "orders"), num_orders=4, num_rows=rows)
        for rows in (1, 3, 100)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "settings", [{"parameterization": "score"}, {"time_conditioning": True}, {"process": "uniform"}], ids=str
)
def test_networks_without_an_order(settings: dict[str, object]) -> None:
    model = tiny_model(**({**TIMELESS, **settings} if "process" not in settings else {"vocab_size": V, **settings}))
    process = UniformProcess(V) if "process" in settings else AbsorbingProcess(V)
    with pytest.raises(ConfigError, match=r"only a normalised, time-agnostic network .* leave --num-orders out"):
        require_sequential(model, process)
