"""Turns options into a `Drawing`, and a `Drawing` back into options, which are compared when a run is resumed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from cascaded_dllm.cli.options import parse_lengths
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.control import Pin
from cascaded_dllm.sample.drawing import Drawing, drawing_of_options, options_among
from cascaded_dllm.sample.given import read_outline
from cascaded_dllm.sample.settings import absolute_source

_PIN = re.compile(r"(?P<stage>\d+):(?P<position>\d+|start|end):(?P<text>.*)", re.DOTALL)


def read_options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, by name, parsed into values.

    Args:
        typed: the parameters of a command; those that were left out are None or empty lists.

    Raises:
        ConfigError: an option cannot be parsed.
        DataError: a file that an option names cannot be read.
    """
    given = {name: value for name, value in typed.items() if value is not None and value != []}
    return {name: _READERS[name](value) if name in _READERS else value for name, value in given.items()}


def drawing_of(options: Mapping[str, Any]) -> Drawing:
    """How texts are drawn, from those of the options that decide it; missing ones have their defaults."""
    return drawing_of_options(options_among({**options, "pinned": options.get("pin", ())}))


def options_of(drawing: Drawing) -> dict[str, Any]:
    """The inverse of `drawing_of`: all options of a drawing, by their names in the command and in the dataclasses."""
    return {**values_of(drawing, drawing.law, drawing.control), "pin": drawing.control.pins}


def values_of(*records: Any) -> dict[str, Any]:
    """The values of all fields of these dataclasses, by name; no two dataclasses share a field name."""
    return {field.name: getattr(record, field.name) for record in records for field in fields(record)}


def parse_names(text: str) -> tuple[str, ...]:
    """The names in "analytic,first_hitting", one for all stages or one for each."""
    return tuple(part.strip() for part in text.split(","))


def parse_numbers(flag: str, text: str) -> tuple[int | None, ...]:
    """The numbers in "32,-,64", one for all stages or one for each; "-" for a stage that takes none.

    Raises:
        ConfigError: the text is not such a list.
    """
    return tuple(_number(flag, text, part.strip()) for part in text.split(","))


def parse_keywords(text: str) -> tuple[str, ...]:
    """The keywords in "storm, lighthouse, keeper".

    Raises:
        ConfigError: the text is empty.
    """
    if not text.strip():
        raise ConfigError('--keywords is empty; give words with commas, "storm, lighthouse", or leave it out')
    return parse_names(text)


def parse_pins(texts: list[str]) -> tuple[Pin, ...]:
    """The pins in texts such as "3:start:Once upon a time".

    Raises:
        ConfigError: a text is not such a pin.
    """
    return tuple(map(_pin, texts))


def _number(flag: str, text: str, part: str) -> int | None:
    if part == "-":
        return None
    if not part.removeprefix("-").isdecimal():
        raise ConfigError(
            f"{flag} is {text!r}; it must be a whole number, or one for each stage with commas, - where a stage takes "
            "none: 64 or 32,-,64"
        )
    return int(part)


def _pin(text: str) -> Pin:
    found = _PIN.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--pin is {text!r}; it must be STAGE:POSITION:TEXT, POSITION a number from 0 on, start or end: "
            "'3:start:The storm'"
        )
    place = found["position"]
    return Pin(int(found["stage"]), place if place in ("start", "end") else int(place), found["text"])  # type: ignore[arg-type]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "predictor": parse_names,
    "steps": partial(parse_numbers, "--steps"),
    "tokens_per_call": partial(parse_numbers, "--tokens-per-call"),
    "keywords": parse_keywords,
    "outline": read_outline,
    "pin": parse_pins,
    "stage": lambda paths: tuple(map(absolute_source, paths)),
    "cascade": absolute_source,
    "judge": absolute_source,
    "tokenizer": absolute_source,
    "lengths": parse_lengths,
}
"""The parsers of options whose value is not the text or number that the user types."""
