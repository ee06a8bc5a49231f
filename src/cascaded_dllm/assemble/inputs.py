"""What a run is made from: its data, the models that it names, and its windows, which take longest and come last."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cascaded_dllm.assemble.data import locate
from cascaded_dllm.assemble.models import require_models
from cascaded_dllm.assemble.windows import tokens_to_cut, windows_of_folder
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import TrainConfig
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import BuildCallbacks, StageArrays
from cascaded_dllm.data.stand_in import stand_in
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.sample.belonging import TextKind
from cascaded_dllm.train.run_folder import require_run_folder

_RUNS = "runs"
"""Parent of the folders of runs without a `run_dir`."""


_MANY_TOKENS = 100_000_000
"""From this many tokens on, building windows takes ten seconds or more, and gigabytes on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInputs:
    """What a run is made from.

    Attributes:
        config: with `run_dir`, folders of data and `copy_head` filled in.
        name: of the run.
        texts: the kind of texts it trains on.
        arrays: the windows to train on, with all stages.
        dataset: the stage in training of these windows.
        valid: the stage in training of the windows to measure on, or None.
        valid_arrays: the windows to measure on, with all stages, or None.
    """

    config: TrainConfig
    name: str
    texts: TextKind
    arrays: StageArrays
    dataset: StageDataset
    valid: StageDataset | None = None
    valid_arrays: StageArrays | None = None

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(str(self.config.run_dir))

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer of the training data."""
        return Path(str(self.config.data.path)) / TOKENIZER_FILE


def gather_inputs(
    config: TrainConfig, before_long_build: Callable[[RunInputs], None], building: BuildCallbacks | None = None
) -> RunInputs:
    """What a run is made from; windows are built last, after the models that the run names have been checked.

    Args:
        config: of the run.
        before_long_build: called before a long build of windows, with random windows in their place.
        building: callbacks for the building of windows and stages.

    Raises:
        DataError: the data is missing, broken or not what the configuration names.
        CheckpointError: a model is missing, or does not belong to the run.
        ConfigError: no data is named, or there is no such judge.
        OutputError: the folder of the run holds something else.
    """
    located = locate(config.data, config.run_dir)
    data, name = located.settings, config.run_name(located.held.dataset)
    run_dir = config.run_dir if config.run_dir is not None else f"{_RUNS}/{name}"
    model = replace(config.model, copy_head=config.has_copy_head)
    config = replace(config, run_dir=run_dir, data=data, model=model)
    texts = TextKind.of_data(located.held, packing=data.packing, unique=data.unique)
    require_run_folder(Path(run_dir))
    require_models(config, located.held, texts, Path(run_dir))
    made_from = partial(RunInputs, config=config, name=name, texts=texts)
    spec = CascadeSpec(config.stage_lengths)
    if tokens_to_cut(str(data.path), spec, data) >= _MANY_TOKENS:
        arrays = stand_in(located.held, spec, packing=data.packing, unique=data.unique)
        before_long_build(made_from(arrays=arrays, dataset=_dataset(arrays, config)))
    arrays, dataset = stage_dataset(str(data.path), config, building)
    arrays.for_random_access()
    valid_arrays, valid = (None, None) if data.valid is None else stage_dataset(data.valid, config, building)
    return made_from(arrays=arrays, dataset=dataset, valid=valid, valid_arrays=valid_arrays)


def stage_dataset(
    path: str, config: TrainConfig, building: BuildCallbacks | None = None
) -> tuple[StageArrays, StageDataset]:
    """The windows of a preprocessed folder with all stages, and those of the configured stage or of the flat model."""
    arrays = windows_of_folder(path, CascadeSpec(config.stage_lengths), config.data, building=building)
    return arrays, _dataset(arrays, config)


def _dataset(arrays: StageArrays, config: TrainConfig) -> StageDataset:
    if config.baseline:
        return StageDataset.flat(arrays)
    return StageDataset(arrays, config.stage, is_placed=config.is_placed)
