"""The windows of a dataset with their nested stages, in memory-mapped arrays that are built once."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from cascaded_dllm.atomic import complete_folder, write_json
from cascaded_dllm.cascade.select import select_positions
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.data.array_file import ArrayFile, open_array
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.shards import Record
from cascaded_dllm.data.windows import Window, WindowStream, windows
from cascaded_dllm.errors import DataError

KIND = "stages"
# Rows are written this many windows at a time.
_BATCH_WINDOWS = 1024

Progress: TypeAlias = Callable[[int, int | None], None]


@final
@dataclass(frozen=True, slots=True)
class StageArrays:
    """The token ids of every stage of every window, and where in the window each comes from.

    Attributes:
        spec: the stage lengths.
        packing: how documents were cut into windows.
        method: the selection rule.
        eos_id: end-of-text id, also the padding.
        vocab_size: number of real tokens.
        tokenizer: fingerprint of the tokenizer.
        fingerprint: of the dataset, the lengths and the packing.
        dropped: windows and tokens that are not in the arrays, by reason.
        stages: per stage, (num_windows, its length) int32, memory-mapped.
        positions: per stage but the last, (num_windows, its length) int32: positions in the window, rising.
        scorer: the description of what found the importance of the words; empty for arrays made by hand.
    """

    spec: CascadeSpec
    packing: str
    method: str
    eos_id: int
    vocab_size: int
    tokenizer: str
    fingerprint: str
    dropped: dict[str, int]
    stages: tuple[npt.NDArray[np.int32], ...]
    positions: tuple[npt.NDArray[np.int32], ...]
    scorer: dict[str, Any] = field(default_factory=dict)

    @property
    def num_windows(self) -> int:
        """Rows of every array."""
        return len(self.stages[-1])

    def flat(self) -> "StageArrays":
        """The same windows for a model without a cascade: the last stage is the only one."""
        spec = CascadeSpec((self.spec.window_length,))
        return replace(self, spec=spec, stages=self.stages[-1:], positions=())

    @classmethod
    def open(cls, folder: Path) -> "StageArrays":
        """The arrays in `folder`, which `build` made.

        Raises:
            DataError: the folder is no such one, or an array is missing, truncated or of another shape.
        """
        manifest = manifests.read_manifest(folder, KIND)
        try:
            spec = CascadeSpec(tuple(manifest["stage_lengths"]))
            num_windows, dropped = manifest["counts"]["windows"], manifest["counts"]["dropped"]
            packing, method, eos_id = manifest["packing"], manifest["method"], manifest["eos_id"]
            vocab_size, tokenizer = manifest["vocab_size"], manifest["tokenizer"]
            fingerprint, scorer = manifest["fingerprint"], dict(manifest["scorer"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder / manifests.FILE_NAME} is incomplete ({error!r}); remove {folder}, and it will be built again"
            ) from error
        numbered = list(enumerate(spec.stage_lengths, start=1))
        return cls(
            spec=spec,
            packing=packing,
            method=method,
            eos_id=eos_id,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            fingerprint=fingerprint,
            dropped=dropped,
            stages=tuple(open_array(_stage_file(folder, k), (num_windows, length)) for k, length in numbered),
            positions=tuple(
                open_array(_positions_file(folder, k), (num_windows, length)) for k, length in numbered[:-1]
            ),
            scorer=scorer,
        )

    @classmethod
    def build(
        cls,
        dataset_folder: Path,
        spec: CascadeSpec,
        *,
        packing: str,
        out: Path | None = None,
        on_progress: Progress | None = None,
    ) -> "StageArrays":
        """The stages of a preprocessed dataset; taken from the cache if they were built before.

        Args:
            dataset_folder: what `preprocess` returned.
            spec: the stage lengths; the last one is the window.
            packing: see `windows`.
            out: folder of the cache, for datasets that are read-only; by default `dataset_folder`/stages.
            on_progress: told the number of documents done, and of all.

        Raises:
            DataError: the dataset is damaged, or not a single window results.
        """
        dataset = PreprocessedDataset.open(dataset_folder)
        identity = {
            "dataset": dataset.fingerprint,
            "stage_lengths": list(spec.stage_lengths),
            "packing": packing,
            "scorer": dataset.settings.scorer,
            "format_version": manifests.FORMAT_VERSION,
        }
        fingerprint = manifests.fingerprint(identity)
        folder = (dataset_folder / "stages" if out is None else out) / fingerprint
        if not folder.exists():
            with complete_folder(folder) as temporary:
                counts = _write_arrays(temporary, dataset, spec, packing, on_progress)
                settings = dataset.settings
                described = {
                    "fingerprint": fingerprint,
                    "method": settings.method,
                    "eos_id": settings.eos_id,
                    "vocab_size": settings.vocab_size,
                    "tokenizer": settings.tokenizer,
                    "counts": counts,
                }
                write_json(temporary / manifests.FILE_NAME, manifests.header(KIND) | identity | described)
        return cls.open(folder)


def _stage_file(folder: Path, stage: int) -> Path:
    return folder / f"stage{stage}.npy"


def _positions_file(folder: Path, stage: int) -> Path:
    return folder / f"positions{stage}.npy"


def _write_arrays(
    folder: Path, dataset: PreprocessedDataset, spec: CascadeSpec, packing: str, on_progress: Progress | None
) -> dict[str, object]:
    """Writes all arrays and returns the counts for the manifest.

    Raises:
        DataError: not a single window results.
    """
    settings, length = dataset.settings, spec.window_length
    stream = windows(
        _observed(dataset, on_progress),
        length,
        eos_id=settings.eos_id,
        background=settings.background,
        packing=packing,
    )
    kept, dropped = _write_windows(folder, stream, spec, settings.method)
    if kept == 0:
        counts = dataset.counts
        if dropped == 0:
            raise DataError(
                f"{dataset.folder} has {counts.tokens} tokens in {counts.documents} documents, and one window needs "
                f"{length}; give a larger corpus or shorter stages"
            )
        raise DataError(
            f"none of the {dropped} windows of {length} tokens in {dataset.folder} has the "
            f"{spec.stage_lengths[-2]} distinct tokens that {settings.method} needs for the longest shortened stage; "
            "choose shorter stages or longer windows"
        )
    tail = len(stream.tail.token_ids)
    return {"windows": kept, "dropped": {"too_few_distinct_tokens": dropped, "tail_tokens": tail}}


def _observed(dataset: PreprocessedDataset, on_progress: Progress | None) -> Iterator[Record]:
    """The records of a dataset, with their number told as they pass."""
    for done, record in enumerate(dataset.records(), start=1):
        yield record
        if on_progress is not None:
            on_progress(done, dataset.counts.documents)


def _write_windows(folder: Path, stream: WindowStream, spec: CascadeSpec, method: str) -> tuple[int, int]:
    """Writes the stages of every window; returns how many were kept and how many dropped."""
    kept = dropped = 0
    with contextlib.ExitStack() as stack:
        numbered = list(enumerate(spec.stage_lengths, start=1))
        stages = [stack.enter_context(ArrayFile(_stage_file(folder, k), length)) for k, length in numbered]
        positions = [stack.enter_context(ArrayFile(_positions_file(folder, k), length)) for k, length in numbered[:-1]]
        for batch in _batches(stream):
            selected = [
                (window, chosen)
                for window in batch
                if (chosen := select_positions(*window, spec.stage_lengths, method=method)) is not None
            ]
            kept += len(selected)
            dropped += len(batch) - len(selected)
            for k, file in enumerate(positions):
                file.append([chosen[k] for _, chosen in selected])
            for k, file in enumerate(stages):
                file.append([[window.token_ids[i] for i in chosen[k]] for window, chosen in selected])
    return kept, dropped


def _batches(stream: Iterable[Window]) -> Iterator[list[Window]]:
    """The windows in lists, to bound the memory and to write large pieces."""
    batch: list[Window] = []
    for window in stream:
        batch.append(window)
        if len(batch) == _BATCH_WINDOWS:
            yield batch
            batch = []
    if batch:
        yield batch
