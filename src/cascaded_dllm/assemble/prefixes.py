"""The treatment of prefixes in training, assembled from a configuration."""

import torch

from cascaded_dllm.assemble.rewriting import Writer, rewriting_cost
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.model.pretrained import PretrainedStage, load_stage
from cascaded_dllm.sample.loading import stage_sampler
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.regenerate import PrefixRegenerator, weights_fingerprint
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.train.prefixes import PrefixTraining


def prefix_settings(config: TrainConfig) -> PrefixSettings:
    """The settings for prefixes in training.

    Raises:
        ConfigError: a value is out of range, needs a MASK that the process does not have, or `stage_paths` contradicts
            `prob` or names too many stages.
    """
    noise, generated = config.training.prefix_noise, config.training.generated_prefix
    predictor_from_name(generated.predictor, key="training.generated_prefix.predictor")
    if (generated.prob > 0) != bool(generated.stage_paths):
        raise ConfigError(
            f"training.generated_prefix.prob is {generated.prob} and training.generated_prefix.stage_paths "
            f"{list(generated.stage_paths)}; give both, a probability above 0 and the folder of the stage before, or "
            "neither"
        )
    num_earlier = 0 if config.baseline else config.stage - 1
    if len(generated.stage_paths) > num_earlier:
        raise ConfigError(
            f"training.generated_prefix.stage_paths names {len(generated.stage_paths)} stages, and there are "
            f"{num_earlier} before this one; name the stage just before it, or several in order"
        )
    settings = PrefixSettings(
        noise_prob=noise.prob,
        noise_kind=noise.kind,
        dropout=config.training.prefix_dropout,
        generated_prob=generated.prob,
        generated_level=generated.level,
    )
    settings.require_mask(config.graph.type)
    return settings


def prefix_training(
    config: TrainConfig, arrays: StageArrays, stage: StageSampler, device: torch.device
) -> PrefixTraining:
    """The treatment of prefixes while `stage` is trained; earlier stages that rewrite prefixes are loaded on `device`.

    `assemble.models` has checked that they are the right ones.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        CheckpointError: a checkpoint cannot be read.
    """
    settings = prefix_settings(config)
    paths = config.training.generated_prefix.stage_paths
    if not paths:
        return PrefixTraining(stage.process, settings)
    loaded = [load_stage(path) for path in paths]
    generate = _regenerator(config, arrays, loaded, device)
    writers = [Writer(s.model.config, s.schedule, s.length, s.prefix_length or 0) for s in generate.stages]
    cost = rewriting_cost(writers, config.training.generated_prefix)
    return PrefixTraining(stage.process, settings, generate, cost)


def _regenerator(
    config: TrainConfig, arrays: StageArrays, loaded: list[PretrainedStage], device: torch.device
) -> PrefixRegenerator:
    """The regenerator that rewrites prefixes with the models of earlier stages, which stay on `device`."""
    settings, first = config.training.generated_prefix, config.stage - len(loaded)
    predictor = predictor_from_name(settings.predictor)
    fingerprint = weights_fingerprint([stage.model for stage in loaded])
    samplers = []
    for number, stage in enumerate(loaded, start=first):
        if config.dtype == "bfloat16":
            stage.model.keep_trunk_in(torch.bfloat16)
        length, prefix_length = arrays.spec.target_length(number), arrays.spec.prefix_length(number)
        samplers.append(stage_sampler(stage, length=length, prefix_length=prefix_length, device=device))
    return PrefixRegenerator(
        stages=tuple(samplers),
        texts=arrays.stages[first - 1 : config.stage - 1],
        context=arrays.stages[first - 2] if first > 1 else None,
        level=settings.level,
        predictor=predictor,
        num_steps=settings.num_steps,
        fingerprint=fingerprint,
    )
