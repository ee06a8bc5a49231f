"""Two-token texts of a known law: the bound comes down to its floor and never lies below it.

The data holds every text exactly as often as the law says, so the law of the data is the law. The integral over
[t_min, 1] of an ideal model is I(x0; x_{t_min}) - I(x0; x_1), by enumeration: H - I(x0; x_1) without the part below
t_min. A network that has seen the target, or a loss with a wrong factor, would go below.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
from cascaded_dllm.diffusion.score_entropy import uniform_score_entropy
from cascaded_dllm.evaluate.likelihood import dataset_bound
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.loop import LoopConfig
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.optim import OptimConfig
from cascaded_dllm.train.trainer import Trainer
from tests.reference import enumerate as oracle
from tests.reference.plain_loss import absorbing_score_entropy

V, T_MIN = 4, 1e-3
# How often each of the 16 texts stands in the data, first token by second: order matters, but both have the same
# frequencies. Rotary positions are relative, so that a network that sees nothing but MASK is blind to the place.
COUNTS = torch.tensor([12, 7, 1, 1, 1, 9, 7, 0, 7, 1, 2, 3, 1, 0, 3, 9])
LAW = COUNTS.double() / COUNTS.sum()


def dataset() -> StageDataset:
    texts = oracle.all_states(V, 2).repeat_interleave(COUNTS, dim=0).numpy().astype(np.int32)
    arrays = StageArrays(
        spec=CascadeSpec((2,)),
        packing="document",
        method="constituency",
        eos_id=0,
        vocab_size=V,
        tokenizer="by hand",
        fingerprint="by hand",
        dropped={},
        stages=(texts,),
        positions=(),
    )
    return StageDataset(arrays, 1)


def objective_of(process: str) -> Objective:
    schedule = GeometricSchedule(1e-4, 20.0) if process == "uniform" else LogLinearSchedule()
    return Objective(process_from_name(process, V), schedule, T_MIN)


def floor(objective: Objective, process: str) -> float:
    """I(x0; x_{t_min}) - I(x0; x_1), nats a text."""
    if process == "uniform":
        rates, law = oracle.uniform_rates(V), LAW
    else:
        rates, law = oracle.absorbing_rates(V), oracle.with_mask(LAW, V, 2)
    sigmas = (float(objective.schedule(torch.tensor(t, dtype=torch.float64)).sigma) for t in (T_MIN, 1.0))
    early, late = (oracle.mutual_information(law, oracle.joint_kernel(rates, sigma, 2)) for sigma in sigmas)
    return early - late


@torch.no_grad()
def exact_bound(model: Callable[[Tensor, Tensor], Tensor], objective: Objective, num_nodes: int = 100) -> float:
    """The bound of the network, averaged over the law: over all texts and all noised texts, with the midpoint rule."""
    texts, states = oracle.all_states(V, 2), oracle.all_states(objective.process.num_states, 2)
    x0, xt = texts.repeat_interleave(len(states), dim=0), states.repeat(len(texts), 1)
    total = 0.0
    for k in range(num_nodes):
        # Evenly spaced in log(t + 0.01): most of the change is at small times.
        low, high = math.log(T_MIN + 0.01), math.log(1.01)
        shifted = math.exp(low + (k + 0.5) / num_nodes * (high - low))
        sigma, dsigma = objective.schedule(torch.tensor(shifted - 0.01))
        transition = objective.process.transition_probs(x0, sigma.expand(len(x0)))
        probability = transition.gather(-1, xt[..., None])[..., 0].prod(-1) * LAW.repeat_interleave(len(states))
        log_score = model(states, sigma.expand(len(states))).repeat(len(texts), 1, 1)
        if objective.process.num_states == V:
            entropy = uniform_score_entropy(log_score, xt, x0, sigma.expand(len(x0)))
        else:
            entropy = absorbing_score_entropy(log_score, xt, x0, sigma.expand(len(x0)))
        total += float(probability @ entropy.sum(-1).double()) * float(dsigma) * shifted * (high - low) / num_nodes
    return total


def exact_network(process: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The log score of the law itself, for all states in order."""

    def log_score(states: Tensor, sigma: Tensor) -> Tensor:
        if process == "uniform":
            noised = LAW @ oracle.joint_kernel(oracle.uniform_rates(V), float(sigma[0]), 2)
            return oracle.scores(noised, V, 2).log()
        posterior = oracle.exact_conditionals(LAW, V, 2).nan_to_num(nan=1 / V).clamp_min(1e-30)
        return F.pad(posterior.log() - math.log(math.expm1(float(sigma[0]))), (0, 1))

    return log_score


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_an_exact_network_lies_on_the_floor(process):
    """So the floor is the lowest, and `exact_bound` finds it: to 1.4e-4 of it with 100 nodes."""
    objective = objective_of(process)
    lowest = floor(objective, process)
    assert exact_bound(exact_network(process), objective) == pytest.approx(lowest, rel=1.5e-4)
    assert oracle.entropy(LAW) - 3 * T_MIN * 2 * math.log(V) < lowest < oracle.entropy(LAW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "parameterization", "reached"),
    [("absorbing", "normalized", 1.05), ("absorbing", "score", 1.06), ("uniform", "score", 1.12)],
)
def test_bound_approaches_the_floor_from_above(process, parameterization, reached):
    objective = objective_of(process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ScoreModel(
            ScoreModelConfig(
                vocab_size=V,
                process=process,
                parameterization=parameterization,
                scale_by_sigma=process == "absorbing",
                hidden_size=32,
                num_heads=2,
                num_blocks=1,
                cond_dim=16,
            )
        )
    trainer = Trainer(
        model,
        objective,
        dataset(),
        optim=OptimConfig(lr=3e-3, warmup=10, decay="cosine", beta2=0.98),
        loop=LoopConfig(batch_size=64, accum=1, num_steps=300, ema_decay=0.98, seed=0),
        course={},
    )

    def bound() -> tuple[float, float]:
        """Mean over all texts, and its error from the spread over times; all texts of the law are there."""
        estimate = dataset_bound(model, objective, trainer.dataset, num_windows=64, num_times=16, batch_size=64, seed=1)
        return float(estimate.nll_nats.mean()), float(estimate.standard_error.square().sum().sqrt()) / 64

    lowest, found = floor(objective, process), []
    for done in itertools.chain([0], (result.step for result in trainer.steps())):
        if done in (0, 50, 300):
            with trainer.averaged_weights():
                found.append((*bound(), exact_bound(model, objective)))
    for estimate, error, exact in found:
        assert estimate > lowest - 3 * error
        assert abs(estimate - exact) < 3 * error
        assert exact > (1 - 1.5e-4) * lowest
    exacts = [exact for _, _, exact in found]
    assert exacts == sorted(exacts, reverse=True)
    assert exacts[0] > 1.15 * lowest
    assert exacts[-1] < reached * lowest
