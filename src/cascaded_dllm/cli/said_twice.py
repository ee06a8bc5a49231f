"""A flag of a command and an override key=value that say different things: none of them is passed over."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.overrides import as_written

FLAGS_OF_PATHS = {"data.path": "--data", "data.valid": "--valid", "data.stages_dir": "--stages", "run_dir": "--out"}
"""Keys that are paths, and their flags."""


class Said(NamedTuple):
    """A value that is given besides the flags.

    Attributes:
        value: of a key, or the choice of a group.
        source: the file that it comes from, as an override; empty if it is an override itself.
    """

    value: Any
    source: str = ""


def require_one_path(values: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    """Checks that no path is given as a flag and, otherwise, as a key, of which one would be passed over.

    Args:
        values: of overrides, by key.
        paths: of flags, by key.

    Raises:
        ConfigError: one is.
    """
    for key, path in paths.items():
        # What is no path may be the name of a corpus there.
        alike = str if key == "data.valid" else os.path.normpath
        if key in values and alike(str(values[key])) != alike(path):
            given = as_written(values[key])
            raise ConfigError(f"{key} is {given} and {FLAGS_OF_PATHS[key]} {path}; give one of both")


def require_one_value(said: Mapping[str, Said], flag: str, values: Mapping[str, Any]) -> None:
    """Checks that nothing is said by a flag and, otherwise, by an override.

    Args:
        said: by overrides and by the files that they choose, by key or group.
        flag: as it is written.
        values: what it says, likewise.

    Raises:
        ConfigError: something is.
    """
    for name, value in values.items():
        if name in said and said[name].value != value:
            through = f" through {said[name].source}" if said[name].source else ""
            raise ConfigError(
                f"{name} is {as_written(said[name].value)}{through}, and {flag} says {name}={as_written(value)}; "
                "give one of both"
            )
