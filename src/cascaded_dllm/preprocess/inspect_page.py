"""An inspection as one self-contained HTML page: no script, font, picture or connection."""

import string
from collections.abc import Iterable, Sequence
from importlib import resources

from cascaded_dllm.pages import escaped, stage_styles
from cascaded_dllm.preprocess.inspect import InspectedWindow, Inspection, Span
from cascaded_dllm.preprocess.inspect_facts import Loss, facts, looked_at, losses, stage_names, without_stages
from cascaded_dllm.preprocess.inspect_statistics import Statistics, importance_name

_TEMPLATE = "inspect_page.html"


def page(inspection: Inspection) -> str:
    """The HTML page. All text is escaped; the text of a window is that of its tokens, character by character."""
    template = string.Template(resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    settings = inspection.settings
    return template.substitute(
        title=escaped(f"{settings.dataset}, {settings.split}"),
        subtitle=escaped(str(inspection.folder)),
        colours=stage_styles(inspection.spec.num_stages - 1),
        facts="\n".join(
            f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts(inspection)
        ),
        choice=escaped(inspection.choice),
        legend=_legend(stage_names(inspection.spec)),
        windows="\n".join(_article(window, inspection) for window in inspection.windows),
        importance=_importance(inspection.statistics, stage_names(inspection.spec), looked_at(inspection)),
        dropped=_losses(losses(inspection)),
    )


def _legend(names: Sequence[str]) -> str:
    keys = [
        f'<span class="key {_style(stage, len(names))}">{escaped(name)}</span>' for stage, name in enumerate(names, 1)
    ]
    return "A token has the colour of the first stage that keeps it: " + " ".join(keys)


def _style(stage: int, num_stages: int) -> str:
    """The CSS class of a stage; the last one is plain text."""
    return f"s{stage}" if stage < num_stages else "plain"


def _article(window: InspectedWindow, inspection: Inspection) -> str:
    """A window with the texts of its stages below."""
    spec, method = inspection.spec, inspection.settings.method
    names = ", ".join(window.documents)
    text = _tokens(window.spans, spec.num_stages, method)
    if window.stages:
        rows = zip(stage_names(spec), window.stages, strict=False)
        below = "\n".join(
            f'<dt>{escaped(name)}</dt><dd class="text" dir="auto" data-stage="{number}">'
            f"{_tokens(spans, spec.num_stages, method)}</dd>"
            for number, (name, spans) in enumerate(rows, start=1)
        )
        below = f'<dl class="stages">\n{below}\n</dl>'
    else:
        below = f'<p class="stages faint">{escaped(without_stages(window, spec))}</p>'
    return (
        f"<article>\n<h3>{escaped(window.title)} <small>{escaped(names)}</small></h3>\n"
        f'<p class="text" dir="auto" data-window="">{text}</p>\n{below}\n</article>'
    )


def _tokens(spans: Iterable[Span], num_stages: int, method: str) -> str:
    """Every span of a text in the colour of its stage, with its tokens as a tooltip."""
    return "".join(
        f'<span class="token {_style(span.stage, num_stages)}" title="{escaped(_note(span, method))}">'
        f"{escaped(span.text)}</span>"
        for span in spans
    )


def _note(span: Span, method: str) -> str:
    tokens = "; ".join(f"token {token}, {importance_name(method, value)}" for token, value in span.tokens)
    return f"{tokens}; from stage {span.stage}"


def _importance(statistics: Statistics, names: Sequence[str], windows: str) -> str:
    """The histogram of importance: one bar for each value, divided by stages."""
    largest = max((sum(row.counts) for row in statistics.bins), default=1)
    classes = [*(_style(stage, len(names)) for stage in range(1, len(names))), "last", "lost"]
    keys = [*names, "in dropped windows"]
    rows = [
        _bar_row(row.label, f"{sum(row.counts):,}", zip(classes, row.counts, strict=True), largest)
        for row in statistics.bins
    ]
    legend = " ".join(
        f'<span class="key"><span class="swatch {style}"></span>{escaped(name)}</span>'
        for style, name in zip(classes, keys, strict=True)
    )
    caption = f"Tokens of {windows} by importance, the strongest first."
    return f"<p>{legend}</p>\n{_table(caption, rows)}"


def _losses(found: Iterable[Loss]) -> str:
    """The table of what is dropped."""
    rows = [
        _bar_row(loss.reason, f"{loss.number:,} of {loss.total:,}", [("lost", loss.number)], max(loss.total, 1))
        for loss in found
    ]
    return _table("Bars are parts of the whole.", rows)


def _table(caption: str, rows: Iterable[str]) -> str:
    return f"<table>\n<caption>{escaped(caption)}</caption>\n" + "\n".join(rows) + "\n</table>"


def _bar_row(label: str, number: str, parts: Iterable[tuple[str, int]], whole: int) -> str:
    """A row of a table: a label, a number, and a bar of (CSS class, length) parts, in units of `whole`."""
    bar = "".join(f'<span class="{style}" style="width:{100 * part / whole:.2f}%"></span>' for style, part in parts)
    return (
        f'<tr><th scope="row">{escaped(label)}</th><td class="number">{escaped(number)}</td>'
        f'<td class="bars"><div class="bar" aria-hidden="true">{bar}</div></td></tr>'
    )
