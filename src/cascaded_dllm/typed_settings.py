"""Settings from files as typed objects: every key is known, every value has its type, and mistakes are told by name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from cascaded_dllm.errors import ConfigError

T = TypeVar("T")


def parse_settings(kind: type[T], settings: Mapping[str, Any], path: str = "") -> T:
    """A dataclass from a nested mapping; only fields that have a default may be left out.

    Args:
        kind: the dataclass, whose fields are plain values, tuples or other such dataclasses.
        settings: its values by name.
        path: where they stand, "optim." for example, for messages.

    Raises:
        ConfigError: a key is unknown (its nearest neighbour is named) or missing, or a value has the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in settings:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            remedy = f"did you mean {path}{near[0]}?" if near else f"the keys are {', '.join(fields)}"
            raise ConfigError(f"the key {path}{key} is unknown; {remedy}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in settings:
            values[name] = _value(hints[name], settings[name], f"{path}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"the key {path}{name} is missing; set {path}{name}=...")
    return kind(**values)


def _value(hint: Any, value: Any, path: str) -> Any:
    """`value` as the declared type; whole numbers are accepted as floats, nothing else is converted."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {value!r}; it must be a group of keys")
        return parse_settings(typing.cast(type, hint), value, f"{path}.")
    if isinstance(hint, types.UnionType):
        return None if value is None else _value(typing.get_args(hint)[0], value, path)
    if typing.get_origin(hint) is tuple:
        return _items(typing.get_args(hint)[0], value, path)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path} is {value!r}; it must be of type {hint.__name__}")
    return value


def _items(kind: Any, values: Any, path: str) -> tuple[Any, ...]:
    """A list of values of one type; of groups, each is told by its number."""
    is_of_groups = dataclasses.is_dataclass(kind)
    if not isinstance(values, list | tuple):
        example = "[32, 64, 128]" if kind is int else "[runs/stage1, runs/stage2]"
        remedy = "groups of keys, each after a dash" if is_of_groups else f"for example {example}"
        raise ConfigError(f"{path} is {values!r}; it must be a list, {remedy}")
    names = (f"{path}[{place}]" if is_of_groups else path for place in range(len(values)))
    return tuple(_value(kind, value, name) for value, name in zip(values, names, strict=True))
