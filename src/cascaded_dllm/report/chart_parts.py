"""Parts of charts in SVG: frames with axes, lines and markers; every arm has its own colour, dash and marker."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cascaded_dllm.pages import escaped
from cascaded_dllm.report.axes import Axis

# Hues that colour-blind readers can also tell apart, for light and for dark pages; each stands out from its page.
LIGHT_COLOURS = ("#0060a8", "#b84600", "#007a55", "#a03d85", "#7d6200", "#4b5563", "#5546c8")
DARK_COLOURS = ("#5ab4f0", "#ff9352", "#3cd6a0", "#f09acb", "#ecc63c", "#c5cdd6", "#b4a8ff")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
_NUM_MARKERS = 6

WIDTH, HEIGHT = 420.0, 290.0
_LEFT, _RIGHT, TOP, BOTTOM = 50.0, 24.0, 26.0, 44.0
_LETTER = 6.2
"""Approximate width of a letter in a chart, in pixels."""


class Style(NamedTuple):
    """How a line or a point looks: a colour class of the style sheet, a dash pattern and the number of a marker."""

    colour: str
    dash: str
    marker: int


def style_of(place: int) -> Style:
    """The style of the arm at `place`, counted from 0; the first 210 styles differ."""
    return Style(f"c{place % len(LIGHT_COLOURS)}", _DASHES[place % len(_DASHES)], place % _NUM_MARKERS)


def stage_dash(stage: int, num_stages: int) -> str:
    """The dash of a stage's line; the line of the last stage is solid."""
    return _DASHES[(num_stages - stage) % len(_DASHES)]


@dataclass(frozen=True, slots=True)
class Frame:
    """The area of a chart between its axes; turns values into pixels."""

    x: Axis
    y: Axis

    def left(self, value: float) -> float:
        """Pixels from the left edge."""
        return _LEFT + self.x.share(value) * (WIDTH - _LEFT - _RIGHT)

    def top(self, value: float) -> float:
        """Pixels from the upper edge."""
        return HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_name: str, y_name: str) -> str:
        """Grid, ticks and the names of both axes."""
        right, floor = WIDTH - _RIGHT, HEIGHT - BOTTOM
        parts = [f'<text class="name" x="4" y="13">{escaped(y_name)}</text>']
        for tick, label in self.y.labelled():
            at = self.top(tick)
            parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
            parts.append(_label(_LEFT - 5, at + 4, label, "end"))
        for tick, label in self.x.labelled():
            at = self.left(tick)
            parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{floor}"/>')
            parts.append(_label(at, floor + 15, label, "middle"))
        parts.append(f'<path class="axis" d="M{_LEFT} {TOP}V{floor}H{right}"/>')
        below = escaped(f"{x_name}, logarithmic" if self.x.is_log else x_name)
        parts.append(f'<text class="name" x="{right}" y="{HEIGHT - 6}" text-anchor="end">{below}</text>')
        return "".join(parts)

    def level(self, value: float, name: str, points: Iterable[tuple[float, float]]) -> str:
        """A dashed horizontal line with its name, placed where `points`, in pixels, leave the most room."""
        at, width = self.top(value), _LETTER * len(name)
        places = [
            (x, y, anchor)
            for x, anchor in ((WIDTH - _RIGHT - 2, "end"), (_LEFT + 4, "start"))
            for y in (at - 4, at + 12)
            if TOP < y < HEIGHT - BOTTOM
        ]
        crowd = list(points)

        def room(place: tuple[float, float, str]) -> float:
            """Distance of the nearest point from the name."""
            x, y, anchor = place
            middle = x - width / 2 if anchor == "end" else x + width / 2
            near = (max(abs(left - middle) - width / 2, 0) + abs(top - y + 4) for left, top in crowd)
            return min(near, default=0.0)

        x, y, anchor = max(places, key=room)
        return (
            f'<path class="level" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>'
            f'<text class="note" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{escaped(name)}</text>'
        )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def line(points: Iterable[tuple[float, float]], colour: str, dash: str, title: str) -> str:
    """A line through `points`, in pixels; `title` is its tooltip."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    pattern = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="line {colour}" d="M{path}"{pattern}><title>{escaped(title)}</title></path>'


def marker(x: float, y: float, style: Style, title: str) -> str:
    """A point at pixels, in the style of its arm; `title` is its tooltip."""
    shape = (
        f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8Z",
        f"M{x:.1f} {y - 5:.1f}l5 9h-10Z",
        f"M{x:.1f} {y - 5.5:.1f}l5 5.5l-5 5.5l-5 -5.5Z",
        f"M{x:.1f} {y + 5:.1f}l5 -9h-10Z",
        f"M{x - 1.5:.1f} {y - 5:.1f}h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5Z",
    )[style.marker]
    return f'<path class="point {style.colour}" d="{shape}"><title>{escaped(title)}</title></path>'


def error_bars(frame: Frame, x: tuple[float, float, float], y: tuple[float, float, float], colour: str) -> str:
    """Error bars of a point in both directions; `x` and `y` are (value, low, high)."""
    (at_x, left, right), (at_y, low, high) = x, y
    parts = []
    if right > left:
        parts.append(f"M{frame.left(left):.1f} {frame.top(at_y):.1f}H{frame.left(right):.1f}")
    if high > low:
        parts.append(f"M{frame.left(at_x):.1f} {frame.top(low):.1f}V{frame.top(high):.1f}")
    return f'<path class="error {colour}" d="{"".join(parts)}"/>' if parts else ""


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`places` moved apart until neighbours are at least `gap` apart, in the same order, from `low` to `high`.

    A crowd moves to both sides equally: half-way between pushing all of it down and pushing all of it up. Without room
    for all of them, they are closer than `gap`, at equal distances.
    """
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    order = sorted(range(len(places)), key=lambda index: places[index])
    ordered = [places[index] for index in order]
    halves = zip(_pushed(ordered, gap, low), _pushed_back(ordered, gap, high), strict=True)
    inside = _pushed_back(_pushed([(one + other) / 2 for one, other in halves], gap, low), gap, high)
    moved = dict(zip(order, inside, strict=True))
    return [moved[index] for index in range(len(places))]


