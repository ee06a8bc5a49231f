"""Loading a cascade: from a checkpoint of each stage, or from a bundle."""

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.diffusion.process import process_from_name
from cascaded_dllm.diffusion.schedule import schedule_from_settings
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError
from cascaded_dllm.file_names import BUNDLE_FILE
from cascaded_dllm.model.hub_folder import hub_folder
from cascaded_dllm.model.pretrained import PretrainedStage, load_stage
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.model.stage_settings import StageSettings, Weights
from cascaded_dllm.sample.belonging import (
    require_same_texts,
    require_same_tokenizer,
    with_lengths,
    written_lengths,
)
from cascaded_dllm.sample.bundle import BUILT_IN, Bundle, BundleContent
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.text.tokenizer import Tokenizer


def read_cascade(
    source: str | Path | Sequence[str | Path],
    *,
    lengths: Sequence[int] | None,
    tokenizer: str | Path | None,
    weights: Weights | None,
    device: str | torch.device,
    dtype: torch.dtype,
) -> tuple[tuple[StageSampler, ...], BundleContent, tuple[str, ...]]:
    """Loads the stages at `source`, and checks that they belong together; see `Cascade.from_pretrained`.

    Returns:
        The stages, ready to be sampled; their content as a bundle stores it; the damaged newer checkpoints of their
        runs.

    Raises:
        CheckpointError: a checkpoint or a bundle cannot be read, or the stages do not belong together.
        ConfigError: no stage is given, or something other than paths and ids, `lengths` cannot be stage lengths or
            differ from those of a checkpoint, or `weights` are not those of the bundle.
    """
    stages: Sequence[str | Path]
    bundle = _bundle(source) if isinstance(source, str | Path) else None
    if bundle is not None:
        chosen, stages = bundle.weights(weights), bundle.stage_paths
        tokenizer = tokenizer or bundle.tokenizer
    else:
        chosen = "ema" if weights is None else weights
        if not isinstance(source, str | Path | Iterable):
            raise ConfigError(f"source is {source!r}; it must be a bundle or a list of checkpoints, first stage first")
        stages = [source] if isinstance(source, str | Path) else list(source)
    if not stages:
        raise ConfigError("no stage is given; a cascade needs at least 1 checkpoint")
    for number, path in enumerate(stages, start=1):
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"checkpoint {number} is {path!r}; it must be a path or a hub id")
    # Lists of any kind are read once, not once for each stage; the specification tells what is none.
    given = tuple(lengths) if isinstance(lengths, Iterable) else lengths
    asked = None if given is None else CascadeSpec(given).stage_lengths
    first, shared = _first_stage(stages[0], asked, weights=chosen, tokenizer=tokenizer)
    loaded = [first, *(with_lengths(load_stage(path, weights=chosen), asked) for path in stages[1:])]
    used = written_lengths(loaded)
    for stage in loaded:
        require_same_tokenizer(stage, shared)
    require_same_texts(loaded)
    content = BundleContent(
        models=tuple(stage.model for stage in loaded),
        settings=tuple(stage.settings for stage in loaded),
        tokenizer=shared,
        weights=chosen,
        packing=next((stage.settings.packing for stage in loaded if stage.settings.packing), ""),
    )
    if bundle is not None:
        bundle.require_same(content)
    for stage in loaded:
        if dtype != torch.float32:
            stage.model.keep_trunk_in(dtype)
    samplers = tuple(
        stage_sampler(stage, length=length, prefix_length=prefix, device=device)
        for stage, length, prefix in zip(loaded, used, (0, *used[:-1]), strict=True)
    )
    return samplers, content, tuple(fault for stage in loaded for fault in stage.passed_over)


def stage_sampler(
    stage: PretrainedStage, *, length: int, prefix_length: int, device: str | torch.device
) -> StageSampler:
    """A stage from a checkpoint, on `device` and ready to be sampled."""
    return _sampler(stage.model.to(device), stage.settings, length, prefix_length)


