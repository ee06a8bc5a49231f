"""Charts of curves, and of quality against cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from cascaded_dllm.report.arms import Arm, Quality
from cascaded_dllm.report.axes import axis_of, number_text
from cascaded_dllm.report.chart_parts import (
    BOTTOM,
    HEIGHT,
    TOP,
    Frame,
    Style,
    error_bars,
    figure,
    key,
    line,
    marker,
    spread,
    stage_dash,
    svg,
)
from cascaded_dllm.report.curves import Curve
from cascaded_dllm.report.statistics import Estimate
from cascaded_dllm.report.tables import estimate_text

_DRAWN_POINTS = 200
_LABEL = 12.0
"""Width and height of a label, in pixels."""


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_DRAWN_POINTS` of `points`, evenly chosen, both ends among them."""
    if len(points) <= _DRAWN_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(place * last / (_DRAWN_POINTS - 1))] for place in range(_DRAWN_POINTS)]


def arm_curves(curves: Sequence[Curve], styles: Mapping[str, Style], truth: float | None, number: Iterator[str]) -> str:
    """The bounds of all arms in one chart, with a line for every seed, and a legend."""
    shown = [curve for curve in curves if curve.points]
    frame = _curve_frame(shown, [] if truth is None else [truth])
    parts = [frame.drawn("token-forwards of all stages", "nats a window")]
    parts += [_line(frame, curve, styles[curve.arm].colour, styles[curve.arm].dash) for curve in shown]
    if truth is not None:
        pixels = [(frame.left(x), frame.top(y)) for curve in shown for x, y in thinned(curve.points)]
        parts.append(frame.level(truth, "true surprisal", pixels))
    title = "Bound of all stages while they are trained"
    drawing = svg("".join(parts), title=title, description=_ends(shown), number=next(number))
    names = list(dict.fromkeys(curve.arm for curve in shown))
    legend = "".join(key(styles[name], name, has_line=True) for name in names)
    return figure(drawing, f"{title}; a line is one seed") + f'<p class="legend">{legend}</p>'


def stage_curves(
    arms: Sequence[Arm], curves: Sequence[Curve], styles: Mapping[str, Style], unit: str, number: Iterator[str]
) -> str:
    """A chart for every arm, all on the same axes, with a line for every stage and seed."""
    shown = [curve for curve in curves if curve.points]
    frame = _curve_frame(shown, [])
    figures = []
    for arm in arms:
        own = [curve for curve in shown if curve.arm == arm.name]
        if own:
            figures.append(_stage_chart(arm.name, own, frame, styles[arm.name].colour, unit, next(number)))
    return f'<div class="charts">{"".join(figures)}</div>'


def _stage_chart(name: str, curves: Sequence[Curve], frame: Frame, colour: str, unit: str, number: str) -> str:
    num_stages = max(curve.stage for curve in curves)
    parts = [frame.drawn("token-forwards of the stage", unit)]
    parts += [_line(frame, curve, colour, stage_dash(curve.stage, num_stages)) for curve in curves]
    first = {curve.stage: curve for curve in reversed(curves)}
    heights = [frame.top(curve.points[-1][1]) for curve in first.values()]
    caption = name
    if len(first) > 1:
        for (stage, curve), top in zip(first.items(), spread(heights, _LABEL, TOP, HEIGHT - BOTTOM), strict=True):
            left = frame.left(curve.points[-1][0]) + 4
            parts.append(f'<text class="end" x="{left:.1f}" y="{top + 4:.1f}">{stage}</text>')
        caption += "; a line ends with the number of its stage"
    if 0 in first and len(first) > 1:
        caption += ", 0 for a network that stages share"
    lost = sum(curve.num_not_finite for curve in curves)
    if lost:
        caption += f"; {lost} {'value was' if lost == 1 else 'values were'} not finite and not drawn"
    return figure(svg("".join(parts), title=name, description=_ends(curves), number=number), caption)


def _curve_frame(curves: Sequence[Curve], levels: Sequence[float]) -> Frame:
    places = [place for curve in curves for place, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points]
    return Frame(axis_of(places, may_be_log=True, num_ticks=4), axis_of([*values, *levels], may_be_log=True))


