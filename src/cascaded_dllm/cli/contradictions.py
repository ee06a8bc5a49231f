"""Checks that a flag of a command and an override key=value do not contradict each other; neither wins silently."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.overrides import as_written

FLAGS_OF_PATHS = {"data.path": "--data", "data.valid": "--valid", "data.stages_dir": "--stages", "run_dir": "--out"}
"""The keys of the configuration that are paths, and the flags that set them."""


class GivenValue(NamedTuple):
    """A value that overrides give, rather than flags.

    Attributes:
        value: value of a key, or choice of a group.
        source: the override that chooses the file with this value; empty if an override gives the value itself.
    """

    value: Any
    source: str = ""


def require_one_path(values: Mapping[str, Any], paths: Mapping[str, str]) -> None:
    """Checks that no path is given both by a flag and, differently, by an override.

    Args:
        values: values of the overrides, by key.
        paths: values of the flags, by key.

    Raises:
        ConfigError: one is.
    """
    for key, path in paths.items():
        # data.valid may also be the name of a corpus, which must not be normalised as a path.
        alike = str if key == "data.valid" else os.path.normpath
        if key in values and alike(str(values[key])) != alike(path):
            given = as_written(values[key])
            raise ConfigError(f"{key} is {given} and {FLAGS_OF_PATHS[key]} is {path}; give only one of them")


def require_one_value(given: Mapping[str, GivenValue], flag: str, values: Mapping[str, Any]) -> None:
    """Checks that a flag does not contradict the overrides.

    Args:
        given: values from overrides and from the files that they choose, by key or group.
        flag: the flag as the user writes it.
        values: values that the flag sets, by key or group.

    Raises:
        ConfigError: it does.
    """
    for name, value in values.items():
        if name in given and given[name].value != value:
            through = f" through {given[name].source}" if given[name].source else ""
            raise ConfigError(
                f"{name} is {as_written(given[name].value)}{through}, and {flag} says {name}={as_written(value)}; "
                "give only one of them"
            )
