"""Reads study files: built-in ones by name, or a user's own, with overrides of their keys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cascaded_dllm.cli.compose import config_folder
from cascaded_dllm.cli.override_values import override_values
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study.folder import STUDY_FILE, StudyFolder
from cascaded_dllm.study_config import StudySettings, parse_study


def shipped_studies() -> dict[str, Path]:
    """The files in `configs/study`, by name."""
    return {path.stem: path for path in sorted((config_folder() / "study").glob("*.yaml"))}


def read_study(source: str, overrides: Sequence[str] = ()) -> StudySettings:
    """The built-in study of a name, or the study in a file.

    Args:
        source: name or path.
        overrides: key=value for keys of the file, such as "budget.token_forwards=1000000".

    Raises:
        ConfigError: there is no such study, it cannot be read, or something in it is unknown or out of range.
    """
    shipped = shipped_studies()
    path = shipped.get(source, Path(source))
    if not path.is_file():
        raise ConfigError(
            f"the study is {source!r}, which is not a file; name a file or a built-in study: {', '.join(shipped)}"
        )
    try:
        # OmegaConf rather than PyYAML's own reader, which reads 1e15 as a text.
        settings: Any = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read ({' '.join(str(error).split())}); it must be YAML") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} contains a {type(settings).__name__}; a study is a group of keys, see docs/study.md")
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"the override {override!r} has no '='; write key=value, for example seeds=[0,1,2]")
    for key, value in override_values(overrides).items():
        _put(settings, key, value)
    return parse_study(settings)


def open_study(out: Path) -> tuple[StudySettings, StudyFolder]:
    """The study that was begun in `out`, and its folder.

    Raises:
        ConfigError: there is no study in `out`, or its file has a key that is unknown or a value out of range.
    """
    folder = StudyFolder(out.absolute())
    if not (folder.out / STUDY_FILE).is_file():
        raise ConfigError(f"{out} is not the folder of a study: it has no {STUDY_FILE}; name one that was begun")
    return read_study(str(folder.out / STUDY_FILE)), folder


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key of a nested mapping, and creates missing groups."""
    *groups, last = key.split(".")
    for name in groups:
        inner = settings.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"the override {key}={value} sets a key in {name}, which is not a group but {inner!r}; leave it out"
            )
        settings = inner
    settings[last] = value
