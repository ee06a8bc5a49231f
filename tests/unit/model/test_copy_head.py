"""The copy head as a part of the network: how it begins, what is kept while sampling, checkpoints and warm starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.errors import CheckpointError, ConfigError
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.model.warm_start import start_from
from cascaded_dllm.sample.predictors import FirstHittingPredictor
from cascaded_dllm.sample.sampler import StageSampler
from tests.unit.model.tiny import SIZES, VOCAB, tiny_batch, tiny_model

COPYING: dict[str, Any] = {"parameterization": "normalized", "copy_head": True}
PLAIN: dict[str, Any] = {"parameterization": "normalized"}
EACH_ATTENTION = pytest.mark.parametrize("attention", ["joint", "one_way"])


def stored(folder: Path, **settings: Any) -> Path:
    """A checkpoint with the weights of seed 1."""
    folder.mkdir()
    model = tiny_model(seed=1, **settings)
    described = StageSettings(model.config, {"type": "loglinear"}, stage=2, stage_lengths=(4, 5), tokenizer="abc")
    (folder / "config.json").write_text(described.to_json())
    for name in ("model.safetensors", "ema.safetensors"):
        save_file(model.state_dict(), folder / name)
    return folder


def without_key(folder: Path) -> None:
    """The settings as they were stored before there was a copy head."""
    settings = json.loads((folder / "config.json").read_text())
    del settings["model"]["copy_head"]
    (folder / "config.json").write_text(json.dumps(settings))


def log_score(model: ScoreModel) -> torch.Tensor:
    with torch.no_grad():
        return model(*tiny_batch())


@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_scores_that_are_not_normalized_cannot_be_mixed(process: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"model\.copy_head is true and model\.parameterization score.*parameterization=normalized, or",
    ):
        ScoreModelConfig(**SIZES, process=process, copy_head=True)  # type: ignore[arg-type]


@EACH_ATTENTION
def test_a_new_network_begins_as_the_plain_one(attention: str) -> None:
    """Beside a softmax that is uniform, 5 % of every law are spread over the prefix, and all weights can learn."""
    torch.manual_seed(0)
    model = ScoreModel(ScoreModelConfig(**SIZES, **COPYING, prefix_attention=attention))  # type: ignore[arg-type]
    xt, sigma, prefix = tiny_batch()
    states = model.states(xt, sigma, prefix)
    assert states.copies is not None
    gate = states.copies.log_copy.exp()
    torch.testing.assert_close(gate, torch.full_like(gate, 0.0474), rtol=1e-3, atol=0)
    probs = model.read(states)[..., :VOCAB].exp()
    assert (probs >= (1 - 0.0475) / VOCAB).all()
    (-states.copies.log_prob_copied(prefix[:, :1].expand(-1, 5))).sum().backward()
    assert model.copy_head is not None
    for name in ("query.weight", "key.weight", "gate.weight", "gate.bias"):
        gradient = model.copy_head.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0, name


def test_without_a_prefix_it_is_the_plain_head() -> None:
    copying, plain = tiny_model(**COPYING), tiny_model(**PLAIN)
    weights = {name: weight for name, weight in copying.state_dict().items() if not name.startswith("copy_head.")}
    plain.load_state_dict(weights)
    xt, sigma, prefix = tiny_batch()
    assert torch.equal(copying(xt, sigma), plain(xt, sigma))
    empty = torch.full_like(prefix, VOCAB)
    torch.testing.assert_close(copying(xt, sigma, empty), plain(xt, sigma, empty), rtol=0, atol=1e-5)
    assert not torch.allclose(copying(xt, sigma, prefix), plain(xt, sigma, prefix), atol=1e-2)


def test_keys_of_a_one_way_prefix_are_made_once() -> None:
    """Joint ones change with every call, since the prefix sees the target."""
    for attention, num_calls in (("one_way", 1), ("joint", 6)):
        model, seen = tiny_model(prefix_attention=attention, **COPYING), []
        assert model.copy_head is not None
        model.copy_head.key.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        sampler = StageSampler(model, AbsorbingProcess(VOCAB), LogLinearSchedule(), length=6)
        list(
            sampler.states(
                torch.tensor([[1, 2, 3]]),
                predictor=FirstHittingPredictor(),
                num_steps=1,
                draws=Draws(0, "keys"),
                sample_index=torch.arange(1),
            )
        )
        assert len(seen) == num_calls
        assert attention == "one_way" or not torch.equal(seen[0], seen[-1])


@EACH_ATTENTION
def test_the_head_stays_in_float32(attention: str) -> None:
    model = tiny_model(prefix_attention=attention, **COPYING)
    model.keep_trunk_in(torch.bfloat16)
    assert model.copy_head is not None
    assert {parameter.dtype for parameter in model.copy_head.parameters()} == {torch.float32}
    states = model.states(*tiny_batch())
    assert states.copies is not None
    assert states.copies.log_pointer.dtype == model.read(states).dtype == torch.float32


@EACH_ATTENTION
def test_checkpoint(tmp_path: Path, attention: str) -> None:
    settings = COPYING | {"prefix_attention": attention}
    stage = load_stage(stored(tmp_path / "a", **settings))
    assert stage.settings.model == tiny_model(**settings).config
    assert torch.equal(log_score(stage.model), log_score(tiny_model(seed=1, **settings)))
    names = {name for name in load_file(tmp_path / "a" / "model.safetensors") if name.startswith("copy_head")}
    parts = ("norm_key.weight", "query.weight", "key.weight", "gate.weight", "gate.bias")
    assert names == {f"copy_head.{part}" for part in parts}


def test_checkpoint_from_before_the_copy_head(tmp_path: Path) -> None:
    without_key(stored(tmp_path / "a"))
    stage = load_stage(tmp_path / "a")
    assert stage.settings.model.copy_head is False
    assert torch.equal(log_score(stage.model), log_score(tiny_model(seed=1)))


def test_a_key_that_was_lost_is_no_key_that_was_never_there(tmp_path: Path) -> None:
    """The weights of the head say so."""
    without_key(stored(tmp_path / "a", **COPYING))
    with pytest.raises(CheckpointError, match=r"do not fit the network: unexpected copy_head\.gate\.bias"):
        load_stage(tmp_path / "a")


def test_start_from_a_network_without_a_copy_head(tmp_path: Path) -> None:
    """All weights are those of the start but for the head's, which are its own."""
    source, model, own = stored(tmp_path / "a", **PLAIN), tiny_model(seed=9, **COPYING), tiny_model(seed=9, **COPYING)
    start_from(str(source), model, weights="raw", tokenizer="abc")
    theirs = tiny_model(seed=1, **PLAIN).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, own.state_dict()[name] if name.startswith("copy_head.") else theirs[name]), name
    # A gate that is shut makes it the network that it started from.
    assert model.copy_head is not None
    with torch.no_grad():
        model.copy_head.gate.weight.zero_()
        model.copy_head.gate.bias.fill_(-40)
    torch.testing.assert_close(log_score(model), log_score(tiny_model(seed=1, **PLAIN)), rtol=0, atol=1e-5)


def test_start_from_a_network_with_a_copy_head(tmp_path: Path) -> None:
    source = stored(tmp_path / "a", **COPYING)
    model = tiny_model(seed=9, **COPYING)
    start_from(str(source), model, weights="raw", tokenizer="abc")
    assert torch.equal(log_score(model), log_score(tiny_model(seed=1, **COPYING)))
    with pytest.raises(CheckpointError, match=r"model\.copy_head is True there and False here; give the settings"):
        start_from(str(source), tiny_model(seed=9, **PLAIN), weights="raw", tokenizer="abc")
