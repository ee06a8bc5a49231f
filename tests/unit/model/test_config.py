"""Configurations of a network: what is refused and with which words, and the way through a checkpoint."""

import math
from typing import Any

import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from tests.unit.model.tiny import COMBINATIONS, SIZES
from tests.unit.model.unchecked import without_type_checks


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_are_at_least_one(name: str, value: int) -> None:
    # The number of tokens is no key of a configuration.
    key = name if name == "vocab_size" else rf"model\.{name}"
    with pytest.raises(ConfigError, match=rf"^{key} is {value}; it must be at least 1"):
        ScoreModelConfig(**(SIZES | {name: value}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"process": "absorb"}, r"^process \(graph\.type\) is 'absorb'; it must be one of absorbing, uniform"),
        ({"parameterization": "mean"}, r"model\.parameterization is 'mean'; it must be one of score, normalized"),
        ({"prefix_attention": "full"}, r"model\.prefix_attention is 'full'; it must be one of joint, one_way"),
        ({"hidden_size": 18}, r"model\.hidden_size is 18 and model\.num_heads 2; .* a multiple of twice the heads, 4"),
        ({"num_heads": 16}, r"must be a multiple of twice the heads, 32"),
        ({"dropout": 1.0}, r"model\.dropout is 1\.0; it must be at least 0 and less than 1"),
        ({"dropout": -0.1}, r"model\.dropout is -0\.1"),
        ({"dropout": math.nan}, r"model\.dropout is nan"),
        (
            {"copy_head": True},
            r"model\.copy_head is true and model\.parameterization score; .*parameterization=normalized",
        ),
        (
            {"process": "uniform", "parameterization": "normalized"},
            r"is normalized and process \(graph\.type\) uniform; .* absorbing process: set model\.parameterization=",
        ),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with without_type_checks(), pytest.raises(ConfigError, match=message):
        ScoreModelConfig(**(SIZES | settings))


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_dictionary_and_back(options: dict[str, Any]) -> None:
    config = ScoreModelConfig(**(SIZES | options | {"dropout": 0.1}))
    assert ScoreModelConfig.from_dict(config.to_dict()) == config
    assert config.num_states == config.vocab_size + (config.process == "absorbing")


def test_unknown_and_missing_keys_are_listed() -> None:
    settings = ScoreModelConfig(**SIZES).to_dict()
    del settings["dropout"], settings["process"]
    with pytest.raises(ConfigError, match=r"unknown keys \['depth', 'width'\] and lack \['dropout', 'process'\]"):
        ScoreModelConfig.from_dict(settings | {"width": 1, "depth": 2})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"process": "uniform"},
        {"num_blocks": 3, "hidden_size": 24, "cond_dim": 5},
        {"parameterization": "normalized", "copy_head": True},
    ],
)
def test_number_of_parameters(options: dict[str, Any]) -> None:
    """Every tensor of a SEDD checkpoint of these sizes and of the copy head, and none that nothing reads."""
    config = ScoreModelConfig(**(SIZES | options))
    width, cond, states = config.hidden_size, config.cond_dim, config.num_states
    block = 2 * width + 4 * width**2 + (8 * width**2 + 5 * width) + 6 * width * (cond + 1)
    head = width + states * (width + 1) + 2 * width * (cond + 1)
    embeddings = states * width + (256 * cond + cond) + (cond**2 + cond)
    copying = 2 * width**2 + (width + 1) + width if config.copy_head else 0
    found = sum(parameter.numel() for parameter in ScoreModel(config).parameters())
    assert found == config.num_blocks * block + head + embeddings + copying


def test_defaults_are_the_small_size() -> None:
    config = ScoreModelConfig(vocab_size=50_257)
    assert (config.hidden_size, config.num_heads, config.num_blocks, config.cond_dim) == (768, 12, 12, 128)
