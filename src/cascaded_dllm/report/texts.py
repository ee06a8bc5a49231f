"""Samples side by side: the texts of every arm, stage by stage, each piece in the colour of the stage that wrote it."""

from collections.abc import Sequence

from cascaded_dllm.pages import escaped, stage_colours
from cascaded_dllm.report.arms import Arm
from cascaded_dllm.report.results import ArmRun, StageText

SHOWN_TEXTS = 4
"""Number of texts of every arm that are shown."""


def texts_section(arms: Sequence[Arm]) -> str:
    """The first texts of every arm, with text i of all arms side by side."""
    shown = [(arm.name, run) for arm in arms if (run := _run_with_texts(arm)) is not None]
    if not shown:
        return "<p>No text was kept.</p>"
    count = min(max(len(run.texts) for _, run in shown), SHOWN_TEXTS)
    groups = []
    for place in range(count):
        cards = "\n".join(_card(name, run, place) for name, run in shown if place < len(run.texts))
        groups.append(f"<h3>Text {place + 1}</h3>\n" + f'<div class="samples">\n{cards}\n</div>')
    missing = [arm.name for arm in arms if _run_with_texts(arm) is None]
    without = f'<p class="faint">No text was kept of {escaped(", ".join(missing))}.</p>' if missing else ""
    kept = max(len(run.texts) for _, run in shown)
    rest = f'<p class="faint">The first {count} of {kept} texts.</p>' if kept > count else ""
    return "\n".join([_legend(shown), *groups, rest, without])


def _run_with_texts(arm: Arm) -> ArmRun | None:
    """The first seed that has texts."""
    return next((run for run in arm.runs if run.texts), None)


def _legend(shown: Sequence[tuple[str, ArmRun]]) -> str:
    last = max(number_of_stages(run) for _, run in shown)
    keys = [f'<span class="key s{stage}">stage {stage}</span>' for stage in range(1, last)]
    keys.append('<span class="key">last stage</span>')
    return f"<p>A piece has the colour of the stage that wrote it: {' '.join(keys)}</p>"


def number_of_stages(run: ArmRun) -> int:
    """The highest number of a stage in the texts of a run, at least 1."""
    named = [stage.stage for text in run.texts for stage in text]
    wrote = [piece.stage for text in run.texts for stage in text for piece in stage.pieces]
    return max([1, *named, *wrote])


def _card(name: str, run: ArmRun, place: int) -> str:
    """One text of one arm, with the last stage first and the earlier stages below it."""
    num_stages = number_of_stages(run)
    stages = sorted(run.texts[place], key=lambda stage: stage.stage, reverse=True)
    rows = "\n".join(
        f'<dt>stage {stage.stage}</dt><dd class="text" dir="auto" data-stage="{stage.stage}">'
        f"{_pieces(stage, num_stages)}</dd>"
        for stage in stages
    )
    body = f"<dl>\n{rows}\n</dl>" if rows else '<p class="faint">empty</p>'
    return f"<article>\n<h4>{escaped(name)} <small>seed {run.seed}</small></h4>\n{body}\n</article>"


def _pieces(stage: StageText, num_stages: int) -> str:
    """The pieces of a text in their colours; a text without pieces has no colour."""
    if not stage.pieces:
        return escaped(stage.text)
    return "".join(
        f'<span class="{f"token s{piece.stage}" if piece.stage < num_stages else "token"}" '
        f'title="written by stage {piece.stage}">{escaped(piece.text)}</span>'
        for piece in stage.pieces
    )


def stage_styles(num_stages: int) -> str:
    """Style rules for all stages but the last, for backgrounds of texts and parts of bars, on light and dark pages."""

    def rules(*, is_dark: bool) -> str:
        numbered = enumerate(stage_colours(num_stages - 1, is_dark=is_dark), start=1)
        return "\n".join(
            f".s{stage} {{ background: #{bytes(back).hex()}; color: #{bytes(text).hex()}; }}\n"
            f".f{stage} {{ fill: #{bytes(back).hex()}; }} .w{stage} {{ fill: #{bytes(text).hex()}; }}"
            for stage, (back, text) in numbered
        )

    return by_day_and_night(rules(is_dark=False), rules(is_dark=True))


def by_day_and_night(light: str, dark: str) -> str:
    """Style rules for light pages and paper, followed by those for dark screens."""
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"
