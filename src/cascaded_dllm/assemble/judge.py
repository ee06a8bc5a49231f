"""A judge in training, assembled from the arguments of a command."""

from pathlib import Path
from typing import Any

import torch

from cascaded_dllm.assemble.windows import windows_of_folder
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.preprocessed import PreprocessedDataset, read_identity
from cascaded_dllm.data.stages import BuildCallbacks, StageArrays
from cascaded_dllm.errors import DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.judge.network import new_network, require_library
from cascaded_dllm.judge.run import JudgeRun, require_judge_folder
from cascaded_dllm.judge.settings import JudgeSettings
from cascaded_dllm.judge.trainer import JudgeTrainer
from cascaded_dllm.judge.validation import VALIDATION_DEFINITIONS, document_texts, validation_figures
from cascaded_dllm.text.tokenizer import Tokenizer


def assemble_judge(
    *,
    data: Path,
    out: Path,
    settings: JudgeSettings,
    device: torch.device,
    valid: Path | None,
    valid_documents: int,
    stages_dir: Path | None,
    checkpoint_every: int,
    building: BuildCallbacks | None = None,
) -> JudgeRun:
    """The run that trains a judge, ready to start.

    Args:
        data: preprocessed corpus to train on.
        out: folder of the judge.
        settings: of the judge.
        device: on which it is trained.
        valid: preprocessed corpus to measure on, or None.
        valid_documents: how many of its documents are read, from the first on.
        stages_dir: where windows are stored; None for the folder of the data.
        checkpoint_every: steps between checkpoints.
        building: callbacks for the building of windows.

    Raises:
        ConfigError: a number is out of range.
        DataError: the data is missing, damaged or too small.
        MissingExtraError: transformers is not installed.
        OutputError: the folder of the judge holds something else or cannot be written, or the windows cannot be stored.
    """
    for name, value in (("checkpoint-every", checkpoint_every), ("valid-documents", valid_documents)):
        require_at_least(f"--{name}", value, 1)
    require_library()
    require_judge_folder(out)
    windows = _windows(data, settings, stages_dir, building)
    texts = None if valid is None else document_texts(valid, valid_documents)
    tokenizer = Tokenizer.load(data)
    network = new_network(settings, tokenizer).to(device)
    decisive: dict[str, Any] = {
        "data (fingerprint of its windows)": windows.fingerprint,
        "valid (fingerprint)": None if valid is None else read_identity(valid).fingerprint,
        "valid_documents": None if valid is None else valid_documents,
    }
    return JudgeRun(
        folder=out,
        trainer=JudgeTrainer(network, StageDataset(windows, 1), settings, eos_id=tokenizer.eos_id),
        tokenizer_file=data / TOKENIZER_FILE,
        course=settings.flattened() | decisive,
        described={
            "data": _described(data, windows),
            "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
            "valid_folder": None if valid is None else str(valid),
            "definitions": VALIDATION_DEFINITIONS,
        },
        checkpoint_every=checkpoint_every,
        measure=None if texts is None else lambda judge, on_measured: validation_figures(judge, texts, on_measured),
    )


def _described(data: Path, windows: StageArrays) -> dict[str, Any]:
    """The description of the corpus in judge.json."""
    identity = read_identity(data)
    return {
        "folder": str(data),
        "dataset": identity.settings.dataset,
        "split": identity.settings.split,
        "fingerprint": identity.fingerprint,
        "num_windows": windows.num_windows,
    }


def _windows(
    data: Path, settings: JudgeSettings, stages_dir: Path | None, building: BuildCallbacks | None
) -> StageArrays:
    """The windows of the corpus, as the only stage of a cascade.

    Raises:
        DataError: the corpus does not fill a window.
    """
    length = settings.length
    if settings.packing == "stream":
        counts = PreprocessedDataset.open(data).counts
        if counts.tokens + counts.documents < length:
            raise DataError(
                f"{data} has {counts.tokens} tokens in {counts.documents} documents, and one window needs {length}; "
                "give more data, a smaller --length or --packing document"
            )
    cut = DataSettings.of_folder(data, packing=settings.packing, stages_dir=stages_dir)
    return windows_of_folder(str(data), CascadeSpec((length,)), cut, building=building)
