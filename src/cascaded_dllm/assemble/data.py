"""The preprocessed folders that a run reads, found by name or by path and checked against the configuration."""

from dataclasses import dataclass, replace
from pathlib import Path

from cascaded_dllm.cascade.select import SELECTION_METHODS
from cascaded_dllm.checks import one_of
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.data.manifest import Settings, choice_of, learnt_choice
from cascaded_dllm.data.preprocessed import read_identity
from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.file_names import RUN_CONFIG_FILE

_VALIDATION_SPLITS = ("validation", "valid")
"""Names of the validation split: of corpora on the hub, and of built-in ones."""


@dataclass(frozen=True, slots=True)
class LocatedData:
    """Data settings whose folders are known, and how the training folder was made.

    Attributes:
        settings: `path` is set, and `valid` is a folder or None.
        held: what the training folder was made with.
    """

    settings: DataSettings
    held: Settings


def require_known_method(data: DataSettings) -> None:
    """Checks `data.dataloader` without reading the data.

    Raises:
        ConfigError: it is not a method of preprocessing.
    """
    if data.dataloader is not None:
        one_of("data.dataloader", data.dataloader, SELECTION_METHODS, hint="or null where data.path names the folder")


def locate(data: DataSettings, run_dir: str | None = None) -> LocatedData:
    """The folders to train and to measure on.

    Without `data.path`, the training folder is <root>/<dataloader>/<train>_train, as `cdllm preprocess` names it. With
    it, the data there must be of `data.dataloader` and `data.train`, if these are given.

    Args:
        data: which data, and how it is cut.
        run_dir: folder of the run; if the data is missing and a run exists there, the error says how to resume it.

    Raises:
        ConfigError: no data is named.
        DataError: a folder is missing or incomplete, the training data is not of the named method or corpus, or the
            validation data was made in another way.
    """
    require_known_method(data)
    path = data.path if data.path is not None else _named_folder(data, run_dir)
    held = _held(path, "--data (data.path)")
    _require_what_is_asked_for(data, path, held)
    valid = _valid_folder(data, path, held.method)
    if valid is not None:
        _require_alike(valid, path, held)
    return LocatedData(replace(data, path=path, valid=valid), held)


def _held(path: str, flag: str) -> Settings:
    """What a folder was made with.

    Raises:
        DataError: it is missing, perhaps because it was moved after a run began, or it is incomplete.
    """
    if not Path(path).exists():
        raise DataError(
            f"{path} is not there, the data of {flag}; name the folder that `cdllm preprocess` printed, where it is now"
        )
    return read_identity(Path(path)).settings


def _named_folder(data: DataSettings, run_dir: str | None) -> str:
    if data.train is None or data.dataloader is None:
        raise ConfigError(
            f"there is no data to train on: data.path is null, data.train {data.train or 'null'} and data.dataloader "
            f"{data.dataloader or 'null'}; name a folder with --data (data.path), or corpus and method with the others"
        )
    folder = Path(data.root) / data.dataloader / f"{data.train}_train"
    if not folder.is_dir():
        is_run = run_dir is not None and (Path(run_dir) / RUN_CONFIG_FILE).is_file()
        go_on = f"; or go on with the run that is in {run_dir}, and its data: load_dir={run_dir}" if is_run else ""
        raise DataError(
            f"{folder} is not there, the data of data.train={data.train} and data.dataloader={data.dataloader}; make "
            f"it with `cdllm preprocess {data.dataloader} --dataset {data.train} --tokenizer gpt2 --out {data.root}`, "
            "choose another corpus (data.train) or method (data.dataloader), or name a folder with --data (data.path)"
            f"{go_on}"
        )
    return str(folder)


def _require_what_is_asked_for(data: DataSettings, path: str, found: Settings) -> None:
    for key, asked, held in (
        ("data.dataloader", data.dataloader, found.method),
        ("data.train", data.train, found.dataset),
    ):
        if asked is not None and asked != held:
            raise DataError(f"{key} is {asked}, and {path} was made of {held}; leave one of the two out")


def _require_alike(valid: str, path: str, held: Settings) -> None:
    """Checks that the validation data was made in the same way as the training data.

    Raises:
        DataError: it has another tokenizer, method, tagger, sentence model or scope, function of the user, or kind of
            random importance.
    """
    found = _held(valid, "--valid (data.valid)")
    choice, our_choice = (learnt_choice(choice_of(of.method, of.scorer)) for of in (found, held))
    for what, theirs, ours, flag in (
        ("tokenizer", found.tokenizer, held.tokenizer, f"--tokenizer {path}"),
        ("method", found.method, held.method, held.method),
        # Other settings of the scorer may differ: without --word-counts, tfidf counts the words of each split.
        ("tagger", found.scorer.get("tagger"), held.scorer.get("tagger"), "--tagger, as for the other"),
        (
            "sentence model",
            found.scorer.get("model_sha256"),
            held.scorer.get("model_sha256"),
            "--model, as for the other",
        ),
        ("scope", found.scorer.get("scope"), held.scorer.get("scope"), "--scope, as for the other"),
        ("choice by", choice, our_choice, "--scorer, or --per and --seed, as for the other"),
    ):
        if theirs != ours:
            raise DataError(
                f"{valid} has the {what} {theirs} and {path} {ours}; preprocess both alike, the first with {flag}"
            )


def _valid_folder(data: DataSettings, path: str, method: str) -> str | None:
    """The folder of `data.valid`; the name of a corpus means <root>/<method>/<name>_<validation split>."""
    if data.valid is None or "/" in data.valid:
        return data.valid
    parent = Path(data.root) / method
    candidates = [parent / f"{data.valid}_{split}" for split in _VALIDATION_SPLITS]
    there = [folder for folder in candidates if folder.is_dir()]
    if len(there) > 1:
        raise DataError(
            f"data.valid is {data.valid}, and both {there[0]} and {there[1]} are there; name one of them by its path"
        )
    if not there:
        raise DataError(
            f"{candidates[0]} is not there, the data of data.valid={data.valid}; make it with `cdllm preprocess "
            f"{method} --dataset {data.valid} --split validation --tokenizer {path} --out {data.root}`, name another "
            "corpus or a folder (with a slash) with data.valid, or give data.valid=null to measure no bound"
        )
    return str(there[0])
