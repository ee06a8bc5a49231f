"""A run's configuration from the files in `configs/`, overrides `key=value`, and the settings of a run to resume.

Hydra composes the groups (`model=tiny`, `stage@_global_=stage2`). Keys are set afterwards, also by Hydra's grammar. So
`stage` can be a number beside the group of that name, and the stored settings of a run can be changed in the same way.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cascaded_dllm.checks import one_of
from cascaded_dllm.cli.contradictions import FLAGS_OF_PATHS, GivenValue, require_one_path, require_one_value
from cascaded_dllm.cli.override_values import override_values
from cascaded_dllm.cli.without_effect import require_effect
from cascaded_dllm.config import TrainConfig, leaves, parse_config
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.file_names import RUN_CONFIG_FILE

_STAGE_FILE = "stage@_global_"
"""The group of the stage files, in Hydra's notation."""

_NAMES = ("data.train", "data.dataloader", "data.valid")
"""The keys that name data in the files; they do not apply to a folder given by its path."""


def config_folder() -> Path:
    """The folder of the configuration files: inside the installed package, or at the root of a checkout."""
    inside = Path(__file__).resolve().parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "configs"


def compose_config(
    overrides: Sequence[str],
    *,
    name: str = "cascade_config",
    paths: Mapping[str, Path] | None = None,
    flags: Mapping[str, str] | None = None,
    is_one_run: bool = False,
) -> TrainConfig:
    """The configuration `name` of `configs/` with overrides such as `model=tiny` and `optim.lr=1e-3`.

    If `load_dir` is among them, the stored settings of that run apply over the file and under the other overrides.

    Args:
        overrides: in Hydra's grammar; the last one of a key wins.
        name: file in `configs/`.
        paths: values of `run_dir` and of the paths in `data`, taken literally: Hydra's grammar would read a dollar sign
            or a backslash in a path as something else.
        flags: flags of a command, each with the override that it stands for.
        is_one_run: whether all overrides are meant for this one run, so that each must have an effect on it.

    Raises:
        ConfigError: an override cannot be read, a key is unknown or missing, a value has the wrong type, `load_dir`
            is not a run folder or contradicts `run_dir`, a flag and an override contradict each other, or an
            override of a single run would have no effect.
    """
    groups, keys = _split([*(flags or {}).values(), *overrides])
    as_they_are = {key: _folder(key, path) for key, path in (paths or {}).items()}
    try:
        _require_no_contradiction(overrides, flags or {})
        values = override_values(keys)
        require_one_path(dict(leaves(values)), as_they_are)
        stored, groups = _stored_run(values.get("load_dir"), groups)
        tree = OmegaConf.create(_composed(name, groups, stored))
        for key, value in values.items():
            OmegaConf.update(tree, key, value, force_add=True)
        missing = sorted(OmegaConf.missing_keys(tree) - as_they_are.keys())
        settings: Any = {} if missing else OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            f"the configuration cannot be composed: {str(error).strip()}; check the overrides, key=value"
        ) from error
    if missing:
        given = " and ".join(FLAGS_OF_PATHS.get(key, f"{key}=...") for key in missing)
        raise ConfigError(f"{' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} no value; give {given}")
    for key, text in (_literal(stored.settings, values) | as_they_are).items():
        _set(settings, key, text)
    given_keys = values.keys() | as_they_are.keys()
    if stored.folder is None:
        _forget_names(settings, given_keys)
    _take_up(settings, stored.folder, has_run_dir="run_dir" in given_keys)
    config = parse_config(settings)
    if is_one_run:
        require_effect(values, config)
    return config


def _require_no_contradiction(overrides: Sequence[str], flags: Mapping[str, str]) -> None:
    """Checks that overrides, and the stage file that they may choose, do not contradict the flags.

    Raises:
        ConfigError: they do.
    """
    groups, keys = _split(overrides)
    given: dict[str, GivenValue] = {}
    for group, choice in _choices(groups).items():
        given[group] = GivenValue(choice)
        if group == _STAGE_FILE:
            settings = dict(leaves(_of_files(f"stage/{choice}", ())))
            given |= {key: GivenValue(value, f"{group}={choice}") for key, value in settings.items()}
    given |= {key: GivenValue(value) for key, value in override_values(keys).items()}
    for flag, override in flags.items():
        groups, keys = _split([override])
        require_one_value(given, flag, _choices(groups) | override_values(keys))


def _choices(groups: Sequence[str]) -> dict[str, str]:
    """The choice of every group."""
    return {name: choice for name, _, choice in (group.partition("=") for group in groups)}


@dataclass(frozen=True, slots=True)
class _StoredRun:
    """The folder and the stored settings of the run to resume; None and empty for a new run."""

    folder: str | None
    settings: dict[str, Any]


