"""Starting from other weights: exactly those, or an error that lists every difference."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.model.warm_start import start_from
from tests.unit.model.tiny import tiny_batch, tiny_model

GOLDEN = Path(__file__).parents[2] / "golden"
LENGTHS = (4, 5)


def checkpoint(folder, *, stage=2, tokenizer="abc", **settings):
    """Raw weights of seed 1, averaged ones of seed 2."""
    folder.mkdir()
    raw, average = tiny_model(seed=1, **settings), tiny_model(seed=2, **settings)
    described = StageSettings(raw.config, {"type": "loglinear"}, stage, LENGTHS, tokenizer=tokenizer)
    (folder / "config.json").write_text(described.to_json())
    save_file(raw.state_dict(), folder / "model.safetensors")
    save_file(average.state_dict(), folder / "ema.safetensors")
    return str(folder)


def log_score(model):
    with torch.no_grad():
        return model(*tiny_batch())


@pytest.mark.parametrize(("weights", "seed"), [("ema", 2), ("raw", 1)])
def test_the_weights_are_copied(tmp_path, weights, seed):
    source, model = checkpoint(tmp_path / "a"), tiny_model(seed=9)
    stage = start_from(source, model, weights=weights, tokenizer="abc")
    assert torch.equal(log_score(model), log_score(tiny_model(seed=seed)))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (str(stage.folder), stage.settings.stage) == (source, 2)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_any_stage_may_be_the_start_of_any_other(tmp_path, stage):
    model = tiny_model(seed=9)
    start_from(checkpoint(tmp_path / "a", stage=stage), model, weights="ema", tokenizer="abc")
    assert torch.equal(log_score(model), log_score(tiny_model(seed=2)))


def test_dropout_is_free(tmp_path):
    model = tiny_model(seed=9, dropout=0.3)
    start_from(checkpoint(tmp_path / "a", dropout=0.1), model, weights="ema", tokenizer="abc")
    assert model.config.dropout == 0.3
    assert torch.equal(log_score(model), log_score(tiny_model(seed=2)))


@pytest.mark.parametrize(
    ("there", "here", "stage", "is_allowed"),
    [
        ("joint", "one_way", 2, True),
        ("one_way", "joint", 2, False),
        ("one_way", "joint", 1, True),
        ("one_way", "joint", 0, True),
        ("one_way", "one_way", 2, True),
    ],
)
def test_attention_of_the_prefix(tmp_path, there, here, stage, is_allowed):
    """One way may start from joint weights; first stages and flat models have no prefix, and no way to read one."""
    source = checkpoint(tmp_path / "a", stage=stage, prefix_attention=there)
    model = tiny_model(seed=9, prefix_attention=here)
    if not is_allowed:
        with pytest.raises(CheckpointError, match=r"model\.prefix_attention is one_way there and joint here; give the"):
            start_from(source, model, weights="ema", tokenizer="abc")
        return
    start_from(source, model, weights="ema", tokenizer="abc")
    assert torch.equal(log_score(model), log_score(tiny_model(seed=2, prefix_attention=here)))


@pytest.mark.parametrize(
    ("there", "listed"),
    [
        ({"num_blocks": 1}, ["model.num_blocks is 1 there and 2 here"]),
        (
            {"hidden_size": 32, "cond_dim": 4, "parameterization": "normalized"},
            [
                "model.hidden_size is 32 there and 16 here",
                "model.cond_dim is 4 there and 8 here",
                "model.parameterization is normalized there and score here",
            ],
        ),
        ({"time_conditioning": False}, ["model.time_conditioning is False there and True here"]),
        ({"scale_by_sigma": False}, ["model.scale_by_sigma is False there and True here"]),
        ({"absolute_positions": True}, ["model.absolute_positions is True there and False here"]),
        ({"process": "uniform"}, ["graph.type is uniform there and absorbing here"]),
    ],
)
def test_every_difference_is_listed(tmp_path, there, listed):
    source, model = checkpoint(tmp_path / "a", **there), tiny_model(seed=9)
    with pytest.raises(
        CheckpointError, match=r"cannot be the start of this network: .*; give the settings of its"
    ) as caught:
        start_from(source, model, weights="ema", tokenizer="abc")
    assert "; ".join(listed) in str(caught.value)
    assert torch.equal(log_score(model), log_score(tiny_model(seed=9))), "nothing was copied"


def test_weights_that_do_not_fit_their_own_settings(tmp_path):
    source, model = checkpoint(tmp_path / "a"), tiny_model(seed=9)
    path = Path(source) / "config.json"
    settings = json.loads(path.read_text())
    settings["model"]["num_blocks"] = 3
    path.write_text(json.dumps(settings))
    with pytest.raises(
        CheckpointError, match=r"do not fit the network: missing blocks\.2\.norm1\.weight; missing blocks"
    ):
        start_from(source, model, weights="ema", tokenizer="abc")


def test_another_vocabulary(tmp_path):
    source = checkpoint(tmp_path / "a", vocab_size=14)
    with pytest.raises(
        CheckpointError, match=r"has 14 tokens, and the data 13; .*preprocess the text .*--tokenizer gpt2"
    ):
        start_from(source, tiny_model(), weights="ema", tokenizer="abc")


def test_another_tokenizer_with_as_many_tokens(tmp_path):
    source = checkpoint(tmp_path / "a")
    with pytest.raises(CheckpointError, match="was trained with the tokenizer abc, the data has other; what a token"):
        start_from(source, tiny_model(), weights="ema", tokenizer="other")
    start_from(checkpoint(tmp_path / "b", tokenizer=""), tiny_model(), weights="ema", tokenizer="other")


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        start_from(str(tmp_path / "nowhere"), tiny_model(), weights="ema", tokenizer="abc")


@pytest.mark.parametrize("folder", ["hub_model", "legacy_run"])
def test_models_of_others(folder):
    """Their settings are read; what differs from ours is listed."""
    model = tiny_model(vocab_size=60)
    with pytest.raises(
        CheckpointError, match=r"model\.hidden_size is 32 there and 16 here; model\.cond_dim is 16 there"
    ):
        start_from(str(GOLDEN / folder), model, weights="raw", tokenizer="abc")
    model = tiny_model(vocab_size=60, hidden_size=32, cond_dim=16)
    start_from(str(GOLDEN / folder), model, weights="raw", tokenizer="abc")
