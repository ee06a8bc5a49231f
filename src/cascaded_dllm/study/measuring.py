"""The joint bound of an arm, on the windows that all arms have."""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from cascaded_dllm.assemble.bound import windows_bound
from cascaded_dllm.assemble.inputs import stage_dataset
from cascaded_dllm.atomic import write_bytes
from cascaded_dllm.data.dataset import evenly_spaced
from cascaded_dllm.data.manifest import fingerprint
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import DataError
from cascaded_dllm.evaluate.bound_summary import bound_summary
from cascaded_dllm.evaluate.likelihood import BoundSettings, JointBound
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import MethodData
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.pairs import Nats
from cascaded_dllm.study.plan import PlannedArm
from cascaded_dllm.study.windows import common_rows, rows_of
from cascaded_dllm.study_config import StudySettings
from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.tokenizer import Tokenizer

BOUND_FILE = "bound.npz"


@final
class SharedWindows:
    """The windows that all arms have, in the stages of every arm; they are built when first needed.

    Args:
        study: of the arms.
        arms: all of them.
        data: by method.
        callbacks: receive the progress of building, and may stop it.
    """

    def __init__(
        self, study: StudySettings, arms: list[PlannedArm], data: Mapping[str, MethodData], callbacks: StudyCallbacks
    ) -> None:
        self._arms, self._data = {arm.settings.name: arm for arm in arms}, data
        self._num_windows, self._callbacks = study.evaluate.num_windows, callbacks

    @cached_property
    def _arrays(self) -> dict[str, StageArrays]:
        """The common windows in the stages of every arm, by its name."""
        building = self._callbacks.building("windows and stages to measure on")
        every = {
            name: stage_dataset(str(self._data[arm.settings.method].valid), arm.config, building)[0]
            for name, arm in self._arms.items()
        }
        rows = common_rows([arrays.stages[-1] for arrays in every.values()])
        return {name: rows_of(arrays, own) for (name, arrays), own in zip(every.items(), rows, strict=True)}

    def of_arm(self, arm: PlannedArm) -> StageArrays:
        """All common windows, in the stages of an arm."""
        return self._arrays[arm.settings.name]

    @property
    def windows(self) -> npt.NDArray[np.int32]:
        """All common windows, (number, length)."""
        return next(iter(self._arrays.values())).stages[-1].astype(np.int32, copy=False)

    @property
    def measured(self) -> npt.NDArray[np.int32]:
        """The common windows that bounds are measured on, (number, length)."""
        return self.windows[evenly_spaced(len(self.windows), self._num_windows)]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all data."""
        return Tokenizer.load(next(iter(self._data.values())).train)

    @property
    def grammar(self) -> StoryGrammar | None:
        """The grammar that the texts come from; None for texts other than the built-in stories."""
        sources = {data.valid_identity.settings.source.get("kind") for data in self._data.values()}
        return StoryGrammar() if sources == {"stories"} else None

    @property
    def truth_nats_per_window(self) -> float | None:
        """Mean of -log p of the measured windows under the law that they come from; None where it is unknown.

        It is unknown as soon as a window is not one whole story, which has no probability of its own.
        """
        if self.grammar is None:
            return None
        texts = (self.tokenizer.decode_window(ids) for ids in self.measured.tolist())
        mean = -float(np.mean([self.grammar.log_prob(text) for text in texts]))
        return mean if np.isfinite(mean) else None


def bound_key(study: StudySettings, arm: PlannedArm, arms: Sequence[PlannedArm], data: Mapping[str, MethodData]) -> str:
    """Fingerprint of all that decides the bound of an arm; the windows are those that all `arms` have in common."""
    decides: dict[str, object] = {
        "runs": [run.key for run in arm.stages],
        "valid": {method: folders.valid_identity.fingerprint for method, folders in data.items()},
        "unique": arm.config.data.unique,
        "num_windows": study.evaluate.num_windows,
        "windows": "evenly spaced",
        "num_times": study.evaluate.num_times,
        "t_min": study.evaluate.t_min,
    }
    cut = sorted({(other.settings.method, other.config.data.packing, other.config.data.unique) for other in arms})
    if len({(packing, unique) for _, packing, unique in cut}) > 1:
        # Absent where all arms cut their windows alike, so that existing bounds of such studies count.
        decides["cut"] = cut
    return fingerprint(decides)


def measure(
    study: StudySettings, arm: PlannedArm, windows: SharedWindows, folder: StudyFolder, callbacks: StudyCallbacks
) -> dict[str, Any]:
    """Measures the joint bound of an arm, stores the nats of every window, and returns the content of its record.

    Raises:
        StoppedError: it is time to stop; the next attempt begins from the start.
        CascadeError: weights cannot be read, or do not belong together.
    """
    bound = windows_bound(
        load_arm(arm),
        windows.of_arm(arm),
        BoundSettings(
            num_windows=study.evaluate.num_windows,
            num_times=study.evaluate.num_times,
            batch_size=study.evaluate.batch_size,
            t_min=study.evaluate.t_min,
        ),
        on_progress=callbacks.progress(f"bound of {arm.name}"),
    )
    file = folder.arm(arm.settings.name, arm.seed) / BOUND_FILE
    write_bytes(file, _as_npz(bound))
    return {"bound": bound_summary(bound), "file": str(file.relative_to(folder.out))}


def load_arm(arm: PlannedArm) -> Cascade:
    """The trained stages of an arm."""
    return Cascade.from_pretrained(arm.folders, device=choose_device(arm.config.device))


def read_nats(folder: StudyFolder, arm: str, seed: int) -> Nats:
    """The joint bound of every window of an arm, nats.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = folder.arm(arm, seed) / BOUND_FILE
    try:
        with np.load(io.BytesIO(path.read_bytes())) as content:
            return np.asarray(content["nll_nats"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}), and the record of the bound says that it is done; put "
            f"the file back, or remove {folder.record_file(bound_part_name(arm, seed))} and give the command again"
        ) from error


def bound_part_name(arm: str, seed: int) -> str:
    """The name of the part that measures the bound of an arm."""
    return f"bounds/{arm}/seed{seed}"


def _as_npz(bound: JointBound) -> bytes:
    content = io.BytesIO()
    per_stage = torch.stack([stage.nll_nats for stage in bound.stages]).numpy()
    np.savez(content, nll_nats=bound.nll_nats.numpy(), nll_nats_per_stage=per_stage)
    return content.getvalue()
