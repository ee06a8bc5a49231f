"""The windows of a preprocessed folder, cut for a configuration or for the models of a cascade."""

from collections.abc import Mapping
from pathlib import Path

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.data.build_stages import useful_workers
from cascaded_dllm.data.preprocessed import PreprocessedDataset, read_identity
from cascaded_dllm.data.stages import BuildCallbacks, StageArrays, stages_exist
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.sample.belonging import TextKind
from cascaded_dllm.sample.cascade import Cascade

_REMEDIES: Mapping[str, str] = {
    "tokenizer": "preprocess the text with the models' tokenizer",
    "vocab_size": "preprocess the text with the models' tokenizer",
    "packing": "leave --packing out",
    "unique": "leave --unique and --no-unique out",
    "method": "preprocess the text by {method}",
    "choice": "preprocess the text with the --per and --seed, or the --scorer, of their data",
}
"""What to do if data differs from what the models were trained on, by the field of `TextKind` that differs."""


def windows_of_folder(
    path: str, spec: CascadeSpec, data: DataSettings, *, keeps_all: bool = False, building: BuildCallbacks | None = None
) -> StageArrays:
    """The windows and stages of a preprocessed folder, built if they do not exist yet.

    Args:
        path: of the folder.
        spec: the stage lengths.
        data: how documents lie in windows, and where the windows are stored.
        keeps_all: whether windows with too few different tokens for their stages are kept, see `StageArrays.build`.
        building: callbacks for the building.
    """
    building = building or BuildCallbacks()
    # `build` rejects a packing that does not exist.
    out = None if data.stages_dir is None else Path(data.stages_dir)
    return StageArrays.build(
        Path(path),
        spec,
        packing=data.packing,
        unique=data.unique,
        keeps_all=keeps_all,
        out=out,
        workers=useful_workers(),
        on_progress=building.on_progress,
        on_wait=building.on_wait,
        go_on=building.go_on,
    )


def tokens_to_cut(path: str, spec: CascadeSpec, data: DataSettings) -> int:
    """The number of tokens in a preprocessed folder whose windows are not built yet; 0 if they are.

    Raises:
        DataError: the data is missing or incomplete.
    """
    out = None if data.stages_dir is None else Path(data.stages_dir)
    if stages_exist(Path(path), spec, packing=data.packing, unique=data.unique, out=out):
        return 0
    return PreprocessedDataset.open(Path(path)).counts.tokens


def windows_of_cascade(
    cascade: Cascade, data: DataSettings, *, keeps_all: bool = False, building: BuildCallbacks | None = None
) -> StageArrays:
    """The windows of `data.path` with the stages that the models of a cascade were trained on.

    Args:
        cascade: its checkpoints say how windows are cut.
        data: where the data is, and how its windows are cut.
        keeps_all: as in `windows_of_folder`.
        building: callbacks for the building.

    Raises:
        ConfigError: `data` cuts windows, or chooses their stages, in another way than in training.
        DataError: the data is missing, or has another tokenizer or method than the cascade.
    """
    found = TextKind.of_data(read_identity(Path(str(data.path))).settings, packing=data.packing, unique=data.unique)
    if (contradiction := cascade.text_kind.contradiction(found)) is not None:
        message = (
            f"{data.path} has {contradiction.found}, and the models were trained with {contradiction.said}: other "
            f"windows would be measured; {_REMEDIES[contradiction.name].format(method=cascade.method)}"
        )
        if contradiction.name in ("packing", "unique"):
            raise ConfigError(message)
        raise DataError(message)
    spec = CascadeSpec(cascade.trained_lengths)
    return windows_of_folder(str(data.path), spec, data, keeps_all=keeps_all, building=building)
