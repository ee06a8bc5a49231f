"""A run folder of the original code and a SEDD hub folder load and give the stored log scores."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file

from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.warm_start import start_from

FOLDER = Path(__file__).parent
EXPECTED = load_file(FOLDER / "legacy_run_expected.safetensors")
# hub_model holds the raw weights of the same network; it has one set, so both names give it.
CASES = [
    ("legacy_run", "ema", "ema"),
    ("legacy_run", "raw", "raw"),
    ("hub_model", "ema", "raw"),
    ("hub_model", "raw", "raw"),
]


@pytest.mark.parametrize(("folder", "weights", "stored"), CASES)
def test_log_score(folder: str, weights: Literal["ema", "raw"], stored: str) -> None:
    """Found: 5e-7."""
    model = ScoreModel.from_pretrained(FOLDER / folder, weights=weights)
    assert not model.training
    with torch.no_grad():
        found = model(EXPECTED["xt"], EXPECTED["sigma"], EXPECTED["prefix"])
    torch.testing.assert_close(found, EXPECTED[f"log_score_{stored}_weights"], rtol=0, atol=1e-5)


def test_average_is_the_default_and_not_the_raw_weights() -> None:
    default, ema, raw = (
        ScoreModel.from_pretrained(FOLDER / "legacy_run", **choice)
        for choice in ({}, {"weights": "ema"}, {"weights": "raw"})
    )
    weight = default.output_layer.linear.weight
    torch.testing.assert_close(weight, ema.output_layer.linear.weight, rtol=0, atol=0)
    assert not torch.equal(weight, raw.output_layer.linear.weight)
    gap = (EXPECTED["log_score_ema_weights"] - EXPECTED["log_score_raw_weights"]).abs().max()
    assert gap > 1e-3, "the two sets of weights must be told apart by the tolerance"


def test_settings_of_the_original_run() -> None:
    stage = load_stage(str(FOLDER / "legacy_run"))
    assert stage.settings.stage == 3
    assert stage.settings.stage_lengths == (4, 8, 16)
    assert dict(stage.settings.noise) == {"type": "loglinear"}
    config = stage.model.config
    assert (config.vocab_size, config.hidden_size, config.num_heads, config.num_blocks) == (60, 32, 2, 2)
    assert (config.process, config.parameterization, config.prefix_attention) == ("absorbing", "score", "joint")
    assert config.scale_by_sigma
    assert config.time_conditioning
    assert stage.tokenizer_path is None


def test_settings_of_the_hub_folder() -> None:
    settings = load_stage(FOLDER / "hub_model").settings
    assert (settings.stage, settings.stage_lengths, settings.tokenizer) == (0, (), "")


def test_a_flat_network_of_sedd_fills_a_placed_stage() -> None:
    """Its scores are its own, to the bit."""
    flat = load_stage(FOLDER / "hub_model")
    sizes = {name: getattr(flat.settings.model, name) for name in ("hidden_size", "num_heads", "cond_dim")}
    layout = LayoutConfig(vocab_size=60, num_tokens=8, num_new=8, num_blocks=1, **sizes)
    placed = PlacedModel(flat.settings.model, layout).eval()
    start_from(str(FOLDER / "hub_model"), placed, weights="raw", tokenizer="unknown")
    xt = torch.randint(61, (2, 16), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 2.0])
    with torch.no_grad():
        assert torch.equal(placed(xt, sigma), flat.model(xt, sigma))