def require_as_loaded(samplers: Sequence[StageSampler], content: BundleContent) -> None:
    """Checks that a cascade is still as its checkpoints say, so that a bundle of it gives the same texts.

    Raises:
        ConfigError: the order of the stages or one of their settings was changed after loading.
    """
    lengths = content.stage_lengths
    differing = []
    for number, (found, settings, length, prefix_length) in enumerate(
        zip(samplers, content.settings, lengths, (0, *lengths[:-1]), strict=True), start=1
    ):
        said = _sampler(found.model, settings, length, prefix_length)
        names = ["model"] if found.model.config != settings.model else []
        names += [field.name for field in fields(said) if getattr(found, field.name) != getattr(said, field.name)]
        differing += [f"the {', '.join(names)} of stage {number}"] if names else []
    packings = {settings.packing for settings in content.settings if settings.packing} or {""}
    fingerprints = {settings.tokenizer for settings in content.settings if settings.tokenizer}
    sizes = {settings.model.vocab_size for settings in content.settings}
    differing += ["the packing"] if packings != {content.packing} else []
    if fingerprints - {content.tokenizer.fingerprint} or sizes != {content.tokenizer.vocab_size}:
        differing.append("the tokenizer")
    if differing:
        raise ConfigError(
            f"the stages of the cascade differ from what its checkpoints say in {', '.join(differing)}; save the "
            "cascade as Cascade.from_pretrained has loaded it, which may be its first stages alone"
        )


def bundle_folder(source: str | Path) -> Path:
    """The folder of the bundle at a path or hub id, or of a built-in one.

    Raises:
        CheckpointError: there is nothing, or something that is not a bundle.
    """
    name = str(source)
    if not Path(name).exists() and name not in BUILT_IN and (near := difflib.get_close_matches(name, BUILT_IN, n=1)):
        raise CheckpointError(f"there is no bundle {name}; did you mean {near[0]}, which comes with this package?")
    folder = _local_folder(source)
    if not (folder / BUNDLE_FILE).is_file():
        raise CheckpointError(
            f"{source} is not a bundle of all stages: it has no {BUNDLE_FILE}; give a folder or hub id that "
            "`cdllm bundle` made, or name the stages one by one with --stage"
        )
    return folder


def _sampler(model: ScoreModel, settings: StageSettings, length: int, prefix_length: int) -> StageSampler:
    """The sampler of a stage with the settings of its checkpoint."""
    return StageSampler(
        model,
        process_from_name(settings.model.process, settings.model.vocab_size),
        schedule_from_settings(settings.noise),
        length,
        prefix_length=prefix_length,
        trained_with=settings.prefix,
    )


def _local_folder(source: str | Path) -> Path:
    """The place of `source` on this machine, downloaded if it is a hub id: what is neither built in nor a path."""
    path = Path(source)
    # A `Path` does not keep the ./ by which a folder of this name is told from the built-in one.
    if isinstance(source, str) or not path.exists():
        path = BUILT_IN.get(str(source), path)
    return path if path.exists() else hub_folder(str(source))


def _bundle(source: str | Path) -> Bundle | None:
    """The bundle at a name, path or hub id; None if its folder has no cascade.json, as that of a checkpoint."""
    folder = _local_folder(source)
    return Bundle.open(folder) if (folder / BUNDLE_FILE).is_file() else None


def _first_stage(
    source: str | Path, lengths: tuple[int, ...] | None, *, weights: Weights, tokenizer: str | Path | None
) -> tuple[PretrainedStage, Tokenizer]:
    """The first stage, and the tokenizer of all; of `load_stage`, `with_lengths` and `_tokenizer` it has the errors.

    A run that is going on may delete the checkpoint in between. Then both are read from the next one.
    """
    while True:
        first = with_lengths(load_stage(source, weights=weights), lengths)
        try:
            return first, _tokenizer(first, tokenizer)
        except DataError:
            if first.folder.is_dir() or first.folder == Path(source):
                raise


def _tokenizer(first: PretrainedStage, named: str | Path | None) -> Tokenizer:
    """The tokenizer `named`, or by default the one beside the first stage's weights.

    Raises:
        CheckpointError: there is neither.
    """
    source = named or first.tokenizer_path
    if source is None:
        raise CheckpointError(f"{first.folder} holds no tokenizer.json; name one with --tokenizer, for example gpt2")
    return Tokenizer.load(source)
