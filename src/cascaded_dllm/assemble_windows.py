"""The windows of a preprocessed folder, cut as a configuration or the models of a cascade want them."""

from pathlib import Path

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.config import DataSettings
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.processes import usable_cores
from cascaded_dllm.sample.cascade import Cascade

# Of the processes that build stages: the one that writes what they give keeps up with about so many.
_MAX_WORKERS = 8


def windows_of_folder(path: str, spec: CascadeSpec, data: DataSettings, *, keeps_all: bool = False) -> StageArrays:
    """The windows and stages of a preprocessed folder, built if they are not there yet.

    Args:
        path: of the folder.
        spec: the stage lengths.
        data: how documents lie in windows, and where these are kept.
        keeps_all: whether windows with too few different tokens for their stages are kept, see `StageArrays.build`.
    """
    # `build` rejects a packing that does not exist.
    out = None if data.stages_dir is None else Path(data.stages_dir)
    workers = min(usable_cores(), _MAX_WORKERS)
    return StageArrays.build(
        Path(path), spec, packing=data.packing, unique=data.unique, keeps_all=keeps_all, out=out, workers=workers
    )


def windows_of_cascade(cascade: Cascade, data: DataSettings, *, keeps_all: bool = False) -> StageArrays:
    """The windows of `data.path` with the stages that the models of a cascade were trained on.

    Args:
        cascade: whose checkpoints say how windows are cut.
        data: where they are.
        keeps_all: as in `windows_of_folder`.

    Raises:
        ConfigError: the windows are to be cut, or their stages chosen, in another way than in training.
        DataError: the data has another tokenizer than the cascade, or another method.
    """
    if cascade.packing not in ("", data.packing):
        raise ConfigError(
            f"the packing is {data.packing!r}, and the models were trained on windows of packing {cascade.packing!r}: "
            "texts of another kind would be measured; leave --packing out"
        )
    # A flat model writes windows, however their stages are chosen.
    if not cascade.is_flat and data.unique != cascade.unique:
        raise ConfigError(
            f"unique is {str(data.unique).lower()}, and the stages were trained with unique="
            f"{str(cascade.unique).lower()}: they keep other tokens; leave --unique and --no-unique out"
        )
    arrays = windows_of_folder(str(data.path), CascadeSpec(cascade.trained_lengths), data, keeps_all=keeps_all)
    if arrays.tokenizer != cascade.tokenizer.fingerprint:
        raise DataError(
            f"{data.path} has the tokenizer {arrays.tokenizer}, the models {cascade.tokenizer.fingerprint}; "
            "preprocess the text with the models' tokenizer"
        )
    if not cascade.is_flat and cascade.method not in ("", arrays.method):
        raise DataError(
            f"{data.path} was preprocessed by the method {arrays.method}, and the stages were trained on texts that "
            f"{cascade.method} chose: others would be measured; preprocess the text by {cascade.method}"
        )
    return arrays
