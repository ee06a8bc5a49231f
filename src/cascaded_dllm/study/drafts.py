"""The runs of an arm of each kind, before their costs are known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cascaded_dllm.config import TrainConfig
from cascaded_dllm.config_groups import LayoutSettings, PretrainedSettings
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study_config import ArmSettings


class Draft(NamedTuple):
    """A run of an arm, before its data, seed and number of steps are known; `starts_from` are indices of drafts."""

    stage: int
    config: TrainConfig
    starts_from: tuple[int, ...] = ()


def drafts_of(arm: ArmSettings, config: TrainConfig, lengths: Sequence[int]) -> list[Draft]:
    """The runs of an arm.

    Raises:
        ConfigError: a cascade has a single stage.
    """
    flat = Draft(0, replace(_without_prefix(config), baseline=True))
    if arm.kind == "flat":
        return [flat]
    config = replace(config, baseline=False, training=replace(config.training, fills=False))
    if len(lengths) < 2:
        raise ConfigError(f"lengths is {list(lengths)}, and a cascade has at least 2 stages; give more, or kind: flat")
    first = Draft(1, replace(_without_prefix(config), stage=1))
    later = range(2, len(lengths) + 1)
    match arm.kind:
        case "prefix":
            has_generated = config.training.generated_prefix.prob > 0
            return [first, *(Draft(k, replace(config, stage=k), (k - 2,) if has_generated else ()) for k in later)]
        case "placed":
            return [first, *(Draft(k, replace(config, stage=k, conditioning="placed")) for k in later)]
        case "from_flat":
            return [flat, first, *(Draft(k, _layout_run(config, k), (0,)) for k in later)]
    raise AssertionError(arm.kind)


def _without_prefix(config: TrainConfig) -> TrainConfig:
    """The settings of a run without a prefix; those about prefixes have fixed values, so that arms can share it."""
    training = config.training
    generated = replace(training.generated_prefix, prob=0.0, stage_paths=(), level=0.5, predictor="analytic")
    return replace(
        config,
        conditioning="prefix",
        layout=LayoutSettings(num_blocks=3),
        model=replace(config.model, prefix_attention="joint", copy_head=False),
        training=replace(
            training,
            prefix_noise=replace(training.prefix_noise, prob=0.0, kind="random"),
            prefix_dropout=0.0,
            generated_prefix=replace(generated, num_steps=16),
        ),
    )


def _layout_run(config: TrainConfig, stage: int) -> TrainConfig:
    """A placed stage around a flat network, of which only the layout is trained; `model_path` is set later."""
    base = _without_prefix(config)
    return replace(
        base,
        stage=stage,
        conditioning="placed",
        layout=config.layout,
        pretrained=PretrainedSettings(use_pretrained=True, model_path="flat", weights="ema"),
        training=replace(base.training, halves="layout"),
    )
