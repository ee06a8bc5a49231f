"""The report as one self-contained HTML page: no script, no font, no picture, no connection."""

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources

from cascaded_dllm.pages import escaped
from cascaded_dllm.report.arms import Quality
from cascaded_dllm.report.axes import number_text
from cascaded_dllm.report.bars import bound_bars
from cascaded_dllm.report.chart_parts import DARK_COLOURS, LIGHT_COLOURS, Style, key, numbers, style_of
from cascaded_dllm.report.charts import arm_curves, quality_chart, stage_curves, way_numbers
from cascaded_dllm.report.comparison import listed
from cascaded_dllm.report.content import ReportContent
from cascaded_dllm.report.statistics import Estimate
from cascaded_dllm.report.tables import (
    NONE,
    bounds_table,
    comparisons_table,
    costs_table,
    definitions_list,
    draws_table,
    facts_list,
    figure_names,
    figures_tables,
    stages_table,
    table,
)
from cascaded_dllm.report.texts import by_day_and_night, number_of_stages, stage_styles, texts_section

_TEMPLATE = "page.html"
# Figures that are drawn first if they were measured; the charts of the others are folded below.
_FIRST_FIGURES = ("generative_ppl_corpus", "accepted_share", "mauve", "token_entropy_nats_mean")
_COUNTS = ("num_", "tokens_per_text")
"""Prefixes of figures that only count, and say nothing about quality."""


