"""What a run is made from: data, the models that it names, and windows, which take longest and are built last."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cascaded_dllm.assemble.data import locate
from cascaded_dllm.assemble.models import require_models
from cascaded_dllm.assemble.windows import tokens_to_cut, windows_of_folder
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import Building, StageArrays
from cascaded_dllm.data.stand_in import stand_in
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.sample.belonging import TextKind

_RUNS = "runs"
"""Where the folders of runs lie that have no name of their own."""


_MANY_TOKENS = 100_000_000
"""Of so many on, windows take ten seconds and more to build, and gigabytes of the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a run is made from.

    Attributes:
        config: with its folders and choices.
        name: of the run.
        texts: what kind of texts it trains on.
        arrays: the windows to train on, in all stages.
        dataset: of the stage in training.
        valid: the windows to measure on, or None.
        valid_arrays: the same in all stages.
    """

    config: TrainConfig
    name: str
    texts: TextKind
    arrays: StageArrays
    dataset: StageDataset
    valid: StageDataset | None
    valid_arrays: StageArrays | None

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(str(self.config.run_dir))

    @property
    def tokenizer_file(self) -> Path:
        """Of the training data."""
        return Path(str(self.config.data.path)) / TOKENIZER_FILE


def gather(
    config: TrainConfig, before_long_build: Callable[[Material], None], building: Building | None = None
) -> Material:
    """What a run is made from; windows are built once the models that it names are found to belong to it.

    Args:
        config: of the run.
        before_long_build: called before windows are built that take long, with others of chance in their place.
        building: told how windows and stages are built.

    Raises:
        DataError: data is not there, broken or not what is asked for.
        CheckpointError: a model is not there, or does not belong to the run.
        ConfigError: no data is named, or there is no such judge.
    """
    located = locate(config.data, config.run_dir)
    data, name = located.settings, config.run_name(located.held.dataset)
    run_dir = config.run_dir if config.run_dir is not None else f"{_RUNS}/{name}"
    model = replace(config.model, copy_head=config.has_copy_head)
    config = replace(config, run_dir=run_dir, data=data, model=model)
    texts = TextKind.of_data(located.held, packing=data.packing, unique=data.unique)
    require_models(config, located.held, texts, Path(run_dir))
    spec = CascadeSpec(config.stage_lengths)
    if tokens_to_cut(str(data.path), spec, data) >= _MANY_TOKENS:
        arrays = stand_in(located.held, spec, packing=data.packing, unique=data.unique)
        dataset = _dataset(arrays, config)
        before_long_build(
            Material(
                config=config, name=name, texts=texts, arrays=arrays, dataset=dataset, valid=None, valid_arrays=None
            )
        )
    arrays, dataset = stage_dataset(str(data.path), config, building)
    arrays.for_random_access()
    valid_arrays, valid = (None, None) if data.valid is None else stage_dataset(data.valid, config, building)
    return Material(
        config=config,
        name=name,
        texts=texts,
        arrays=arrays,
        dataset=dataset,
        valid=valid,
        valid_arrays=valid_arrays,
    )


def stage_dataset(path: str, config: TrainConfig, building: Building | None = None) -> tuple[StageArrays, StageDataset]:
    """The windows of the configured stage, or of the flat model, of a preprocessed folder."""
    arrays = windows_of_folder(path, CascadeSpec(config.stage_lengths), config.data, building=building)
    return arrays, _dataset(arrays, config)


def _dataset(arrays: StageArrays, config: TrainConfig) -> StageDataset:
    if config.baseline:
        return StageDataset.flat(arrays)
    return StageDataset(arrays, config.stage, is_placed=config.is_placed)
