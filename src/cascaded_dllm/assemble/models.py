"""Checks of the other models that a run names, before its windows are built, so that a mistake costs no time."""

from pathlib import Path

from cascaded_dllm.assemble.stage import layout_config, model_config
from cascaded_dllm.assemble.start import starts_from_another
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.model.pretrained import read_settings
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.model.warm_start import require_startable
from cascaded_dllm.sample.belonging import TextKind, require_before
from cascaded_dllm.sample.predictors import predictor_from_name
from cascaded_dllm.sample.sampler import require_usable


def require_models(config: TrainConfig, held: Settings, texts: TextKind, folder: Path) -> None:
    """Checks the settings of the checkpoints and the judge that a run names; their weights are read later.

    Args:
        config: of the run.
        held: what the training data was made with.
        texts: the kind of texts the run trains on.
        folder: of the run.

    Raises:
        CheckpointError: a checkpoint is missing, or does not belong to this run.
        ConfigError: earlier stages cannot be sampled as configured, the half of a placed stage that is not trained
            would be no trained one, or there is no such judge.
        MissingExtraError: there is a judge, and its library is not installed.
    """
    source = config.pretrained.model_path
    if starts_from_another(config, folder):
        ours = model_config(config, held.vocab_size)
        found = read_settings(source)
        require_startable(source, found, ours, tokenizer=held.tokenizer)
        _require_other_half(config, ours, source, found)
    generated, sampling = config.training.generated_prefix, config.sampling
    for path, settings in _before(config, generated.stage_paths, texts, "training.generated_prefix.stage_paths"):
        if settings.layout is not None:
            raise ConfigError(
                f"{path} is a placed stage, which cannot rewrite a part of a text; leave it out of "
                "training.generated_prefix.stage_paths"
            )
        process = process_from_name(settings.model.process, settings.model.vocab_size)
        predictor = predictor_from_name(generated.predictor)
        require_usable(predictor, process, generated.num_steps, group="training.generated_prefix.")
    if sampling.num_samples > 0:
        _before(config, config.earlier_paths, texts, "earlier_stages, or stage1_root_dir and stage2_root_dir")
        if config.evaluation.judge is not None:
            Judge.require(config.evaluation.judge)


def _require_other_half(config: TrainConfig, ours: ScoreModelConfig, source: str, found: StageSettings) -> None:
    """Checks that the half of a placed stage that is not trained is a trained one, if only one half is trained.

    Raises:
        ConfigError: `source` has no layout network of the same shape, or is a network that needs a prefix.
    """
    halves = config.training.halves
    if halves == "layout" and found.stage > 1 and found.layout is None:
        raise ConfigError(
            f"training.halves is layout, and {source} reads a prefix, without which it has not learnt to fill in; "
            "start from a flat model or a placed stage, or train both halves"
        )
    if halves != "fill":
        return
    before, length = config.stage_lengths[config.stage - 2 : config.stage]
    wanted = layout_config(config, ours, num_tokens=before, num_new=length - before)
    if found.layout != wanted:
        has = "no layout network" if found.layout is None else f"a layout network of {found.layout.to_dict()}"
        raise ConfigError(
            f"training.halves is fill, and {source} has {has}, so that of this stage, {wanted.to_dict()}, would stay "
            "as random as it begins; start from such a placed stage, or train both halves"
        )


def _before(config: TrainConfig, paths: tuple[str, ...], texts: TextKind, key: str) -> list[tuple[str, StageSettings]]:
    """The paths and settings of the checkpoints of the stages just before this one; `key` is named in messages.

    Raises:
        CheckpointError: one is missing, or is another stage or of another cascade.
    """
    earlier = [(path, read_settings(path)) for path in paths]
    require_before(earlier, stage=config.stage, stage_lengths=config.stage_lengths, texts=texts, key=key)
    return earlier
