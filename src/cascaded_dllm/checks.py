"""Checks of single settings, each with the one wording that its message has wherever the setting comes from."""

import difflib
from collections.abc import Collection
from typing import TypeVar

from cascaded_dllm.errors import ConfigError

_Choice = TypeVar("_Choice", bound=str)


def one_of(what: str, value: object, choices: Collection[_Choice], *, hint: str = "") -> _Choice:
    """The choice that `value` is.

    Args:
        what: the setting, as the message calls it.
        value: of the setting.
        choices: all there are.
        hint: what else is possible, or why, for the end of the message.

    Raises:
        ConfigError: it is none; the nearest one is named if one is near.
    """
    for choice in choices:
        if choice == value:
            return choice
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{what} is {value!r}; it must be one of {', '.join(choices)}{_ending(hint)}{meant}")


def require_at_least(what: str, value: int | float | None, least: int, *, hint: str = "") -> None:
    """Checks that a number is large enough, which infinity is; what is left out, None, is no number.

    Raises:
        ConfigError: it is smaller, or NaN.
    """
    # NaN is neither smaller nor larger.
    if value is not None and not value >= least:
        raise ConfigError(f"{what} is {value}; it must be at least {least}{_ending(hint)}")


def require_below_1(what: str, value: float) -> None:
    """Checks that a share is 0 or more, and less than 1.

    Raises:
        ConfigError: it is not in [0, 1), or NaN.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{what} is {value}; it must be at least 0 and less than 1")


def require_between_0_and_1(what: str, value: float, *, hint: str = "") -> None:
    """Checks that a number is larger than 0 and smaller than 1.

    Raises:
        ConfigError: it is not, or NaN.
    """
    if not 0 < value < 1:
        raise ConfigError(f"{what} is {value}; it must lie between 0 and 1{_ending(hint)}")


def _ending(hint: str) -> str:
    return f", {hint}" if hint else ""
