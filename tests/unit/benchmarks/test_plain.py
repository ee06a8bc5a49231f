"""The plain reference of the benchmarks computes what the package computes."""

import pytest
import torch

from benchmarks.plain import PlainTraining, plain_analytic_step, plain_loss
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.copy_head import States
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.predictors import TweediePredictor
from cascaded_dllm.train.ema import Ema
from cascaded_dllm.train.objective import Batch, Objective

V, P, L, B = 7, 3, 6, 5
DRAWS = Draws(0, "test")
SCHEDULE = LogLinearSchedule()


def network(**settings: object) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(
            ScoreModelConfig(vocab_size=V, hidden_size=16, num_heads=2, num_blocks=2, cond_dim=8, **settings)  # type: ignore[arg-type]
        )
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("attention", ["joint", "one_way"])
@pytest.mark.parametrize("reading", ["score", "normalized", "copy head"])
def test_losses_and_gradients_are_the_fast_ones(attention: str, reading: str) -> None:
    head = {"parameterization": "normalized", "copy_head": True} if reading == "copy head" else {}
    model = network(prefix_attention=attention, **({"parameterization": reading} | head))
    generator = torch.Generator().manual_seed(2)
    x0, prefix = (torch.randint(V, (B, length), generator=generator) for length in (L, P))
    objective = Objective(AbsorbingProcess(V), SCHEDULE)
    seen: list[torch.Tensor] = []
    states = model.states

    def listening(xt: torch.Tensor, sigma: torch.Tensor, *arguments: object, **options: object) -> States:
        seen.extend((xt, sigma))
        return states(xt, sigma, *arguments, **options)  # type: ignore[arg-type]

    model.states = listening  # type: ignore[method-assign]
    fast = objective.loss(model, Batch(x0, prefix, torch.arange(B)), draws=DRAWS, step=0, global_batch_size=B)
    del model.states
    xt, sigma = seen
    assert (xt == V).any()
    dsigma = SCHEDULE(SCHEDULE.time_at(sigma)).dsigma
    plain = plain_loss(model, x0, prefix, xt, sigma, dsigma)
    # Two orders of summation in float32.
    torch.testing.assert_close(plain, fast, rtol=1e-5, atol=0)
    if attention == "joint" and not head:
        clean, noised = (torch.cat([prefix, target], dim=1) for target in (x0, xt))
        torch.testing.assert_close(plain_loss(model, clean, None, noised, sigma, dsigma), plain, rtol=1e-5, atol=0)
    parameters = list(model.parameters())
    for found, expected in zip(
        torch.autograd.grad(plain, parameters), torch.autograd.grad(fast, parameters), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_moving_average_and_descent() -> None:
    """The average moves by (1 - decay) towards the weights, as the package's does once its decay has warmed up."""
    model = network()
    training, ema = PlainTraining(model, lr=1e-3, ema_decay=0.1, grad_clip=1.0), Ema(model, 0.1)
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randint(V, (B, L), generator=generator)
    xt = torch.where(torch.rand(B, L, generator=generator) < 0.5, V, x0)
    sigma, dsigma = SCHEDULE(torch.full((B,), 0.5))
    losses = []
    for _ in range(20):
        losses.append(training.step(x0, None, xt, sigma, dsigma))
        ema.update(model)
    assert losses[-1] < losses[0]
    for found, expected in zip(training.average, ema.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected)


def test_step_has_the_law_of_the_predictor() -> None:
    """Frequencies of 40,000 draws within 5 standard errors; what is not masked stays."""
    model, rows = network(), 40_000
    xt = torch.tensor([V, 2, V])
    t, s = torch.tensor([0.8]), torch.tensor([0.3])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        log_score = model(xt[None], SCHEDULE(t).sigma)
        probs = TweediePredictor().step_probs(AbsorbingProcess(V), SCHEDULE, log_score, xt[None], t, s)[0]
        drawn = plain_analytic_step(
            model, xt.expand(rows, 3), None, SCHEDULE(t).sigma.expand(rows), SCHEDULE(s).sigma.expand(rows)
        )
    probs = probs.clamp_min(0) / probs.clamp_min(0).sum(-1, keepdim=True)
    assert (drawn[:, 1] == 2).all()
    for position in (0, 2):
        found = torch.bincount(drawn[:, position], minlength=V + 1) / rows
        error = (probs[position] * (1 - probs[position]) / rows).sqrt()
        assert (error > 0).sum() > 2
        assert ((found - probs[position]).abs() <= 5 * error + 1e-9).all()
