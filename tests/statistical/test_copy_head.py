"""Texts of a network with a copy head against the law that its `forward` says, enumerated."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.predictors import FirstHittingPredictor
from cascaded_dllm.sample.sampler import StageSampler
from tests.reference import enumerate as oracle
from tests.statistical.chi_square import fits, is_refuted
from tests.unit.model.tiny import tiny_model

V, L, NUM_TEXTS = 4, 2, 20_000
# A token twice, and one that is missing.
PREFIX = torch.tensor([[2, 2, V, 0]])


def network(attention: str) -> ScoreModel:
    return tiny_model(
        vocab_size=V,
        parameterization="normalized",
        copy_head=True,
        seed=5,
        prefix_attention=attention,
        time_conditioning=False,
    )


@torch.no_grad()
def conditionals(model: ScoreModel) -> Tensor:
    """p(x0 | xt, prefix) of every text with and without masks, from the log scores at noise log 2, where r is 1."""
    xt = oracle.all_states(V + 1, L)
    sigma = torch.full((len(xt),), 2.0).log()
    probs = model(xt, sigma, PREFIX.expand(len(xt), -1))[..., :V].double().exp()
    is_masked = xt == V
    torch.testing.assert_close(probs.sum(-1)[is_masked], torch.ones(int(is_masked.sum())).double(), rtol=1e-5, atol=0)
    return probs


@pytest.mark.parametrize("attention", ["joint", "one_way"])
def test_first_hitting(attention: str) -> None:
    model = network(attention)
    *_, last = StageSampler(model, AbsorbingProcess(V), LogLinearSchedule(), L).states(
        PREFIX.expand(NUM_TEXTS, -1),
        predictor=FirstHittingPredictor(),
        num_steps=1,
        draws=Draws(3, "copied"),
        sample_index=torch.arange(NUM_TEXTS),
    )
    found = torch.bincount(last.xt @ torch.tensor([V, 1]), minlength=V**L)
    assert fits(found, oracle.any_order_law(conditionals(model), V, L))
    # Power: the softmax alone, which is what the gate leaves when it is shut, is another law.
    assert model.copy_head is not None
    with torch.no_grad():
        model.copy_head.gate.bias.fill_(-1e4)
    assert is_refuted(found, oracle.any_order_law(conditionals(model), V, L))
