"""Reads the texts to be measured: from a sampling run, a text file, or windows of preprocessed data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.drawn_windows import drawn_windows
from cascaded_dllm.data.manifest import FILE_NAME as MANIFEST_FILE
from cascaded_dllm.data.preprocessed import read_identity
from cascaded_dllm.errors import CheckpointError, ConfigError, DataError
from cascaded_dllm.evaluate.sample_figures import MeasuredTexts
from cascaded_dllm.model.stage_settings import StageSettings
from cascaded_dllm.rng import numpy_generator
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.sample.output import SampleRun
from cascaded_dllm.sample.progress import SAMPLES_FILE
from cascaded_dllm.sample.settings import SETTINGS_FILE, SampleSettings
from cascaded_dllm.text.local import Unit
from cascaded_dllm.text.text_list import read_text_list
from cascaded_dllm.text.tokenizer import Tokenizer

Ids = Int[Tensor, "B _"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Texts to be measured, and what a comparison with real texts needs to know of them.

    Attributes:
        texts: all texts that are finished.
        tokenizer: the tokenizer that tokens are counted with.
        num_asked: number of texts that the run was asked for; for a file, the number of its texts.
        keywords: keywords that every text was asked to contain.
        trained: settings of the first stage that wrote the texts, with the windows it was trained on; None if they
            are unknown.
    """

    texts: MeasuredTexts
    tokenizer: Tokenizer
    num_asked: int
    keywords: tuple[str, ...] = ()
    trained: StageSettings | None = None


def read_written(path: Path, *, tokenizer: str | None, reference: Path | None, unit: Unit = "line") -> Written:
    """The texts in `path`: a sampling run, its samples.jsonl, or a text file; see `read_text_list`.

    Args:
        path: where they are.
        tokenizer: as the user names it; None for that of the run or, for a text file, that of the reference data.
        reference: preprocessed data or text file that the texts will be compared with, or None.
        unit: what is one text in a .txt file.

    Raises:
        ConfigError: there is no text or no tokenizer, or the tokenizer is not that of the run.
        DataError: the run or the file is damaged.
    """
    folder = path.parent if path.name == SAMPLES_FILE else path
    if (folder / SETTINGS_FILE).is_file():
        return _of_run(SampleRun.open(folder), tokenizer, needs_windows=reference is not None and is_data(reference))
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder without {SETTINGS_FILE}, so not a sampling run; give one, or a .txt or .jsonl file"
        )
    _require_there(path, "the folder of a sampling run")
    texts = read_text_list(path, unit)
    if tokenizer is None and reference is not None and is_data(reference):
        tokenizer = str(reference)
    if tokenizer is None:
        raise ConfigError(
            f"no --tokenizer is given, and {path} does not say which one to count its tokens with; name the models' "
            "tokenizer, for example gpt2"
        )
    shared = Tokenizer.load(tokenizer)
    return Written(texts=MeasuredTexts.of_texts(texts, shared), tokenizer=shared, num_asked=len(texts))


def _require_there(path: Path, folder: str) -> None:
    """Checks that a path leads somewhere; `folder` says which folder it might have been meant to be.

    Raises:
        ConfigError: it does not.
    """
    if not path.exists():
        raise ConfigError(f"{path} does not exist; name {folder}, a .txt file with one text a line, or a .jsonl file")


def is_data(path: Path) -> bool:
    """Whether a path is a folder that `cdllm preprocess` made."""
    return (path / MANIFEST_FILE).is_file()


