"""The tables of a report."""

from collections.abc import Iterable, Mapping, Sequence

from cascaded_dllm.pages import escaped
from cascaded_dllm.report.arms import Arm
from cascaded_dllm.report.axes import measured_text, number_text
from cascaded_dllm.report.comparison import Comparison
from cascaded_dllm.report.statistics import Estimate, TextEstimate

NONE = "-"
"""Stands for a missing value."""

_TABLE_FIGURES = 4
_VERDICTS = {
    "lower": "lower",
    "higher": "higher",
    "not seen": "no difference that is seen",
    "not known": "not known",
}


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways if it has no room; the first cell of a row is its header."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    body = "\n".join(
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{escaped(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # The tabindex lets a keyboard scroll the table. The caption stands outside, so that it does not scroll away.
    return (
        f'<p class="caption">{escaped(caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def bounds_table(arms: Sequence[Arm]) -> str:
    """The bound of every arm with both of its errors."""
    caption = (
        "Upper bound on the negative log-likelihood, mean over seeds; lower is better. Errors are standard errors of "
        "the mean: over seeds, and over windows. Omitted at most is what a bound may leave out at the ends of time. "
        "Tokens are those of the window, ends of text that fill it included."
    )
    columns = (
        *("arm", "seeds", "nats a window", "over seeds", "over windows", "omitted at most", "nats a token"),
        *("perplexity", "windows"),
    )
    return table(caption, columns, [_bound_row(arm) for arm in arms])


def _bound_row(arm: Arm) -> list[str]:
    seeds = f"{len(arm.runs) - len(arm.problems)} of {len(arm.runs)}"
    bound = arm.bound
    if bound is None:
        return [arm.name, seeds, *[NONE] * 7]
    return [
        arm.name,
        seeds,
        measured_text(bound.nats.mean, bound.standard_error),
        "one seed" if bound.nats.num_seeds == 1 else error_text(bound.nats.standard_error),
        error_text(bound.over_windows),
        number_text(bound.omitted_nats),
        estimate_text(bound.nats_per_token),
        estimate_text(bound.ppl),
        f"{bound.num_windows:,}",
    ]


def stages_table(arms: Sequence[Arm]) -> str:
    """The bound of every arm, by stages."""
    rows = [
        [
            arm.name,
            str(stage.stage),
            estimate_text(stage.nats),
            error_text(stage.over_windows),
            estimate_text(stage.layout),
            estimate_text(stage.unigram),
        ]
        for arm in arms
        if arm.bound is not None
        for stage in arm.bound.stages
    ]
    caption = (
        "The bound by stages, nats a window, ± standard error over seeds. Unigram is what the best model without any "
        "context pays for the tokens that the stage writes into these windows."
    )
    return table(caption, ("arm", "stage", "bound", "over windows", "of it layout", "unigram"), rows)


def comparisons_table(caption: str, pairs: Sequence[Comparison]) -> str:
    """Differences between pairs of arms, and their verdicts."""
    columns = ("arm", "minus", "nats a window", "in standard errors", "seeds", "over windows", "verdict")
    return table(caption, columns, [_comparison_row(pair) for pair in pairs])


def _comparison_row(pair: Comparison) -> list[str]:
    nats, error = pair.nats, pair.standard_error
    if nats is None:
        return [pair.arm, pair.other, NONE, NONE, "none in common", NONE, _VERDICTS[pair.verdict]]
    return [
        pair.arm,
        pair.other,
        measured_text(nats.mean, error),
        f"{nats.mean / error:.1f}" if error else NONE,
        str(nats.num_seeds),
        f"{error_text(pair.over_windows)}, {'paired' if pair.is_paired else 'not paired'}",
        _VERDICTS[pair.verdict],
    ]


def costs_table(arms: Sequence[Arm]) -> str:
    """The cost of training."""
    rows = []
    for arm in arms:
        cost = arm.cost
        if cost is None:
            rows.append([arm.name, *[NONE] * 5])
            continue
        counts = (cost.parameters, cost.num_steps, cost.token_forwards, cost.flops, cost.seconds)
        rows.append([arm.name, *(NONE if count is None else number_text(count) for count in counts)])
    columns = ("arm", "parameters", "steps", "token-forwards", "FLOPs", "seconds")
    return table("Training of all stages together, mean over seeds that are done.", columns, rows)


def draws_table(arms: Sequence[Arm]) -> str:
    """The cost of drawing texts."""
    rows = [
        [arm.name, quality.name, f"{quality.num_samples:,}", *map(estimate_text, costs)]
        for arm in arms
        for quality in arm.qualities
        for costs in [(quality.nfe, quality.token_forwards, quality.seconds)]
    ]
    columns = ("arm", "drawn with", "texts of all seeds", "network calls", "token-forwards a text", "seconds a text")
    caption = (
        "What texts cost, mean over seeds ± standard error over seeds. Network calls leave out those of layout "
        "networks, which draw the places of placed stages; token-forwards and seconds include them."
    )
    return table(caption, columns, rows)


def figures_tables(
    arms: Sequence[Arm], reference: Mapping[str, float | None], errors: Mapping[str, float | None]
) -> str:
    """Tables with a few figures each, of real text and of every way of drawing.

    Args:
        arms: arms of the study.
        reference: figures of real text.
        errors: standard errors of these over texts.
    """
    names = figure_names(arms, reference)
    parts = [names[begin : begin + _TABLE_FIGURES] for begin in range(0, len(names), _TABLE_FIGURES)]
    captions = [f"Figures of texts, part {place} of {len(parts)}" for place in range(1, len(parts) + 1)]
    return "\n".join(
        _figures_table(caption, arms, reference, errors, part) for caption, part in zip(captions, parts, strict=True)
    )


def _figures_table(
    caption: str,
    arms: Sequence[Arm],
    reference: Mapping[str, float | None],
    errors: Mapping[str, float | None],
    names: Sequence[str],
) -> str:
    rows = [
        [arm.name, quality.name, *(estimate_text(quality.figures.get(name)) for name in names)]
        for arm in arms
        for quality in arm.qualities
    ]
    if any(reference.get(name) is not None for name in names):
        values = [(reference.get(name), errors.get(name)) for name in names]
        cells = (NONE if value is None else measured_text(value, error) for value, error in values)
        rows.insert(0, ["real text", NONE, *cells])
    found = [quality.figures.get(name) for arm in arms for quality in arm.qualities for name in names]
    note = _errors_note([value for value in found if value is not None])
    return table(f"{caption}{note}.", ("arm", "drawn with", *names), rows)


def _errors_note(found: Sequence[TextEstimate]) -> str:
    """The end of a caption, which says what the errors in the table include."""
    texts = [value for value in found if value.over_texts is not None]
    kinds = {
        "over texts and seeds": any(value.num_seeds > 1 for value in texts),
        "over texts alone where there is one seed": any(value.num_seeds == 1 for value in texts),
        "over seeds alone where none is known over texts": any(
            value.over_texts is None and value.over_seeds is not None for value in found
        ),
    }
    told = "; ".join(text for text, is_there in kinds.items() if is_there)
    return f", mean over seeds ± standard error {told}" if told else ", mean over seeds"


def figure_names(arms: Sequence[Arm], reference: Mapping[str, float | None]) -> list[str]:
    """The names of all figures, in the order of their first appearance."""
    drawn = [name for arm in arms for quality in arm.qualities for name in quality.figures]
    return list(dict.fromkeys([*drawn, *reference]))


def estimate_text(value: Estimate | None) -> str:
    """A mean with its standard error, if it has one."""
    return NONE if value is None else measured_text(value.mean, value.standard_error)


def error_text(error: float | None) -> str:
    """An error alone."""
    return NONE if error is None else f"±\N{NO-BREAK SPACE}{error:.2g}"


def definitions_list(definitions: Mapping[str, str]) -> str:
    """Names with their explanations, as a list."""
    entries = "\n".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in definitions.items())
    return f"<dl>\n{entries}\n</dl>"


def facts_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names with short values, side by side."""
    entries = "\n".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">\n{entries}\n</dl>'
