"""Settings from files as typed objects: every key is known, every value has its type, and errors name the key."""

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cascaded_dllm.errors import ConfigError

T = TypeVar("T")

# Largest absolute value: of whole numbers, what a tensor holds.
_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


def parse_settings(kind: type[T], settings: Mapping[str, Any], path: str = "", whole: type | None = None) -> T:
    """A dataclass from a nested mapping; only fields that have a default may be left out.

    Args:
        kind: the dataclass, whose fields are plain values, tuples or dataclasses of the same form.
        settings: its values by name.
        path: where they stand, for example "optim.", for messages.
        whole: the dataclass that contains `kind`; None for `kind` itself.

    Raises:
        ConfigError: a key is unknown (its nearest neighbour is named) or missing, or a value has the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in settings:
        if key not in fields:
            near = _nearest(str(key), list(fields), path, list(_keys(whole or kind)))
            remedy = f"did you mean {near}?" if near else f"the keys are {', '.join(fields)}"
            raise ConfigError(f"the key {path}{key} is unknown; {remedy}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in settings:
            values[name] = _value(hints[name], settings[name], f"{path}{name}", whole or kind)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"the key {path}{name} is missing; set {path}{name}=...")
    return kind(**values)


def _keys(kind: type, path: str = "") -> Iterator[str]:
    """All keys that are not groups, as "optim.lr"."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}"


def _nearest(key: str, beside: Sequence[str], path: str, everywhere: Sequence[str]) -> str:
    """The known key that an unknown one may mean: the same name in another group, or a similar name; "" if none."""
    if same := [known for known in everywhere if known.rpartition(".")[2] == key]:
        return " or ".join(same)
    if near := difflib.get_close_matches(key, beside, n=1, cutoff=0.65):
        return f"{path}{near[0]}"
    if longer := [known for known in everywhere if key in known.rpartition(".")[2].split("_")]:
        return " or ".join(longer)
    names = {known.rpartition(".")[2]: known for known in reversed(everywhere)}
    return next((names[name] for name in difflib.get_close_matches(key, names, n=1, cutoff=0.7)), "")


def _value(hint: Any, value: Any, path: str, whole: type) -> Any:
    """`value` as the declared type; integers become floats and lists tuples, nothing else is converted."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {_as_written(value)}; it must be a group of keys")
        return parse_settings(typing.cast(type, hint), value, f"{path}.", whole)
    if isinstance(hint, types.UnionType):
        kinds = typing.get_args(hint)
        if value is None and types.NoneType in kinds:
            return None
        # A union such as str | tuple[str, ...] accepts one value or a list.
        lists = [kind for kind in kinds if typing.get_origin(kind) is tuple]
        return _value(lists[0] if lists and isinstance(value, list | tuple) else kinds[0], value, path, whole)
    if typing.get_origin(hint) is tuple:
        return _items(typing.get_args(hint)[0], value, path, whole)
    if hint in _LARGEST and type(value) is int and abs(value) > _LARGEST[hint]:
        raise ConfigError(f"{path} has {len(str(abs(value)))} digits; it must be at most {_LARGEST[hint]:.3g}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{path} is {_as_written(value)}; it must be of type {hint.__name__}")
    return value


def _as_written(value: object) -> str:
    """A value as messages show it: null, true and false are written as in YAML."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _items(kind: Any, values: Any, path: str, whole: type) -> tuple[Any, ...]:
    """A list of values of one type, as a tuple; messages number the groups in a list of groups."""
    is_of_groups = dataclasses.is_dataclass(kind)
    if not isinstance(values, list | tuple):
        example = "[32, 64, 128]" if kind is int else f"[{values}]"
        remedy = "groups of keys, each after a dash" if is_of_groups else f"for example {example}"
        raise ConfigError(f"{path} is {_as_written(values)}; it must be a list, {remedy}")
    names = (f"{path}[{place}]" if is_of_groups else path for place in range(len(values)))
    # `_keys` does not descend into lists, so a group in a list is searched for similar keys by itself.
    within = kind if is_of_groups else whole
    return tuple(_value(kind, value, name, within) for value, name in zip(values, names, strict=True))
