"""The values that overrides key=value give, in Hydra's grammar."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cascaded_dllm.errors import ConfigError


def override_values(keys: Sequence[str]) -> dict[str, Any]:
    """The values of overrides that set keys, read by Hydra's grammar; a leading "+" or "++" changes nothing.

    Raises:
        ConfigError: an override cannot be read, removes a key, or gives several values.
    """
    values: dict[str, Any] = {}
    parser = OverridesParser.create()
    for key in keys:
        try:
            override = parser.parse_override(key)
        except HydraException as error:
            problem = str(error).partition("\n")[0]
            raise ConfigError(
                f"the override {key!r} cannot be read ({problem}); write key=value, close every bracket and brace, and "
                "put a value with one of =()' in double quotes, as in 'key=\"a=b\"'"
            ) from error
        if override.is_delete():
            raise ConfigError(
                f"the override {override.input_line!r} removes a key, and every key is needed; give it a value"
            )
        if override.is_sweep_override():
            raise ConfigError(
                f"the override {override.input_line!r} gives several values, and a run takes one; put a text with "
                "commas in quotes, a list in brackets"
            )
        name = override.key_or_group
        # Setting a group as a whole discards what earlier overrides set inside it.
        values = {other: value for other, value in values.items() if not other.startswith(f"{name}.")}
        values[name] = override.value()
    return values
