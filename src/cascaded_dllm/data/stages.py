"""The windows of a dataset with their nested stages, in memory-mapped arrays that are built once."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, final

from cascaded_dllm.atomic import complete_folder, remove_abandoned, write_json
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.data.array_file import Stored, expect_random_rows, open_array
from cascaded_dllm.data.build_stages import Progress, StageRule, positions_file, stage_file, write_stages
from cascaded_dllm.data.preprocessed import PreprocessedDataset, read_identity
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.errors import DataError, OutputError
from cascaded_dllm.processes import MOST_WORKERS
from cascaded_dllm.run_lock import waited_lock

KIND = "stages"


class BuildCallbacks(NamedTuple):
    """The callbacks of a build; see `StageArrays.build`."""

    on_progress: Progress | None = None
    on_wait: Callable[[str], None] | None = None
    go_on: Callable[[], None] | None = None


@final
@dataclass(frozen=True, slots=True)
class StageArrays:
    """The token ids of every stage of every window, and their positions in the window.

    Attributes:
        spec: the stage lengths.
        packing: how documents were cut into windows.
        method: the selection rule.
        eos_id: end-of-text id, also the padding.
        vocab_size: number of real tokens.
        tokenizer: fingerprint of the tokenizer.
        fingerprint: of everything that decides the arrays: the dataset, the lengths, the packing and the options.
        dropped: number of windows and of tokens that are not in the arrays, by reason.
        stages: for every stage, the token ids, (num_windows, its length), memory-mapped, of the smallest type that
            holds all ids.
        positions: for every stage but the last, the tokens' positions in the window, rising, (num_windows, its length),
            memory-mapped, of the smallest type that holds all positions.
        scorer: the description of the scorer that found the importance of the words; empty for arrays made by hand.
        unique: whether a shortened stage keeps a token id once.
    """

    spec: CascadeSpec
    packing: str
    method: str
    eos_id: int
    vocab_size: int
    tokenizer: str
    fingerprint: str
    dropped: dict[str, int]
    stages: tuple[Stored, ...]
    positions: tuple[Stored, ...]
    scorer: dict[str, Any] = field(default_factory=dict)
    unique: bool = True

    @property
    def num_windows(self) -> int:
        """Number of windows, which is the number of rows of every array."""
        return len(self.stages[-1])

    @property
    def num_dropped(self) -> int:
        """Number of windows of the dataset that were dropped, since they cannot fill every stage."""
        return self.dropped.get("too_few_distinct_tokens", 0)

    def flat(self) -> "StageArrays":
        """The same windows for a model without a cascade: the last stage is the only one."""
        spec = CascadeSpec((self.spec.window_length,))
        return replace(self, spec=spec, stages=self.stages[-1:], positions=())

    def for_random_access(self) -> "StageArrays":
        """The same arrays, prepared for reading windows in random order; see `expect_random_rows`."""
        for array in (*self.stages, *self.positions):
            expect_random_rows(array)
        return self

    @classmethod
    def open(cls, folder: Path) -> "StageArrays":
        """The arrays in `folder`, which `build` made.

        Raises:
            DataError: the manifest is missing, broken or of another kind, or an array is missing, truncated or of
                another shape.
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
            stages=tuple(open_array(stage_file(folder, k), (num_windows, length)) for k, length in numbered),
            positions=tuple(
                open_array(positions_file(folder, k), (num_windows, length)) for k, length in numbered[:-1]
            ),
            scorer=scorer,
            unique=manifest.get("unique", True),
        )

    @classmethod
    def build(
        cls,
        dataset_folder: str | Path,
        spec: CascadeSpec,
        *,
        packing: str,
        unique: bool = True,
        keeps_all: bool = False,
        out: str | Path | None = None,
        workers: int = 1,
        on_progress: Progress | None = None,
        on_wait: Callable[[str], None] | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> "StageArrays":
        """The stages of a preprocessed dataset; if they were built before, from the cache, without reading its shards.

        Of several processes, on any machines, that ask for the same stages, one builds them and the others wait.

        Args:
            dataset_folder: folder of the preprocessed dataset.
            spec: the stage lengths; the last one is the window.
            packing: see `Layout`.
            unique: whether a shortened stage keeps a token id once, see `select_positions`.
            keeps_all: whether windows with too few distinct tokens keep copies instead of being dropped.
            out: folder of the cache, for read-only datasets; `dataset_folder`/stages by default.
            workers: number of processes that build, on which the result does not depend. With more than 1, the main
                module of the program must be importable, as `multiprocessing` requires.
            on_progress: called with the number of documents done, and of all.
            on_wait: called once, with the description by `waited_lock` of the process for which this one waits.
            go_on: called now and then while this process waits; an exception that it raises ends the waiting.

        Raises:
            ConfigError: the packing is unknown, or `workers` is below 1 or too large.
            DataError: the dataset is damaged, or no window results.
            OutputError: the folder cannot be written.
            WorkerDiedError: a process was killed.
        """
        dataset_folder, out = Path(dataset_folder), None if out is None else Path(out)
        settings, dataset_fingerprint = read_identity(dataset_folder)
        identity = _identity(settings, dataset_fingerprint, spec, packing, unique=unique, keeps_all=keeps_all)
        fingerprint = manifests.fingerprint(identity)
        folder = stages_folder(dataset_folder, out) / fingerprint
        if folder.exists():
            return cls.open(folder)
        require_at_least("workers", workers, 1, most=MOST_WORKERS)
        layout = Layout(spec.window_length, packing, settings.eos_id, settings.background)
        dataset = PreprocessedDataset.open(dataset_folder)
        rule = StageRule(spec, layout, settings.method, unique, keeps_all)
        lock = folder.with_name(f"{fingerprint}.lock")
        waiting = waited_lock(lock, is_done=folder.exists, on_wait=on_wait, go_on=go_on)
        with _with_remedy(out), waiting as is_mine:
            if is_mine:
                # Also what was half-built with other settings, for which nobody may ask again.
                remove_abandoned(folder.parent)
                with complete_folder(folder, is_locked=True) as temporary:
                    counts = write_stages(temporary, dataset, rule, workers=workers, on_progress=on_progress)
                    described = {"fingerprint": fingerprint, "counts": counts} | {
                        name: getattr(settings, name) for name in ("method", "eos_id", "vocab_size", "tokenizer")
                    }
                    write_json(temporary / manifests.FILE_NAME, manifests.header(KIND) | identity | described)
        return cls.open(folder)


def stages_exist(
    dataset_folder: Path, spec: CascadeSpec, *, packing: str, unique: bool = True, out: Path | None = None
) -> bool:
    """Whether the stages that `StageArrays.build` would return for these arguments are built already.

    Raises:
        DataError: there is no complete dataset.
    """
    identity = _identity(*read_identity(dataset_folder), spec, packing, unique=unique, keeps_all=False)
    return (stages_folder(dataset_folder, out) / manifests.fingerprint(identity)).exists()


def stages_folder(dataset_folder: Path, out: Path | None) -> Path:
    """The folder of the stages of a dataset, each in a folder named by its fingerprint: beside its shards, or `out`."""
    return dataset_folder / "stages" if out is None else out


def _identity(
    settings: manifests.Settings, dataset: str, spec: CascadeSpec, packing: str, *, unique: bool, keeps_all: bool
) -> dict[str, object]:
    """Everything that decides the stages of the dataset with the fingerprint `dataset`."""
    return {
        "dataset": dataset,
        "stage_lengths": list(spec.stage_lengths),
        "packing": packing,
        "scorer": settings.scorer,
        "format_version": manifests.FORMAT_VERSION,
        # Defaults are left out, so that stages from before these options are found again.
        **({} if unique else {"unique": False}),
        **({"keeps_all": True} if keeps_all and unique else {}),
    }


@contextlib.contextmanager
def _with_remedy(out: Path | None) -> Iterator[None]:
    """Adds the remedy for a read-only dataset to an error of writing inside the block.

    Raises:
        OutputError: the stages cannot be written.
    """
    try:
        yield
    except OutputError as error:
        if out is not None:
            raise
        raise OutputError(
            f"the stages of the dataset are not built yet, and {error}: --stages or data.stages_dir names it"
        ) from error
