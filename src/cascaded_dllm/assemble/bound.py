"""The joint bound of a cascade on preprocessed windows, from a folder or in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cascaded_dllm.assemble.windows import windows_of_cascade
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.data.dataset import StageDataset, evenly_spaced
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.bound import BOUND_SEED, MEASURED_FROM
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.likelihood import BoundSettings, JointBound, Sequential, stage_bounds
from cascaded_dllm.model.devices import host_by_default
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.objective import Objective

_REPLACEMENT = "\ufffd"
"""Stands in a decoded text for bytes that form no character."""


def joint_bound(
    cascade: Cascade,
    data: DataSettings | str | Path,
    *,
    num_windows: int = 512,
    num_times: int = 16,
    batch_size: int = 64,
    seed: int = BOUND_SEED,
    t_min: float = MEASURED_FROM,
    keeps_all: bool = False,
    sequential: Sequential | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> JointBound:
    """The joint bound of a cascade, or of a flat model as a cascade of one stage, on preprocessed windows.

    Two cascades with windows of one length are measured on the same windows, with the same times and noise, unless one
    drops windows that the other has; with `keeps_all` none does. So their difference is known window by window:
    `mean_and_error(one.nll_nats - other.nll_nats)`.

    Args:
        cascade: the models.
        data: a preprocessed folder, whose windows are cut as the checkpoints say; or a folder and how to cut it.
        num_windows: how many windows are measured, evenly spaced in the data.
        num_times: times of the integral for each window.
        batch_size: windows computed together.
        seed: decides times and noise.
        t_min: lower end of the integral over time, which runs to 1.
        keeps_all: whether windows with too few different tokens are measured too, with repeated tokens in their
            stages: the bound holds for any choice of the shorter stages.
        sequential: how many windows are also measured token by token.
        on_progress: called with the windows done and their number, where a window counts once for each stage.

    Raises:
        ConfigError: `data` cuts windows in another way than in training, no checkpoint says how they were cut, or a
            number is out of range.
        DataError: the data is missing, or has another tokenizer or method than the cascade.
    """
    settings = BoundSettings(
        num_windows=num_windows,
        num_times=num_times,
        batch_size=batch_size,
        seed=seed,
        t_min=t_min,
        sequential=sequential,
    )
    if not isinstance(data, DataSettings):
        data = DataSettings.of_folder(data, packing=_known_packing(cascade), unique=cascade.unique, stages_dir=None)
    return windows_bound(
        cascade, windows_of_cascade(cascade, data, keeps_all=keeps_all), settings, on_progress=on_progress
    )


def _known_packing(cascade: Cascade) -> str:
    """How documents were cut into the windows that a cascade was trained on.

    Raises:
        ConfigError: no checkpoint says so.
    """
    if not cascade.packing:
        raise ConfigError(
            "the checkpoints do not say how documents lie in windows; give DataSettings.of_folder(folder, "
            "packing='stream' or 'document', stages_dir=None) in place of the folder"
        )
    return cascade.packing


@host_by_default()
def windows_bound(
    cascade: Cascade,
    arrays: StageArrays,
    settings: BoundSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> JointBound:
    """The joint bound on windows of `arrays`, which the caller has cut as in training."""
    datasets = [
        StageDataset.flat(arrays) if cascade.is_flat else StageDataset(arrays, number, is_placed=stage.is_placed)
        for number, stage in enumerate(cascade.stages, start=1)
    ]
    stages = [
        (stage.model, Objective(stage.process, stage.schedule), dataset)
        for stage, dataset in zip(cascade.stages, datasets, strict=True)
    ]
    bounds = stage_bounds(stages, settings, on_progress=on_progress)
    num_stages = 1 if cascade.is_flat else len(cascade.trained_lengths)
    windows = evenly_spaced(arrays.num_windows, settings.num_windows)
    num_characters = None
    if len(datasets) == num_stages:
        num_characters = _num_characters(cascade.tokenizer, arrays.stages[-1][windows].tolist())
    return JointBound(tuple(bounds), datasets[-1].target_length, num_stages, num_characters)


def _num_characters(tokenizer: Tokenizer, windows: Sequence[Sequence[int]]) -> int:
    """The characters of the texts in these windows; an end of text, which decodes to a name, has none.

    A character whose bytes two windows share counts in the first one. The second one begins with bytes that are no
    character, and decode to one replacement character each; what follows is a whole character, in all but tiny windows.
    """
    texts = (tokenizer.decode([token for token in ids if token != tokenizer.eos_id]) for ids in windows)
    return sum(len(text.lstrip(_REPLACEMENT)) for text in texts)
