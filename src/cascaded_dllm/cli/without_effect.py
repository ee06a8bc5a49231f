"""Settings that are given to a run and would mean nothing beside its others: none of them is passed over."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cascaded_dllm.config import TrainConfig, leaves
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.overrides import as_written


class _Switch(NamedTuple):
    """What makes some keys mean something.

    Attributes:
        keys: that mean nothing with it off.
        name: its own key.
        value: of now.
        is_on: whether they mean something.
        remedy: how it is switched on, or where.
    """

    keys: tuple[str, ...]
    name: str
    value: object
    is_on: bool
    remedy: str


def require_effect(given: Mapping[str, Any], config: TrainConfig) -> None:
    """Checks that everything that is given means something to the run.

    What stands in files and in the settings of a run that goes on is free: only who gives a key wants it to be read.
    Nor are keys judged that scripts give to all their runs alike, such as how a prefix is attended to, or how samples
    are drawn where there are none.

    Args:
        given: values of overrides, by key.
        config: what came of it.

    Raises:
        ConfigError: a key would be passed over.
    """
    said = dict(leaves(given))
    for switch in _switches(config, said):
        for key in switch.keys:
            if switch.is_on or said.get(key) in (None, [], ()):
                continue
            raise ConfigError(
                f"{key} is {as_written(said[key])}, which means nothing while {switch.name} is "
                f"{as_written(switch.value)}: {switch.remedy}, or leave {key} out"
            )


def _switches(config: TrainConfig, said: Mapping[str, Any]) -> tuple[_Switch, ...]:
    noise, training, wandb = config.noise.type, config.training, config.logging.wandb
    rewritten, replaced = training.generated_prefix.prob, training.prefix_noise.prob
    # A first stage and a flat model are the same with either.
    has_no_layout = config.conditioning == "prefix" and config.stage > 1 and not config.baseline
    # Who says that there are no charts has not forgotten them.
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
