"""Every number stored from the reference implementation of SEDD, through the classes that users meet.

Files: `sedd_absorb.safetensors` and `sedd_uniform.safetensors`, computed in float32 on a CPU; stages 2 and 3 have the
clean text of the stage before as prefix. Tolerance 1e-5 absolute, where numbers are of size one.
"""

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from cascaded_dllm.diffusion.fused_loss import fused_absorbing_score_entropy
from cascaded_dllm.diffusion.process import Process, process_from_name
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule, Schedule
from cascaded_dllm.diffusion.score_entropy import uniform_score_entropy
from cascaded_dllm.model.pretrained import load_weights
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.predictors import EulerPredictor, TweediePredictor, denoise_probs
from tests.reference.plain_loss import absorbing_score_entropy

FOLDER = Path(__file__).parent
ABSOLUTE = {"rtol": 0.0, "atol": 1e-5}
# The uniform file spans sigma = 1e-4 to 18: probabilities that were never normalised reach 1e5, and the constant term
# of the score entropy is of size 1 / sigma.
RELATIVE = {"rtol": 1e-5, "atol": 2e-5}
CASES = [(kind, stage) for kind in ("absorb", "uniform") for stage in (1, 2, 3)]
EACH_CASE = pytest.mark.parametrize(("kind", "stage"), CASES)


class Golden:
    """One of the two files, and the objects of the package that stand for what it was made with."""

    def __init__(self, kind: str) -> None:
        path = FOLDER / f"sedd_{kind}.safetensors"
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["config"])
        sizes = settings["model"]
        self.values = load_file(path)
        config = ScoreModelConfig(
            vocab_size=settings["tokens"],
            process={"absorb": "absorbing", "uniform": "uniform"}[kind],  # type: ignore[arg-type]
            hidden_size=sizes["hidden_size"],
            num_heads=sizes["n_heads"],
            num_blocks=sizes["n_blocks"],
            cond_dim=sizes["cond_dim"],
            scale_by_sigma=sizes["scale_by_sigma"],
        )
        self.model = ScoreModel(config).eval().requires_grad_(False)
        weights = {name[6:]: value for name, value in self.values.items() if name.startswith("model.")}
        load_weights(self.model, weights, source=str(path))
        self.process: Process = process_from_name(config.process, config.vocab_size)
        self.schedule: Schedule = LogLinearSchedule() if kind == "absorb" else GeometricSchedule()
        self.tolerance = ABSOLUTE if kind == "absorb" else RELATIVE

    def of_stage(self, name: str, stage: int) -> Tensor:
        return self.values[f"{name}_stage{stage}"]

    def prefix(self, stage: int) -> Tensor | None:
        return None if stage == 1 else self.of_stage("x0", stage - 1)


golden = functools.cache(Golden)


@pytest.mark.parametrize("kind", ["absorb", "uniform"])
def test_noise(kind: str) -> None:
    values = golden(kind).values
    noise = golden(kind).schedule(values["t"])
    torch.testing.assert_close(noise.sigma, values["sigma"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(noise.dsigma, values["dsigma"], rtol=1e-6, atol=1e-9)


@EACH_CASE
def test_log_score(kind: str, stage: int) -> None:
    """Found: 1e-6."""
    file = golden(kind)
    xt, sigma, prefix = file.of_stage("xt", stage), file.values["sigma"], file.prefix(stage)
    expected = file.of_stage("log_score", stage)
    torch.testing.assert_close(file.model(xt, sigma, prefix), expected, **ABSOLUTE)
    if prefix is not None:
        encoded = file.model.encode_prefix(prefix, xt.shape[1])
        torch.testing.assert_close(file.model(xt, sigma, encoded), expected, **ABSOLUTE)
        assert not torch.allclose(file.model(xt, sigma), expected, atol=1e-3)


@EACH_CASE
def test_score_entropy_and_loss(kind: str, stage: int) -> None:
    """Found: 5e-7 absorbing, 1.1e-4 uniform; losses to a relative 3e-6."""
    file = golden(kind)
    xt, x0, sigma = file.of_stage("xt", stage), file.of_stage("x0", stage), file.values["sigma"]
    log_score = file.of_stage("log_score", stage)
    if kind == "absorb":
        found = absorbing_score_entropy(log_score, xt, x0, sigma)
        tolerance = ABSOLUTE
    else:
        found = uniform_score_entropy(log_score, xt, x0, sigma)
        tolerance = {"rtol": 0.0, "atol": 2e-4}
    torch.testing.assert_close(found, file.of_stage("score_entropy", stage), **tolerance)
    loss = file.values["dsigma"] * found.sum(-1)
    torch.testing.assert_close(loss, file.of_stage("loss", stage), rtol=1e-5, atol=1e-5 if kind == "absorb" else 2e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fused_loss_of_the_network(stage: int) -> None:
    """What training computes: hidden states at masked positions, then the fused loss. Found: 1e-6 relative."""
    file = golden("absorb")
    xt, x0, sigma = file.of_stage("xt", stage), file.of_stage("x0", stage), file.values["sigma"]
    rows = Rows(*torch.nonzero(xt == file.model.config.vocab_size, as_tuple=True))
    head = file.model.output_layer.linear
    total, entropies = fused_absorbing_score_entropy(
        file.model.hidden(xt, sigma, file.prefix(stage), rows=rows),
        head.weight,
        head.bias,
        x0[rows],
        sigma[rows.batch],
        file.values["dsigma"][rows.batch],
        parameterization="score",
        log_scale=file.model.log_scale(sigma)[rows.batch],
    )
    # Entropies reach 150, where one float32 step is 1.5e-5.
    torch.testing.assert_close(entropies, file.of_stage("score_entropy", stage)[rows], rtol=2e-7, atol=1e-5)
    torch.testing.assert_close(total, file.of_stage("loss", stage).sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["euler", "analytic"])
@EACH_CASE
def test_predictor_probabilities(kind: str, stage: int, name: str) -> None:
    """Found: 1e-9 absorbing; 1.3e-5 uniform, where values reach 10."""
    file = golden(kind)
    t = file.values["t"]
    predictor = EulerPredictor() if name == "euler" else TweediePredictor()
    found = predictor.step_probs(
        file.process,
        file.schedule,
        file.of_stage("log_score", stage),
        file.of_stage("xt", stage),
        t,
        t - file.values["predictor_dt"],
    )
    torch.testing.assert_close(found, file.of_stage(f"{name}_probs", stage), **file.tolerance)


@EACH_CASE
def test_denoiser_probabilities(kind: str, stage: int) -> None:
    """The stored ones are unnormalised and keep MASK; ours drop it and sum to one. Found: 8e-9; 4e-5 relative."""
    file = golden(kind)
    log_score, xt, sigma = file.of_stage("log_score", stage), file.of_stage("xt", stage), file.values["sigma"]
    stored = file.of_stage("denoiser_probs", stage)
    raw = file.process.staggered_score(log_score.exp(), sigma) * file.process.transposed_transition_probs(xt, sigma)
    # Uniform: at sigma = 18 the two terms are 6e7 times larger than their difference in places.
    torch.testing.assert_close(raw, stored, **(ABSOLUTE if kind == "absorb" else {"rtol": 1e-4, "atol": 2e-5}))
    expected = stored.clamp_min(0)
    if kind == "absorb":
        expected = torch.cat([expected[..., :-1], torch.zeros_like(expected[..., :1])], -1)
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(denoise_probs(file.process, log_score, xt, sigma), expected, **ABSOLUTE)
