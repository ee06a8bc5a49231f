"""From the options of `cdllm sample` to how texts are drawn, and back, so that a run that goes on can be compared."""

import re
from collections.abc import Mapping
from typing import Any, cast

from cascaded_dllm.cli.options import given
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.control import Pin
from cascaded_dllm.sample.drawing import Drawing, DrawingOptions, drawing_of_options

_PIN = re.compile(r"(?P<stage>\d+):(?P<position>\d+|start|end):(?P<text>.*)", re.DOTALL)
_LAW = ("temperature", "top_k", "top_p")
_CONTROL = {"keywords": "keywords", "outline": "outline", "pin": "pins", "require_coverage": "require_coverage"}
"""Names of options, and of what they are called in `Control`."""


def drawing_of(chosen: Mapping[str, Any]) -> Drawing:
    """How texts are drawn, by the options that are given under their names; all others have their defaults."""
    options = {"pinned" if name == "pin" else name: value for name, value in chosen.items()}
    return drawing_of_options(cast(DrawingOptions, options))


def method_options(
    *,
    predictor: str | None,
    steps: str | None,
    tokens_per_call: str | None,
    eta: float | None,
    gaps_per_call: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    guidance: float | None,
    prefix_noise: float | None,
) -> dict[str, Any]:
    """How texts are drawn, of the options that are given, under their names; as they are typed.

    Raises:
        ConfigError: one cannot be read.
    """
    options: dict[str, Any] = {
        "predictor": parse_names(predictor),
        "steps": parse_numbers("--steps", steps),
        "tokens_per_call": parse_numbers("--tokens-per-call", tokens_per_call),
        "eta": eta,
        "gaps_per_call": gaps_per_call,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "guidance": guidance,
        "prefix_noise": prefix_noise,
    }
    return given(options)


def options_of(drawing: Drawing) -> dict[str, Any]:
    """The inverse of `drawing_of`, for all options."""
    plain = {name: getattr(drawing, name) for name in Drawing.__dataclass_fields__ if name not in ("law", "control")}
    return {
        **plain,
        **{name: getattr(drawing.law, name) for name in _LAW},
        **{name: getattr(drawing.control, inner) for name, inner in _CONTROL.items()},
    }


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """The names in "analytic,first_hitting", one for all stages or one for each."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def parse_numbers(flag: str, text: str | None) -> tuple[int | None, ...] | None:
    """The numbers in "32,-,64", one for all stages or one for each; "-" for a stage that takes none.

    Raises:
        ConfigError: the text is no such list.
    """
    if text is None:
        return None
    return tuple(_number(flag, text, part.strip()) for part in text.split(","))


def parse_keywords(text: str | None) -> tuple[str, ...] | None:
    """The keywords in "storm, lighthouse, keeper".

    Raises:
        ConfigError: there is none.
    """
    if text is None:
        return None
    if not text.strip():
        raise ConfigError('--keywords is empty; give words with commas, "storm, lighthouse", or leave it out')
    return tuple(part.strip() for part in text.split(","))


def parse_pins(texts: list[str] | None) -> tuple[Pin, ...] | None:
    """The pins in "3:start:Once upon a time" and its like.

    Raises:
        ConfigError: a text is no such pin.
    """
    return None if not texts else tuple(map(_pin, texts))


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