def _pushed(ordered: Sequence[float], gap: float, low: float) -> list[float]:
    """Each place moved up as far as those before it need."""
    moved: list[float] = []
    for place in ordered:
        moved.append(max(place, moved[-1] + gap if moved else low))
    return moved


def _pushed_back(ordered: Sequence[float], gap: float, high: float) -> list[float]:
    """Each place moved down as far as those after it need."""
    return [-place for place in reversed(_pushed([-place for place in reversed(ordered)], gap, -high))]


def clipped(text: str, width: float) -> str:
    """`text`, shortened to a width of about `width` pixels at most."""
    room = max(int(width / _LETTER), 1)
    return text if len(text) <= room else f"{text[: room - 1]}…"


def svg(parts: str, *, title: str, description: str, number: str, height: float = HEIGHT) -> str:
    """A chart with a title and a description for screen readers; `number` is unique on its page."""
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escaped(title)}</title><desc id="d{number}">{escaped(description)}</desc>{parts}</svg>'
    )


def figure(drawing: str, caption: str) -> str:
    """A drawing with its caption."""
    return f"<figure>\n<figcaption>{escaped(caption)}</figcaption>\n{drawing}\n</figure>"


def key(style: Style, name: str, *, has_line: bool = False) -> str:
    """An entry of a legend."""
    sample = line([(1.0, 7.0), (33.0, 7.0)], style.colour, style.dash, name) if has_line else ""
    point = "" if has_line else marker(17.0, 7.0, style, name)
    return (
        f'<span class="entry"><svg class="swatch" viewBox="0 0 34 14" aria-hidden="true">{sample}{point}</svg>'
        f"{escaped(name)}</span>"
    )


def numbers() -> Iterator[str]:
    """1, 2, 3, ... for the names of charts on one page."""
    return map(str, itertools.count(1))
