"""The same numbers on a CUDA device as on the CPU; skipped where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.compilation import compile_blocks
from cascaded_dllm.model.dropout import Dropout
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample import absorbing
from cascaded_dllm.sample.predictors import FirstHittingPredictor, Predictor, TweediePredictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.train.objective import Batch, Objective
from cascaded_dllm.train.optim import OptimConfig, make_optimizer
from tests.repo.source_tree import CHECKOUT

pytestmark = pytest.mark.gpu
VOCAB, PREFIX, LENGTH = 300, 6, 12


def config(**options: Any) -> ScoreModelConfig:
    return ScoreModelConfig(vocab_size=VOCAB, hidden_size=32, num_heads=2, num_blocks=2, cond_dim=16, **options)


def randomize(model: ScoreModel) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "adaLN" in name or "output_layer.linear" in name:
                parameter.normal_(std=0.3)
    model.eval()


def random_model(**options: Any) -> ScoreModel:
    torch.manual_seed(0)
    model = ScoreModel(config(**options))
    randomize(model)
    return model


def random_placed() -> PlacedModel:
    torch.manual_seed(0)
    layout = LayoutConfig(
        vocab_size=VOCAB, num_tokens=PREFIX, num_new=LENGTH - PREFIX, hidden_size=32, num_heads=2, num_blocks=1,
        cond_dim=16,
    )  # fmt: skip
    model = PlacedModel(config(parameterization="normalized"), layout)
    randomize(model)
    return model


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


def test_masks_of_dropout_are_the_same() -> None:
    words, ones = Draws(3, "dropout").words(torch.arange(5), 7), torch.ones(5, 40, 64)
    on_cpu = Dropout(0.3, words).of_block(2)(ones, 1, None)
    on_gpu = Dropout(0.3, words.cuda()).of_block(2)(ones.cuda(), 1, None)
    assert torch.equal(on_cpu == 0, on_gpu.cpu() == 0)
    assert torch.equal(Draws(3, "dropout").words(torch.arange(5).cuda(), 7).cpu(), words)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_loss_and_gradient(dropout: float) -> None:
    objective = Objective(AbsorbingProcess(VOCAB), LogLinearSchedule())
    batch = Batch(random_ids(LENGTH), random_ids(PREFIX), torch.arange(4))
    results = []
    for device in ("cpu", "cuda"):
        model = random_model(prefix_attention="one_way", dropout=dropout).train().to(device)
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


def texts_of(stage: StageSampler, predictor: Predictor, *, guidance: float = 0.0) -> Tensor:
    *_, last = stage.states(
        random_ids(PREFIX).cuda(),
        predictor=predictor,
        num_steps=16,
        draws=Draws(0, "sample"),
        sample_index=torch.arange(4, device="cuda"),
        guidance=guidance,
    )
    return last.xt


@pytest.mark.parametrize("predictor", [FirstHittingPredictor(), FirstHittingPredictor(3), TweediePredictor()])
@pytest.mark.parametrize("kind", ["joint", "one_way", "guided", "placed", "copying", "bfloat16"])
def test_recorded_calls_write_the_same(kind: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "placed":
        model: ScoreModel = random_placed()
    else:
        attention = "joint" if kind == "joint" else "one_way"
        options = {"parameterization": "normalized", "prefix_attention": attention, "copy_head": kind == "copying"}
        model = random_model(**options)
    if kind == "bfloat16":
        model.keep_trunk_in(torch.bfloat16)
    dropout = PrefixSettings(dropout=0.1) if kind == "guided" else PrefixSettings()
    stage = StageSampler(model.cuda(), AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH, trained_with=dropout)
    guidance = 1.0 if kind == "guided" else 0.0
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(1) or replay(graph))
    played = texts_of(stage, predictor, guidance=guidance)
    # A time grid may ask for another number of rows at every step.
    assert replays or isinstance(predictor, TweediePredictor)
    monkeypatch.setattr(absorbing, "can_be_recorded", lambda *_: False)
    assert torch.equal(played, texts_of(stage, predictor, guidance=guidance))
    assert not (played == VOCAB).any()


def compiled_and_recorded() -> None:
    model = random_model(parameterization="normalized", prefix_attention="one_way").cuda()
    stage = StageSampler(model, AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH)
    plain = texts_of(stage, FirstHittingPredictor())
    compile_blocks(model, torch.device("cuda"))
    replays, replay = [], torch.cuda.CUDAGraph.replay
    torch.cuda.CUDAGraph.replay = lambda graph: replays.append(1) or replay(graph)  # type: ignore[method-assign]
    compiled = texts_of(stage, FirstHittingPredictor())
    assert replays
    # Fused kernels round otherwise, which may turn a draw.
    assert (compiled == plain).double().mean() > 0.9


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_are_recorded(tmp_path: Path) -> None:
    """In a process of its own, since torch cannot look through the run-time type checks of the tests."""
    script = "from tests.gpu import test_cuda as tests; tests.compiled_and_recorded()"
    place = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, env=place, check=True)


def test_memory_of_recordings_is_given_back() -> None:
    stage = StageSampler(
        random_model(parameterization="normalized").cuda(), AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH
    )
    reserved = []
    for _ in range(12):
        texts_of(stage, FirstHittingPredictor())
        reserved.append(torch.cuda.memory_reserved())
    assert max(reserved[4:]) <= reserved[3]


def test_a_call_that_fails_while_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is told, and the device goes on."""
    model = random_model(parameterization="normalized").cuda()
    stage = StageSampler(model, AbsorbingProcess(VOCAB), LogLinearSchedule(), LENGTH)
    expected = texts_of(stage, FirstHittingPredictor())
    count, states = iter(range(100)), model.states

    def failing(*args: Any, **options: Any) -> Any:
        if next(count) == 1:
            raise torch.OutOfMemoryError("no room")
        return states(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(model, "states", failing)
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            texts_of(stage, FirstHittingPredictor())
    assert torch.equal(texts_of(stage, FirstHittingPredictor()), expected)


def test_placed_loss_and_bound() -> None:
    objective = Objective(AbsorbingProcess(VOCAB), LogLinearSchedule())
    target = random_ids(LENGTH)
    places = torch.arange(0, LENGTH, LENGTH // PREFIX).repeat(4, 1)
    batch = Batch(target, target.gather(1, places), torch.arange(4), places=places)
    results = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        model = random_placed().to(device)
        loss = objective.loss(model, batch, draws=Draws(0, "train-noise"), step=5, global_batch_size=4)
        loss.backward()
        gradient = next(model.layout.parameters()).grad
        assert gradient is not None
        bound = objective.bound(model, batch.to(device), draws=Draws(0, "bound"), num_times=4)
        results.append((loss.detach().cpu(), gradient.cpu(), bound.nll_nats.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=2e-3, atol=2e-3)
