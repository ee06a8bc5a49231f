"""Checks that no override of a run is without effect beside its other settings; none is ignored silently."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cascaded_dllm.config import TrainConfig, leaves
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.overrides import as_written


class _Switch(NamedTuple):
    """A setting on which the effect of other keys depends.

    Attributes:
        keys: the keys that have no effect while the switch is off.
        name: key of the switch.
        value: current value of the switch.
        is_on: whether `keys` have an effect.
        remedy: how to switch it on, as the message says it.
    """

    keys: tuple[str, ...]
    name: str
    value: object
    is_on: bool
    remedy: str


def require_effect(given: Mapping[str, Any], config: TrainConfig) -> None:
    """Checks that every override has an effect on the run.

    Keys from files and from the stored settings of a resumed run are not checked: only an override shows that the user
    wants a key to be read. Keys that scripts give to all their runs alike are not checked either, such as
    model.prefix_attention, or how samples are drawn where there are none.

    Args:
        given: values of the overrides, by key.
        config: the configuration that they lead to.

    Raises:
        ConfigError: a key would have no effect.
    """
    said = dict(leaves(given))
    for switch in _switches(config, said):
        for key in switch.keys:
            if switch.is_on or said.get(key) in (None, [], ()):
                continue
            raise ConfigError(
                f"{key} is {as_written(said[key])}, which has no effect while {switch.name} is "
                f"{as_written(switch.value)}: {switch.remedy}, or leave {key} out"
            )


def _switches(config: TrainConfig, said: Mapping[str, Any]) -> tuple[_Switch, ...]:
    noise, training, wandb = config.noise.type, config.training, config.logging.wandb
    rewritten, replaced = training.generated_prefix.prob, training.prefix_noise.prob
    # The first stage and a flat model are the same for both values of conditioning.
    has_no_layout = config.conditioning == "prefix" and config.stage > 1 and not config.baseline
    # A user who gives logging.wandb=disabled besides has not forgotten to switch the charts on.
    has_charts = wandb != "disabled" or "logging.wandb" in said
    number = config.sampling.num_samples
    group = "training.generated_prefix"
    return (
        _Switch(
            ("pretrained.model_path", "pretrained.weights"),
            "pretrained.use_pretrained",
            config.pretrained.use_pretrained,
            config.pretrained.use_pretrained,
            "give pretrained.use_pretrained=true as well",
        ),
        _Switch(
            ("evaluation.judge", "earlier_stages", "stage1_root_dir", "stage2_root_dir"),
            "sampling.num_samples",
            number,
            number > 0,
            "ask for samples",
        ),
        _Switch(("noise.eps",), "noise.type", noise, noise != "geometric", "set noise.type=loglinear"),
        _Switch(
            ("noise.sigma_min", "noise.sigma_max"),
            "noise.type",
            noise,
            noise != "loglinear",
            "set noise.type=geometric",
        ),
        _Switch(
            ("training.prefix_noise.kind",),
            "training.prefix_noise.prob",
            replaced,
            replaced > 0,
            "give a probability above 0",
        ),
        _Switch(
            (f"{group}.level", f"{group}.predictor", f"{group}.num_steps"),
            f"{group}.prob",
            rewritten,
            rewritten > 0,
            f"give a probability above 0 and {group}.stage_paths",
        ),
        _Switch(
            ("layout.num_blocks",), "conditioning", config.conditioning, not has_no_layout, "set conditioning=placed"
        ),
        _Switch(
            ("logging.project", "logging.name"),
            "logging.wandb",
            wandb,
            has_charts,
            "set logging.wandb=online or offline",
        ),
    )