def _split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that choose groups, the last one of each in Hydra's notation, and the overrides that set keys."""
    groups: dict[str, str] = {}
    keys = []
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator or not name:
            raise ConfigError(
                f"the override {override!r} has no key and '='; write key=value, for example training.num_steps=1000"
            )
        group, _, package = name.partition("@")
        choices = sorted(path.stem for path in (config_folder() / group.lstrip("+~")).glob("*.yaml"))
        is_number_of_stage = not package and group.lstrip("+~") == "stage" and value.lstrip("-").isdecimal()
        if "/" in group or "." in group or not choices or is_number_of_stage:
            keys.append(override)
        else:
            one_of(name, value, choices)
            # The keys of a stage file belong to the root of the configuration.
            name = _STAGE_FILE if name == "stage" else name
            groups[name] = f"{name}={value}"
    return list(groups.values()), keys


def _stored_run(load_dir: Any, groups: list[str]) -> tuple[_StoredRun, list[str]]:
    """The run in `load_dir` with the files of `groups` laid over its settings, and the groups left to compose: none.

    Without `load_dir`, no run, and `groups` as they are.
    """
    if load_dir is None:
        return _StoredRun(None, {}), groups
    path = Path(str(load_dir)) / RUN_CONFIG_FILE
    if not path.parent.is_dir():
        raise ConfigError(f"load_dir is {load_dir}, which does not exist; name the folder that a run was written to")
    if not path.is_file():
        raise ConfigError(
            f"load_dir is {load_dir}, which is not a run folder: it has no {RUN_CONFIG_FILE}; name a folder that a run "
            "was written to, or start a new run from the weights in it with pretrained.use_pretrained=true "
            f"pretrained.model_path={load_dir}"
        )
    settings = _read_settings(path)
    for group in groups:
        name, _, choice = group.partition("=")
        settings = _overlaid(settings, _of_files(f"{name.partition('@')[0]}/{choice}", ()))
    return _StoredRun(str(load_dir), settings), []


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings that a run stored."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); put the file back") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} contains a {type(settings).__name__} instead of settings; put the file back")
    return settings


def _composed(name: str, groups: Sequence[str], stored: _StoredRun) -> dict[str, Any]:
    """The file with its groups, and the stored settings of a run laid over it.

    Texts that OmegaConf would read as an interpolation or a missing value are emptied; `_literal` finds them again.
    """
    settings = _overlaid(_of_files(name, groups), stored.settings)
    for key in _literal(settings, {}):
        _set(settings, key, "")
    return settings


def _of_files(name: str, groups: Sequence[str]) -> dict[str, Any]:
    """A file with its groups, as a copy that the caller may change."""
    changed = tuple(path.stat().st_mtime_ns for path in sorted(config_folder().rglob("*.yaml")))
    return copy.deepcopy(_by_hydra(name, tuple(groups), changed))


@functools.lru_cache(maxsize=64)
def _by_hydra(name: str, groups: tuple[str, ...], changed: tuple[int, ...]) -> dict[str, Any]:
    """A file with its groups, cached because Hydra takes a fifth of a second and a study asks for the same ones often.

    Args:
        name: of the file.
        groups: choices, in Hydra's notation.
        changed: modification times of all configuration files; part of the cache key.
    """
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        settings: Any = OmegaConf.to_container(compose(name, overrides=list(groups)))
    return dict(settings)


def _overlaid(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` laid over it, recursively."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        result[key] = _overlaid(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def _literal(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Texts that OmegaConf would read as an interpolation or a missing value, except those of keys in `given`."""
    return {
        key: value
        for key, value in leaves(settings)
        if isinstance(value, str) and ("${" in value or value == "???") and key not in given
    }


def _set(settings: dict[str, Any], key: str, value: object) -> None:
    """Sets a key, unless something that is not a group stands in its group's place; `parse_config` reports that."""
    *groups, last = key.split(".")
    group: Any = settings
    for name in groups:
        group = group[name]
        if not isinstance(group, dict):
            return
    group[last] = value


def _folder(key: str, path: Path) -> str:
    """A path as the configuration stores it; `data.valid` gets a slash, which tells it from the name of a corpus."""
    text = str(path)
    return f"./{text}" if key == "data.valid" and "/" not in text else text


def _forget_names(settings: dict[str, Any], given: AbstractSet[str]) -> None:
    """Clears the names of data that come from the files, if a folder is given by its path."""
    if "data.path" in given:
        for key in _NAMES:
            if key not in given:
                _set(settings, key, None)


def _take_up(settings: dict[str, Any], load_dir: str | None, *, has_run_dir: bool) -> None:
    """Sets `run_dir` to `load_dir`, because a run is resumed in its own folder.

    Raises:
        ConfigError: `run_dir` is given and is another folder.
    """
    settings.pop("load_dir", None)
    if load_dir is None:
        return
    if has_run_dir and Path(str(settings["run_dir"])).resolve() != Path(load_dir).resolve():
        raise ConfigError(
            f"run_dir (--out) is {settings['run_dir']} and load_dir is {load_dir}: a run is resumed in its own folder; "
            "leave run_dir out, or start a new run from its weights with pretrained.use_pretrained=true "
            f"pretrained.model_path={load_dir}"
        )
    settings["run_dir"] = load_dir