def page(content: ReportContent) -> str:
    """The HTML of the report; everything that comes from the study is escaped."""
    template = string.Template(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    results = content.results
    number = numbers()
    styles = {arm.name: style_of(place) for place, arm in enumerate(content.arms)}
    return template.substitute(
        title=escaped(results.name),
        styles=_styles(content),
        facts=facts_list(_facts(content)),
        verdict=escaped(content.ranking.sentence),
        notes="\n".join(f"<li>{escaped(note)}</li>" for note in content.notes),
        arms=definitions_list({arm.name: arm.description for arm in content.arms}),
        bounds=_bounds(content, styles, number),
        unfinished=_unfinished(content),
        costs=costs_table(content.arms),
        curves=_curves(content, styles, number),
        quality=_quality(content, styles, number),
        texts=texts_section(content.arms),
        definitions=definitions_list(results.definitions),
        repeat=_repeat(content),
    )


def _styles(content: ReportContent) -> str:
    runs = [run for arm in content.arms for run in arm.runs]
    in_bounds = [stage.stage for arm in content.arms if arm.bound is not None for stage in arm.bound.stages]
    num_stages = max([len(content.results.lengths), *in_bounds, *(number_of_stages(run) for run in runs)])

    def colours(values: Sequence[str]) -> str:
        return "\n".join(f".c{place} {{ --own: {value}; }}" for place, value in enumerate(values))

    return f"{by_day_and_night(colours(LIGHT_COLOURS), colours(DARK_COLOURS))}\n{stage_styles(num_stages)}"


def _facts(content: ReportContent) -> Iterator[tuple[str, str]]:
    """The facts at the top of the page."""
    results = content.results
    yield "arms", f"{len(content.arms):,}"
    yield "seeds", f"{len({run.seed for run in results.arms}):,}"
    for unit, amount in results.budget.items():
        yield "budget of an arm", f"{number_text(amount)} {unit.replace('_', '-')}"
    yield "stage lengths", ", ".join(str(length) for length in results.lengths)
    yield "corpus", _plain(results.data.get("path", NONE))
    if results.truth_nats is not None:
        yield "true surprisal of the windows", f"{number_text(results.truth_nats)} nats a window"
    yield "device", results.device


def _bounds(content: ReportContent, styles: Mapping[str, Style], number: Iterator[str]) -> str:
    if not content.ranking.names:
        return "<p>No arm has a bound.</p>"
    joint = _joint(content, styles, number) if any(curve.points for curve in content.joint) else ""
    parts = [
        f'<div class="charts">{bound_bars(content.arms, content.results.truth_nats, number)}{joint}</div>',
        bounds_table(content.arms),
    ]
    if content.ranking.against_best:
        caption = (
            "Differences between arms with the same seed on the same windows, ± standard error: that over windows, and "
            "with several seeds that over seeds too."
        )
        parts.append(comparisons_table(caption, content.ranking.against_best))
    if content.ranking.other_pairs:
        others = comparisons_table("Differences between the other arms.", content.ranking.other_pairs)
        parts.append(_folded("All other pairs", others))
    parts.append(_folded("The bound by stages", stages_table(content.arms)))
    return "\n".join(parts)


def _joint(content: ReportContent, styles: Mapping[str, Style], number: Iterator[str]) -> str:
    shared = [arm.name for arm in content.arms if any(run.shares_network for run in arm.runs)]
    apart = f" {escaped(listed(shared))}: no line, since stages share a network." if shared else ""
    chart = arm_curves(content.joint, styles, content.results.truth_nats, number)
    return (
        f'<div>{chart}<p class="faint">Stages are trained apart. A point is the sum over stages of bounds and of '
        f"token-forwards, each at the same share of its own training.{apart}</p></div>"
    )


def _unfinished(content: ReportContent) -> str:
    """The seeds that are not done, with the reason."""
    rows = [[arm.name, str(run.seed), run.status, run.reason or NONE] for arm in content.arms for run in arm.problems]
    if not rows:
        return "<p>Every arm is done with every seed.</p>"
    return table("Not part of any mean.", ("arm", "seed", "status", "reason"), rows)


def _curves(content: ReportContent, styles: Mapping[str, Style], number: Iterator[str]) -> str:
    parts = []
    for title, curves, unit in (
        ("Bound by stages", content.bounds, "nats a window"),
        ("Loss by stages", content.losses, "nats a token"),
    ):
        if any(curve.points for curve in curves):
            parts.append(f"<h3>{title}</h3>\n{stage_curves(content.arms, curves, styles, unit, number)}")
    return "\n".join(parts) or "<p>No curve was kept.</p>"


def _quality(content: ReportContent, styles: Mapping[str, Style], number: Iterator[str]) -> str:
    """Charts of the most important figures, tables of all figures, and the other charts, folded."""
    arms, reference = content.arms, content.results.reference
    if not any(arm.qualities for arm in arms):
        return "<p>No text was drawn.</p>"
    measured = [
        name
        for name in figure_names(arms, reference)
        if not name.startswith(_COUNTS) and any(quality.figures.get(name) for arm in arms for quality in arm.qualities)
    ]
    first = [name for name in _FIRST_FIGURES if name in measured] or measured[:2]
    others = [name for name in measured if name not in first]
    ways = "; ".join(f"{place} {name}" for name, place in way_numbers(arms).items())
    legend = "".join(key(styles[arm.name], arm.name) for arm in arms if arm.qualities)

    def charts(names: Sequence[str]) -> str:
        drawn = "".join(
            quality_chart(name, arms, styles, cost, reference.get(name), number) for name in names for cost in _COSTS
        )
        return f'<div class="charts">{drawn}</div>'

    parts = [f'<p class="legend">{legend}</p>\n<p>Drawn with: {escaped(ways)}</p>', charts(first)]
    parts += [draws_table(arms), figures_tables(arms, reference, content.results.reference_errors)]
    if others:
        parts.append(_folded("Charts of the other figures", charts(others)))
    return "\n".join(parts)


_COSTS: tuple[tuple[str, Callable[[Quality], Estimate]], ...] = (
    ("network calls", lambda quality: quality.nfe),
    ("seconds a text", lambda quality: quality.seconds),
)


def _repeat(content: ReportContent) -> str:
    """The command that repeats the study, with everything that it depends on."""
    results = content.results
    data = [(name, _plain(value)) for name, value in results.data.items()]
    settings = {arm.name: dict(arm.runs[0].settings) for arm in content.arms}
    folders = [
        [arm.name, str(run.seed), str(stage.stage), stage.folder, f"{stage.num_steps:,}"]
        for arm in content.arms
        for run in arm.runs
        for stage in run.runs
    ]
    return "\n".join(
        [
            f"<pre>{escaped(results.command)}</pre>",
            facts_list([*results.versions.items(), ("device", results.device), *data]),
            _folded("The study with everything filled in", f"<pre>{escaped(_json(results.study))}</pre>"),
            _folded("Settings of every arm", f"<pre>{escaped(_json(settings))}</pre>"),
            _folded("Run folders", table("Folders of the runs.", ("arm", "seed", "stage", "folder", "steps"), folders)),
        ]
    )


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _plain(value: object) -> str:
    """A value of `Results.data`: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _folded(title: str, inside: str) -> str:
    """Folded content, which is open on paper."""
    return f"<details>\n<summary>{escaped(title)}</summary>\n{inside}\n</details>"
