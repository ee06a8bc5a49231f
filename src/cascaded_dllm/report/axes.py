"""Axes of charts: their ends and ticks, and how numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LOG_FROM = 20.0
"""Least ratio of the largest value to the smallest for which an axis is logarithmic."""

_SUFFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

_PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values.

    Attributes:
        low: smaller end.
        high: larger end.
        ticks: values that are marked, all of them inside.
        is_log: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """The place of `value` on the axis: 0 at the low end, 1 at the high end."""
        if self.is_log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def labelled(self) -> list[tuple[float, str]]:
        """The ticks with their labels, which have as many digits as they need to differ, and at least four."""
        digits = 4
        while len({number_text(tick, digits) for tick in self.ticks}) < len(self.ticks):
            digits += 1
        return [(tick, number_text(tick, digits)) for tick in self.ticks]


def axis_of(values: Sequence[float], *, from_zero: bool = False, may_be_log: bool = False, num_ticks: int = 5) -> Axis:
    """An axis on which all `values` have room.

    Args:
        values: each is 0 or has a size from 1e-150 to 1e150, which `fields.finite` ensures; without values the axis
            runs from 0 to 1.
        from_zero: whether the axis includes 0, so that lengths can be compared.
        may_be_log: whether the axis is logarithmic if the values are positive and spread far.
        num_ticks: approximate number of ticks.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    elif may_be_log and low > 0 and high / low >= _LOG_FROM:
        return _log_axis(low, high)
    return _linear_axis(low, high, num_ticks)


def _linear_axis(low: float, high: float, num_ticks: int) -> Axis:
    """An axis whose ends are ticks, at steps of 1, 2 or 5 times a power of ten."""
    # Values that differ by little more than rounding count as one value.
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size:
        room = size / 2 or 0.5
        low, high = low - room, high + room
    step = _nice((high - low) / num_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounded to 12 digits, so that 0.30000000000000004 is 0.3.
    ticks = tuple(float(f"{place * step:.12g}") for place in range(first, last + 1))
    return Axis(min(ticks[0], low), max(ticks[-1], high), ticks)


def _nice(step: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= step), 10 * power)


def _log_axis(low: float, high: float) -> Axis:
    """An axis with ticks at powers of ten and, if these are few, at 2 and 5 times them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    every = max(1, math.ceil(len(decades) / 7))
    ticks = tuple(
        tick
        for decade in decades[::every]
        for factor in factors
        if low <= (tick := float(f"{factor}e{decade}")) <= high
    )
    room = (high / low) ** 0.02
    return Axis(low / room, high * room, ticks, is_log=True)


def number_text(value: float, digits: int = 4) -> str:
    """`value` for a tick or a table, with at most `digits` digits: "1.5M", "0.02", "-3"."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e18:
        return f"{value:.{digits - 1}g}"
    for power, suffix in _SUFFIXES:
        if size >= power * 0.99995:
            return f"{value / power:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def measured_text(mean: float, error: float | None) -> str:
    """A mean with its error, to two digits of the error: "28.61 ± 0.12"; four digits without an error beyond rounding.

    The text contains no place where a line may break.
    """
    if error is None or error <= 1e-9 * abs(mean):
        return number_text(mean)
    decimals = 1 - math.floor(math.log10(error))
    if decimals < 0 or decimals > 6:
        return f"{number_text(mean)}{_PLUS_MINUS}{error:.2g}"
    return f"{mean:,.{decimals}f}{_PLUS_MINUS}{error:.{decimals}f}"
