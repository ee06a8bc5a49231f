"""Where texts that are measured come from: a sampling run, a text file, or windows of preprocessed data."""

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
    """Texts to be measured, and what real ones must be like to stand beside them.

    Attributes:
        texts: all that are there.
        tokenizer: that tokens are counted with.
        num_asked: texts that the run was asked for; as many as there are in a file.
        keywords: that every text was to hold.
        trained: what the first stage that wrote them says of the windows that it was trained on; None where none of
            that is known.
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
        tokenizer: named by a person; None for that of the run or, for a text file, that of the reference data.
        reference: what they will be compared with.
        unit: what a text of a .txt file is.

    Raises:
        ConfigError: there is no text, no tokenizer, or another one than that of the run.
        DataError: the run or the file is damaged.
    """
    folder = path.parent if path.name == SAMPLES_FILE else path
    if (folder / SETTINGS_FILE).is_file():
        return _of_run(SampleRun.open(folder), tokenizer, needs_windows=reference is not None and is_data(reference))
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder without {SETTINGS_FILE}, so no sampling run; give one, or a .txt or .jsonl file"
        )
    texts = read_text_list(path, unit)
    if tokenizer is None and reference is not None and is_data(reference):
        tokenizer = str(reference)
    if tokenizer is None:
        raise ConfigError(
            f"no --tokenizer is given, and {path} does not say with which one its tokens are to be counted; name the "
            "models' tokenizer, for example gpt2"
        )
    shared = Tokenizer.load(tokenizer)
    return Written(texts=MeasuredTexts.of_texts(texts, shared), tokenizer=shared, num_asked=len(texts))


def is_data(path: Path) -> bool:
    """Whether a path leads to what `cdllm preprocess` made."""
    return (path / MANIFEST_FILE).is_file()


def read_reference(
    path: Path, written: Written, *, packing: str | None, seed: int, unit: Unit = "line"
) -> MeasuredTexts:
    """Real texts to stand beside written ones, as many where there are so many.

    Preprocessed data gives windows cut and shortened as those that the models were trained on. For texts of a file,
    text i is the beginning of a window and as long as text i. A text file gives texts as they are.

    Args:
        path: preprocessed data, or a text file.
        written: the texts that are measured.
        packing: how windows are cut where the models do not say it; None for what is usual.
        seed: which texts are taken.
        unit: what a text of a .txt file is.

    Raises:
        ConfigError: the packing contradicts the models, or no window length is known.
        DataError: the data or the file is damaged, or has another tokenizer.
    """
    num_texts = len(written.texts)
    if not is_data(path):
        texts = read_text_list(path, unit)
        chosen = numpy_generator(seed, "reference texts").permutation(len(texts))[:num_texts]
        return MeasuredTexts.of_texts([texts[place] for place in sorted(chosen)], written.tokenizer)
    found = read_identity(path).settings.tokenizer
    if found != written.tokenizer.fingerprint:
        raise DataError(
            f"{path} has the tokenizer {found}, and the texts are counted with {written.tokenizer.fingerprint}; give "
            "data of the same tokenizer, or its texts in a file"
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
        raise ConfigError("not one text has a token, so that no window of the reference is as long; give other texts")
    (rows,) = drawn_windows(path, CascadeSpec((max(lengths),)), packing=kind, num_windows=num_texts, seed=seed)
    windows = [torch.from_numpy(row[:length]).long() for row, length in zip(rows, lengths, strict=False)]
    return MeasuredTexts.of_windows(windows, written.tokenizer)


def _staged_windows(
    path: Path, texts: MeasuredTexts, trained: StageSettings, *, packing: str, seed: int
) -> Mapping[int, Ids]:
    """Windows of data in the stages that the written texts have."""
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
    """What is finished of a sampling run; its checkpoints are read only where nothing else says what is needed."""
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
            f"{run.folder} has 0 finished texts of {run.settings.num_samples}; go on with cdllm sample --resume "
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
        ConfigError: it cannot be read any more.
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
            f"the models in {source} say with which tokenizer the texts were written and on which windows they were "
            f"trained, and cannot be read ({error}); name the tokenizer with --tokenizer, and give reference texts as "
            "a file"
        ) from error
