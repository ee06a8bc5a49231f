"""The windows of a dataset with their nested stages, in memory-mapped arrays that are built once."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, final

from cascaded_dllm.atomic import complete_folder, write_json
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.data import manifest as manifests
from cascaded_dllm.data.array_file import Stored, expect_random_rows, open_array
from cascaded_dllm.data.build_stages import Progress, StageRule, positions_file, stage_file, write_stages
from cascaded_dllm.data.preprocessed import PreprocessedDataset, read_identity
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.errors import DataError, OutputExistsError
from cascaded_dllm.run_lock import waited_lock

KIND = "stages"


class Building(NamedTuple):
    """Who is told how a build goes, and may end it; see `StageArrays.build`."""

    on_progress: Progress | None = None
    on_wait: Callable[[str], None] | None = None
    go_on: Callable[[], None] | None = None


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
        stages: per stage, (num_windows, its length) of the smallest type that holds all ids, memory-mapped.
        positions: per stage but the last, (num_windows, its length), likewise: positions in the window, rising.
        scorer: the description of what found the importance of the words; empty for arrays made by hand.
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
        """Rows of every array."""
        return len(self.stages[-1])

    @property
    def num_dropped(self) -> int:
        """Windows of the same text that are in no array: they have too few different tokens for their stages."""
        return self.dropped.get("too_few_distinct_tokens", 0)

    def flat(self) -> "StageArrays":
        """The same windows for a model without a cascade: the last stage is the only one."""
        spec = CascadeSpec((self.spec.window_length,))
        return replace(self, spec=spec, stages=self.stages[-1:], positions=())

    def for_random_access(self) -> "StageArrays":
        """The same, whose windows are going to be read here and there; see `expect_random_rows`."""
        for array in (*self.stages, *self.positions):
            expect_random_rows(array)
        return self

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
        dataset_folder: Path,
        spec: CascadeSpec,
        *,
        packing: str,
        unique: bool = True,
        keeps_all: bool = False,
        out: Path | None = None,
        workers: int = 1,
        on_progress: Progress | None = None,
        on_wait: Callable[[str], None] | None = None,
        go_on: Callable[[], None] | None = None,
    ) -> "StageArrays":
        """The stages of a preprocessed dataset; taken from the cache if they were built before, without a look at it.

        Of several processes that ask for the same stages, on any machines, one builds them and the others wait.

        Args:
            dataset_folder: what `preprocess` returned.
            spec: the stage lengths; the last one is the window.
            packing: see `Layout`.
            unique: whether a stage keeps a token id once, see `select_positions`.
            keeps_all: whether windows that have too few different tokens keep copies in place of being dropped.
            out: folder of the cache, for datasets that are read-only; by default `dataset_folder`/stages.
            workers: processes that build; the result does not depend on their number. With more than 1 the main module
                of the program must be importable, as `multiprocessing` asks for.
            on_progress: told the number of documents done, and of all.
            on_wait: told once which process this one waits for, as `waited_lock` says it.
            go_on: called now and then while it waits; what it raises ends the waiting.

        Raises:
            ConfigError: the packing is unknown, or there is no worker.
            DataError: the dataset is damaged, or not a single window results.
            OutputExistsError: the folder cannot be written.
            WorkerDiedError: a process was killed.
        """
        settings, dataset_fingerprint = read_identity(dataset_folder)
        identity = _identity(settings, dataset_fingerprint, spec, packing, unique=unique, keeps_all=keeps_all)
        fingerprint = manifests.fingerprint(identity)
        folder = stages_folder(dataset_folder, out) / fingerprint
        if folder.exists():
            return cls.open(folder)
        require_at_least("workers", workers, 1)
        layout = Layout(spec.window_length, packing, settings.eos_id, settings.background)
        dataset = PreprocessedDataset.open(dataset_folder)
        rule = StageRule(spec, layout, settings.method, unique, keeps_all)
        lock = folder.with_name(f"{fingerprint}.lock")
        waiting = waited_lock(lock, is_done=folder.exists, on_wait=on_wait, go_on=go_on)
        with _with_remedy(out), waiting as is_mine:
            if is_mine:
                with complete_folder(folder, is_locked=True) as temporary:
                    counts = write_stages(temporary, dataset, rule, workers=workers, on_progress=on_progress)
                    described = {"fingerprint": fingerprint, "counts": counts} | {
                        name: getattr(settings, name) for name in ("method", "eos_id", "vocab_size", "tokenizer")
                    }
                    write_json(temporary / manifests.FILE_NAME, manifests.header(KIND) | identity | described)
        return cls.open(folder)


def are_built(
    dataset_folder: Path, spec: CascadeSpec, *, packing: str, unique: bool = True, out: Path | None = None
) -> bool:
    """Whether `StageArrays.build` would find the stages of a dataset there; the arguments are its own.

    Raises:
        DataError: there is no complete dataset.
    """
    identity = _identity(*read_identity(dataset_folder), spec, packing, unique=unique, keeps_all=False)
    return (stages_folder(dataset_folder, out) / manifests.fingerprint(identity)).exists()


def stages_folder(dataset_folder: Path, out: Path | None) -> Path:
    """Where the stages of a dataset are kept, each under its fingerprint: beside its shards, or in `out`."""
    return dataset_folder / "stages" if out is None else out


def _identity(
    settings: manifests.Settings, dataset: str, spec: CascadeSpec, packing: str, *, unique: bool, keeps_all: bool
) -> dict[str, object]:
    """What decides the stages of the dataset with fingerprint `dataset`."""
    return {
        "dataset": dataset,
        "stage_lengths": list(spec.stage_lengths),
        "packing": packing,
        "scorer": settings.scorer,
        "format_version": manifests.FORMAT_VERSION,
        # Stages that were built before there was a choice are found again.
        **({} if unique else {"unique": False}),
        **({"keeps_all": True} if keeps_all and unique else {}),
    }


@contextlib.contextmanager
def _with_remedy(out: Path | None) -> Iterator[None]:
    """Says what to do about data that is read-only.

    Raises:
        OutputExistsError: what is inside cannot be written.
    """
    try:
        yield
    except OutputExistsError as error:
        if out is not None:
            raise
        raise OutputExistsError(
            f"the stages of the dataset are not built yet, and {error}: --stages or data.stages_dir names it"
        ) from error
