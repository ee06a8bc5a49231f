"""Sizes and settings of a judge, and what makes none."""

from typing import Any

import pytest

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.judge.settings import SIZES, JudgeSettings, JudgeSize, judge_size
from cascaded_dllm.train.optim import OptimConfig


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_names(name: str) -> None:
    size = judge_size(name)
    assert size.width % size.heads == 0
    assert judge_size(name, width=32, blocks=1, heads=2) == JudgeSize(width=32, blocks=1, heads=2)
    assert judge_size(name, blocks=7) == JudgeSize(width=size.width, blocks=7, heads=size.heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "huge"}, "--model is 'huge'; it must be one of tiny, small, gpt2"),
        ({"width": 0}, "--width is 0; it must be at least 1"),
        ({"blocks": 0}, "--blocks is 0; it must be at least 1"),
        ({"heads": -1}, "--heads is -1; it must be at least 1"),
        ({"width": 10}, "--width is 10 and --heads 4, which do not divide it; choose a width that is a multiple of 4"),
    ],
)
def test_sizes_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge_size(**({"name": "tiny"} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "--length is 1; it must be at least 2"),
        ({"packing": "loose"}, "--packing is 'loose'; it must be one of stream, document"),
        ({"num_steps": 0}, "--steps is 0; it must be at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"dropout": 1.0}, "--dropout is 1.0; it must be at least 0 and less than 1"),
    ],
)
def test_settings_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeSettings(size=judge_size("tiny"), **options)


def test_every_setting_decides() -> None:
    plain = JudgeSettings(size=judge_size("tiny")).flattened()
    changed = JudgeSettings(
        size=JudgeSize(width=8, blocks=1, heads=2),
        length=9,
        packing="stream",
        num_steps=3,
        batch_size=5,
        dropout=0.5,
        seed=7,
        optim=OptimConfig(
            lr=1.0, beta1=0.1, beta2=0.2, eps=0.3, weight_decay=0.4, warmup=6, decay="cosine", grad_clip=2.0
        ),
    ).flattened()
    assert plain.keys() == changed.keys()
    assert [key for key in plain if plain[key] == changed[key]] == []
