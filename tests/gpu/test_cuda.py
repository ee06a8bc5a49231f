"""The same numbers on a CUDA device as on the CPU; skipped where there is none."""

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.score_model import ScoreModel, ScoreModelConfig
from cascaded_dllm.sample.predictors import FirstHittingPredictor, Predictor, TweediePredictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig, make_optimizer

pytestmark = pytest.mark.gpu
VOCAB, PREFIX, LENGTH = 300, 6, 12


def random_model(**options: object) -> ScoreModel:
    torch.manual_seed(0)
    model = ScoreModel(
        ScoreModelConfig(vocab_size=VOCAB, hidden_size=32, num_heads=2, num_blocks=2, cond_dim=16, **options)  # type: ignore[arg-type]
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN" in name or "output_layer.linear" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def random_ids(length: int) -> torch.Tensor:
    return torch.randint(VOCAB, (4, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("attention", ["joint", "one_way"])
@pytest.mark.parametrize("parameterization", ["score", "normalized"])
def test_log_score(attention: str, parameterization: str) -> None:
    model = random_model(prefix_attention=attention, parameterization=parameterization)
    xt, prefix, sigma = random_ids(LENGTH), random_ids(PREFIX), torch.tensor([0.1, 0.5, 1.0, 4.0])
    expected = model(xt, sigma, prefix)
    found = model.cuda()(xt.cuda(), sigma.cuda(), prefix.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)  # TF32 is off by default; sums differ


def test_random_numbers_are_the_same() -> None:
    sample, position = torch.arange(50)[:, None], torch.arange(40)
    draws = Draws(3, "test")
    for on_cpu, on_gpu in zip(
        draws.uniform_pair(sample, 7, position),
        draws.uniform_pair(sample.cuda(), 7, position.cuda()),
        strict=True,
    ):
        assert torch.equal(on_cpu, on_gpu.cpu())


def test_loss_and_gradient() -> None:
    objective = Objective(AbsorbingProcess(VOCAB), LogLinearSchedule())
    batch = Batch(random_ids(LENGTH), random_ids(PREFIX), torch.arange(4))
    results = []
    for device in ("cpu", "cuda"):
        model = random_model(prefix_attention="one_way").to(device)
        loss = objective.loss(
            model, batch.to(torch.device(device)), draws=Draws(0, "train-noise"), step=5, global_batch_size=4
        )
        loss.backward()
        weight = model.output_layer.linear.weight
        assert weight.grad is not None
        results.append((loss.detach().cpu(), weight.grad.cpu()))
        make_optimizer(model, OptimConfig()).step()
    torch.testing.assert_close(results[1], results[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("predictor", [FirstHittingPredictor(), TweediePredictor()])
@pytest.mark.parametrize("parameterization", ["score", "normalized"])
def test_samples(predictor: Predictor, parameterization: str) -> None:
    model = random_model(prefix_attention="one_way", parameterization=parameterization).cuda()
    stage = StageSampler(model, AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH)
    texts = []
    for part in (torch.arange(4), torch.arange(2)):
        *_, last = stage.states(
            random_ids(PREFIX)[: len(part)].cuda(),
            predictor=predictor,
            num_steps=16,
            draws=Draws(0, "sample"),
            sample_index=part.cuda(),
        )
        assert not (last.xt == VOCAB).any()
        texts.append(last.xt)
    assert torch.equal(texts[0][:2], texts[1])
