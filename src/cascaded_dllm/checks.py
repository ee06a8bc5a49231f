"""Checks of single settings, whose messages have the same wording wherever the setting comes from."""

import difflib
import operator
from collections.abc import Collection
from typing import Any, TypeVar

from cascaded_dllm.errors import ConfigError

_Choice = TypeVar("_Choice", bound=str)

_MOST = 10**12
"""More of anything than a command can come to an end with, and few enough that products fit into 64 bits."""


def one_of(what: str, value: object, choices: Collection[_Choice], *, hint: str = "") -> _Choice:
    """The one of `choices` that equals `value`.

    Args:
        what: the setting, as the message calls it.
        value: its value.
        choices: all that are allowed.
        hint: what else is possible, or why, for the end of the message.

    Raises:
        ConfigError: none does; the message names the nearest choice if one is similar.
    """
    for choice in choices:
        if choice == value:
            return choice
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{what} is {value!r}; it must be one of {', '.join(choices)}{_ending(hint)}{meant}")


def require_at_least(what: str, value: int | float, least: int, *, most: int | float = _MOST, hint: str = "") -> None:
    """Checks that a number is large enough, and a whole number not too large; infinity is large enough.

    Args:
        what: the setting, as the message calls it.
        value: its value.
        least: the smallest number that is allowed.
        most: the largest whole number that is allowed; by default a limit beyond all measure.
        hint: what else is possible, or why, for the end of the message about a number that is too small.

    Raises:
        ConfigError: it is smaller, or NaN, or a whole number larger than `most`.
    """
    # Not value < least, which is false for NaN.
    if not value >= least:
        raise ConfigError(f"{what} is {value}; it must be at least {least}{_ending(hint)}")
    if isinstance(value, int) and value > most:
        raise ConfigError(f"{what} is {value}; it must be at most {most}")


def require_whole(
    what: str, value: object, least: int | None = None, *, most: int | float = _MOST, hint: str = ""
) -> None:
    """Checks that a number is whole and within its limits; integers of NumPy and PyTorch are whole, booleans are not.

    Args:
        what: as of `require_at_least`.
        value: its value.
        least: the smallest number that is allowed; None for no limits.
        most: as of `require_at_least`.
        hint: as of `require_at_least`.

    Raises:
        ConfigError: it is not whole, or beyond a limit.
    """
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "torch.bool"
    try:
        number = None if is_bool else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        limit = "" if least is None else f" of at least {least}"
        raise ConfigError(f"{what} is {value!r}; it must be a whole number{limit}{_ending(hint)}")
    if least is not None:
        require_at_least(what, number, least, most=most, hint=hint)


def plain_number(what: str, value: Any) -> int | float:
    """A number as one of Python, for fractions and numbers of NumPy and PyTorch; NaN and infinity are numbers.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, int | float):
        return value
    try:
        number = None if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor of several numbers
        number = None
    if number is None:
        raise ConfigError(f"{what} is {value!r}; it must be a number")
    return number


def require_share(what: str, value: float) -> None:
    """Checks that a share is in [0, 1).

    Raises:
        ConfigError: it is not, or NaN.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{what} is {value}; it must be at least 0 and less than 1")


def require_between_0_and_1(what: str, value: float, *, hint: str = "") -> None:
    """Checks that a number is in (0, 1).

    Raises:
        ConfigError: it is not, or NaN.
    """
    if not 0 < value < 1:
        raise ConfigError(f"{what} is {value}; it must lie between 0 and 1{_ending(hint)}")


def _ending(hint: str) -> str:
    return f", {hint}" if hint else ""
