"""Overrides key=value: a check that their keys are free to set, and how values are written."""

import json
from collections.abc import Collection, Iterable
from typing import Any

from cascaded_dllm.errors import ConfigError


def require_free(overrides: Iterable[str], decided: Collection[str], complaint: str) -> None:
    """Checks that no override sets a key that is decided elsewhere.

    Args:
        overrides: key=value, in Hydra's grammar.
        decided: keys, and groups of keys, that are not free.
        complaint: the message, with {key} for the key.

    Raises:
        ConfigError: one does.
    """
    for override in overrides:
        name, _, value = override.partition("=")
        key = name.lstrip("+~").partition("@")[0]
        if key in decided or key.partition(".")[0] in decided:
            raise ConfigError(complaint.format(key=key))
        # A group as a whole, training={seed: 5}, sets every key in it.
        inside = [other for other in decided if other.startswith(f"{key}.")]
        if inside and value.lstrip().startswith("{"):
            raise ConfigError(complaint.format(key=f"{inside[0]} (in {key}={{...}})"))


def as_written(value: Any) -> str:
    """A value as a configuration file has it: a string as it is, anything else as JSON, a subset of YAML."""
    return value if isinstance(value, str) else json.dumps(value)