def read_reference(
    path: Path, written: Written, *, packing: str | None, seed: int, unit: Unit = "line"
) -> MeasuredTexts:
    """Real texts to compare written ones with: as many as those, or all if there are fewer.

    Preprocessed data gives windows, cut and shortened like those that the models were trained on. If the written texts
    come from a file, text i is the beginning of a window, as long as written text i. A text file gives its texts as
    they are.

    Args:
        path: preprocessed data, or a text file.
        written: the texts that are measured.
        packing: how windows are cut if the models do not say it; None for "stream".
        seed: decides which texts are taken.
        unit: what is one text in a .txt file.

    Raises:
        ConfigError: the packing contradicts the models, or no written text has a token.
        DataError: the data or the file is damaged, or has another tokenizer.
    """
    num_texts = len(written.texts)
    if not is_data(path):
        _require_there(path, "a folder that `cdllm preprocess` made")
        texts = read_text_list(path, unit)
        chosen = numpy_generator(seed, "reference texts").permutation(len(texts))[:num_texts]
        return MeasuredTexts.of_texts([texts[place] for place in sorted(chosen)], written.tokenizer)
    found = read_identity(path).settings.tokenizer
    if found != written.tokenizer.fingerprint:
        raise DataError(
            f"{path} has the tokenizer {found}, and the texts are counted with {written.tokenizer.fingerprint}; give "
            "data made with the same tokenizer, or its texts in a file"
        )
    known = "" if written.trained is None else written.trained.packing
    if packing and known not in ("", packing):
        raise ConfigError(
            f"--packing is {packing!r}, and the models were trained on windows of packing {known!r}; leave it out"
        )
    kind = known or packing or "stream"
    if written.trained is not None:
        stages = _staged_windows(path, written.texts, written.trained, packing=kind, seed=seed)
        return replace(MeasuredTexts.of_stages(stages, written.tokenizer), are_cut=True)
    lengths = [len(window) for window in written.texts.windows]
    if max(lengths) == 0:
        raise ConfigError("none of the texts has a token, so no window of the reference is as long; give other texts")
    (rows,) = drawn_windows(path, CascadeSpec((max(lengths),)), packing=kind, num_windows=num_texts, seed=seed)
    windows = [torch.from_numpy(row[:length]).long() for row, length in zip(rows, lengths, strict=False)]
    return MeasuredTexts.of_windows(windows, written.tokenizer)


def _staged_windows(
    path: Path, texts: MeasuredTexts, trained: StageSettings, *, packing: str, seed: int
) -> Mapping[int, Ids]:
    """Windows of the data, in those stages that the written texts have."""
    stages = drawn_windows(
        path,
        CascadeSpec(trained.stage_lengths),
        packing=packing,
        unique=trained.unique,
        num_windows=len(texts),
        seed=seed,
    )
    is_flat = trained.stage == 0
    shown = {1: stages[-1]} if is_flat else {number: stages[number - 1] for number in texts.stages}
    return {number: torch.from_numpy(ids).long() for number, ids in shown.items()}


def _of_run(run: SampleRun, tokenizer: str | None, *, needs_windows: bool) -> Written:
    """The finished texts of a sampling run; its checkpoints are read only if they are needed.

    That is the case if no tokenizer is named, or if windows of reference data are to be cut like those of the models.
    """
    settings = run.settings.texts
    origin = _origin(settings, tokenizer) if tokenizer is None or needs_windows else None
    shared = Tokenizer.load(str(tokenizer)) if origin is None else origin.tokenizer
    if shared.fingerprint != settings.tokenizer_fingerprint:
        raise ConfigError(
            f"the tokenizer {tokenizer or 'of the models'} has the fingerprint {shared.fingerprint}, and the texts "
            f"were written with {settings.tokenizer_fingerprint}; name that one with --tokenizer"
        )
    stored = run.samples()
    num_finished = len(stored.ids[-1]) if run.is_complete() else run.progress().num_finished
    if num_finished == 0:
        raise ConfigError(
            f"{run.folder} has 0 finished texts of {run.settings.num_samples}; complete it with cdllm sample --resume "
            f"{run.folder}"
        )
    stages = {number: ids[:num_finished] for number, ids in enumerate(stored.ids, start=settings.first_stage)}
    control = settings.drawing.control
    return Written(
        texts=MeasuredTexts.of_stages(stages, shared),
        tokenizer=shared,
        num_asked=run.settings.num_samples,
        keywords=control.keywords or tuple((control.outline or "").split()),
        trained=None if origin is None else origin.settings[0],
    )


def _origin(settings: SampleSettings, tokenizer: str | None) -> Cascade:
    """The bundle, or the first stage, that wrote the texts of a run.

    Raises:
        ConfigError: it can no longer be read.
    """
    source = settings.cascade or settings.stage_paths[0]
    try:
        return Cascade.from_pretrained(
            source,
            lengths=settings.lengths,
            tokenizer=tokenizer or settings.tokenizer,
            weights=settings.weights,  # type: ignore[arg-type]
        )
    except CheckpointError as error:
        raise ConfigError(
            f"the models in {source} cannot be read ({error}), and only they say which tokenizer wrote the texts and "
            "which windows they were trained on; name the tokenizer with --tokenizer, and give reference texts as a "
            "file"
        ) from error
