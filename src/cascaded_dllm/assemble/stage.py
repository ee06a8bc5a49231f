"""The stage that a run trains: its network with random weights, its process and its schedule, from a configuration."""

from dataclasses import asdict

import torch

from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import Schedule, schedule_from_settings
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import new_model
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.sample.sampler import StageSampler


def schedule(config: TrainConfig) -> Schedule:
    """The noise schedule of a run; a ConfigError if a value is out of range."""
    noise = config.noise
    unread = {"loglinear": ("sigma_min", "sigma_max"), "geometric": ("eps",)}.get(noise.type, ())
    return schedule_from_settings({key: value for key, value in asdict(noise).items() if key not in unread})


def require_prefix_to_copy(config: TrainConfig) -> None:
    """Checks that a copy head has a prefix to copy from; without one, it would never be used.

    Raises:
        ConfigError: it has none.
    """
    if config.has_copy_head and not config.has_prefix:
        which = "a flat model" if config.baseline else "stage 1" if config.stage == 1 else "a placed stage"
        raise ConfigError(
            f"model.copy_head is true, and {which} has no prefix to copy from; set model.copy_head=false, or train a "
            "later stage with it (conditioning=prefix)"
        )


def new_stage(config: TrainConfig, arrays: StageArrays, dataset: StageDataset) -> StageSampler:
    """A stage in the memory of the host, with random weights that depend only on the seed and its number.

    A flat model counts as stage 1. The global generator is not changed.
    """
    settings = model_config(config, arrays.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.training.seed, "init", config.seeded_stage))
        model = new_model(settings, _layout_of(config, settings, dataset))
    model.compute_dtype = torch.bfloat16 if config.dtype == "bfloat16" else None
    return StageSampler(
        model,
        process_from_name(settings.process, arrays.vocab_size),
        schedule(config),
        dataset.target_length,
        prefix_length=dataset.prefix_length,
    )


def model_config(config: TrainConfig, vocab_size: int) -> ScoreModelConfig:
    """The network of a run over `vocab_size` tokens; a ConfigError if a value is out of range."""
    settings = asdict(config.model) | {"copy_head": config.has_copy_head}
    settings.pop("name")
    return ScoreModelConfig(vocab_size=vocab_size, process=config.graph.type, **settings)  # type: ignore[arg-type]


def layout_config(config: TrainConfig, model: ScoreModelConfig, *, num_tokens: int, num_new: int) -> LayoutConfig:
    """The layout network of a placed stage, as wide as the fill network `model`.

    Args:
        config: of the run.
        model: the fill network.
        num_tokens: number of tokens of the stage before.
        num_new: number of tokens that the stage writes between them.
    """
    return LayoutConfig(
        vocab_size=model.vocab_size,
        num_tokens=num_tokens,
        num_new=num_new,
        hidden_size=model.hidden_size,
        num_heads=model.num_heads,
        num_blocks=config.layout.num_blocks,
        cond_dim=model.cond_dim,
    )


def _layout_of(config: TrainConfig, model: ScoreModelConfig, dataset: StageDataset) -> LayoutConfig | None:
    """The layout network of a placed stage; None for any other stage."""
    if not dataset.is_placed:
        return None
    return layout_config(config, model, num_tokens=dataset.prefix_length, num_new=dataset.num_free)