def _line(frame: Frame, curve: Curve, colour: str, dash: str) -> str:
    points = [(frame.left(x), frame.top(y)) for x, y in thinned(curve.points)]
    # A single point would be invisible, so it is drawn as a short line.
    points = points if len(points) > 1 else [(points[0][0] - 2, points[0][1]), (points[0][0] + 2, points[0][1])]
    return line(points, colour, dash, _curve_name(curve))


def _curve_name(curve: Curve) -> str:
    stage = f", stage {curve.stage}" if curve.stage else ""
    return f"{curve.arm}{stage}, seed {curve.seed}"


def _ends(curves: Sequence[Curve]) -> str:
    """Where the lines begin and end, in words."""
    return "; ".join(
        f"{_curve_name(curve)}: from {number_text(curve.points[0][1])} to {number_text(curve.points[-1][1])} after "
        f"{number_text(curve.points[-1][0])} token-forwards"
        for curve in curves
    )


def quality_chart(
    figure_name: str,
    arms: Sequence[Arm],
    styles: Mapping[str, Style],
    cost: tuple[str, Callable[[Quality], Estimate]],
    reference: float | None,
    number: Iterator[str],
) -> str:
    """A figure of the texts of every arm and way of drawing, against their cost."""
    cost_name, cost_of = cost
    ways = way_numbers(arms)
    points = [
        (arm.name, quality.name, cost_of(quality), found)
        for arm in arms
        for quality in arm.qualities
        if (found := quality.figures.get(figure_name)) is not None
    ]
    xs = [end for _, _, spent, _ in points for end in _range(spent, is_positive=True)]
    ys = [end for _, _, _, found in points for end in _range(found)]
    frame = Frame(
        axis_of(xs, may_be_log=True, num_ticks=4),
        axis_of([*ys, *([] if reference is None else [reference])], may_be_log=True),
    )
    parts = [frame.drawn(cost_name, figure_name)]
    if reference is not None:
        pixels = [(frame.left(spent.mean), frame.top(found.mean)) for _, _, spent, found in points]
        parts.append(frame.level(reference, "real text", pixels))
    for arm_name, way, spent, found in points:
        style, x, y = styles[arm_name], frame.left(spent.mean), frame.top(found.mean)
        title = f"{arm_name}, {way}: {estimate_text(found)} at {estimate_text(spent)} {cost_name}"
        parts.append(error_bars(frame, _range(spent, is_positive=True), _range(found), style.colour))
        parts.append(marker(x, y, style, title))
    places = [(frame.left(spent.mean), frame.top(found.mean), str(ways[way])) for _, way, spent, found in points]
    parts += [f'<text class="end" x="{x + 8:.1f}" y="{y + 4:.1f}">{text}</text>' for x, y, text in _apart(places)]
    description = "; ".join(
        f"{arm}, {way}: {estimate_text(found)} at {estimate_text(spent)}" for arm, way, spent, found in points
    )
    title = f"{figure_name} against {cost_name}"
    return figure(svg("".join(parts), title=title, description=description, number=next(number)), title)


def _apart(places: Sequence[tuple[float, float, str]]) -> Iterator[tuple[float, float, str]]:
    """Labels, moved up or down where they would overlap."""
    rest = sorted(places)
    while rest:
        near = [place for place in rest if place[0] - rest[0][0] < _LABEL]
        rest = rest[len(near) :]
        tops = spread([top for _, top, _ in near], _LABEL, TOP, HEIGHT - BOTTOM)
        yield from ((left, moved, text) for (left, _, text), moved in zip(near, tops, strict=True))


def way_numbers(arms: Sequence[Arm]) -> dict[str, int]:
    """The number that stands for each way of drawing in the charts."""
    names = dict.fromkeys(quality.name for arm in arms for quality in arm.qualities)
    return {name: place for place, name in enumerate(names, start=1)}


def _range(value: Estimate, *, is_positive: bool = False) -> tuple[float, float, float]:
    """A mean and the values one standard error below and above; with `is_positive`, the lower one stays positive."""
    error = value.standard_error or 0.0
    low = max(value.mean - error, value.mean / 100) if is_positive else value.mean - error
    return value.mean, low, value.mean + error
