"""The bound of every arm as a bar, divided by stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cascaded_dllm.pages import escaped
from cascaded_dllm.report.arms import Arm, ArmBound, StageEstimate
from cascaded_dllm.report.axes import Axis, axis_of, measured_text, number_text
from cascaded_dllm.report.chart_parts import WIDTH, clipped, figure, svg

_ROW, _BAR, _ABOVE, _SIDE = 46.0, 22.0, 18.0, 8.0
_READABLE = 14
"""Width in pixels that a part of a bar needs to show its number."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The area of a bar chart, with one row for each bar.

    Attributes:
        axis: axis of nats a window.
        count: number of bars.
        chart: number of the chart, which is part of the id of its hatching.
    """

    axis: Axis
    count: int
    chart: str

    @property
    def floor(self) -> float:
        return _ABOVE + _ROW * self.count

    def left(self, nats: float) -> float:
        """Pixels from the left edge."""
        return _SIDE + self.axis.share(nats) * (WIDTH - 2 * _SIDE)

    def drawn(self) -> str:
        """The grid, the tick labels and the name of the axis."""
        parts = [
            f'<defs><pattern id="h{self.chart}" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>'
        ]
        for tick, label in self.axis.labelled():
            at, below = self.left(tick), self.floor + 15
            anchor = "start" if at < _SIDE + 1 else "end" if at > WIDTH - _SIDE - 1 else "middle"
            parts.append(f'<path class="grid" d="M{at:.1f} {_ABOVE - 4}V{self.floor}"/>')
            parts.append(f'<text class="tick" x="{at:.1f}" y="{below}" text-anchor="{anchor}">{label}</text>')
        name = f'<text class="name" x="{WIDTH - _SIDE}" y="{self.floor + 32}" text-anchor="end">nats a window</text>'
        return "".join([*parts, name])

    def level(self, nats: float, name: str) -> str:
        """A vertical line with its name."""
        at = self.left(nats)
        gap, anchor = (-4, "end") if at > WIDTH / 2 else (4, "start")
        return (
            f'<path class="level" d="M{at:.1f} 4V{self.floor}"/>'
            f'<text class="note" x="{at + gap:.1f}" y="11" text-anchor="{anchor}">{escaped(name)}</text>'
        )

    def rectangle(self, fill: str, begin: float, nats: float, top: float, title: str) -> str:
        """A part of a bar; a negative one has no width."""
        width = max(self.left(begin + nats) - self.left(begin), 0.0)
        return (
            f'<rect {fill} x="{self.left(begin):.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BAR}">'
            f"<title>{escaped(title)}</title></rect>"
        )


def bound_bars(arms: Sequence[Arm], truth: float | None, number: Iterator[str]) -> str:
    """A bar for every arm that has a bound, divided by stages, with the cost of layouts hatched."""
    bounded = [(arm.name, arm.bound) for arm in arms if arm.bound is not None]
    means = [(bound.nats.mean, bound.standard_error or 0.0) for _, bound in bounded]
    ends = [end for mean, error in means for end in (mean - error, mean + error)]
    levels = [] if truth is None else [truth]
    rows = _Rows(axis_of([*ends, *levels], from_zero=True), len(bounded), next(number))
    parts = [rows.drawn()]
    parts += [_bar(rows, name, bound, _ABOVE + row * _ROW) for row, (name, bound) in enumerate(bounded)]
    parts += [rows.level(level, "true surprisal") for level in levels]
    title = "Bound of every arm, by stages"
    told = "; ".join(f"{name}: {measured_text(b.nats.mean, b.standard_error)} nats a window" for name, b in bounded)
    drawing = svg("".join(parts), title=title, description=told, number=rows.chart, height=rows.floor + 38)
    has_layout = any(stage.layout is not None for _, bound in bounded for stage in bound.stages)
    hatched = "; hatched is what the layout costs" if has_layout else ""
    return figure(drawing, f"{title}: parts have the number of their stage, the line is ± one standard error{hatched}")


def _bar(rows: _Rows, name: str, bound: ArmBound, top: float) -> str:
    """The bar of one arm, with its name and its bound above."""
    text = measured_text(bound.nats.mean, bound.standard_error)
    room = WIDTH - 3 * _SIDE - 6.5 * len(text)
    parts = [
        f'<text class="row" x="{_SIDE}" y="{top + 11:.1f}">{escaped(clipped(name, room))}'
        f"<title>{escaped(name)}</title></text>",
        f'<text class="row amount" x="{WIDTH - _SIDE}" y="{top + 11:.1f}" text-anchor="end">{text}</text>',
    ]
    begin = 0.0
    for stage in bound.stages:
        parts.append(_part(rows, f"{name}, stage {stage.stage}", stage, begin, stage is bound.stages[-1], top + 16))
        begin += stage.nats.mean
    if error := bound.standard_error:
        low, high = rows.left(bound.nats.mean - error), rows.left(bound.nats.mean + error)
        middle = top + 16 + _BAR / 2
        parts.append(f'<path class="error" d="M{low:.1f} {middle - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"/>')
    return "".join(parts)


def _part(rows: _Rows, name: str, stage: StageEstimate, begin: float, is_last: bool, top: float) -> str:
    """The part of one stage, with the cost of its layout hatched."""
    number, nats = "last" if is_last else str(stage.stage), stage.nats.mean
    parts = [rows.rectangle(f'class="f{number}"', begin, nats, top, f"{name}: {number_text(nats)} nats a window")]
    if stage.layout is not None:
        cost = stage.layout.mean
        title = f"{name}, layout: {number_text(cost)} nats a window"
        parts.append(rows.rectangle(f'fill="url(#h{rows.chart})"', begin, cost, top, title))
    low, high = rows.left(begin), rows.left(begin + nats)
    if high - low > _READABLE:
        parts.append(
            f'<text class="w{number}" x="{(low + high) / 2:.1f}" y="{top + 15:.1f}" text-anchor="middle">'
            f"{stage.stage}</text>"
        )
    return "".join(parts)
