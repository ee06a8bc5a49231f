"""`cdllm evaluate samples`: figures of written texts, beside those of real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from rich.text import Text

from cascaded_dllm.checks import one_of
from cascaded_dllm.cli.console import console, counted, progress_bar, reported_errors, say
from cascaded_dllm.cli.measured_sources import Written, read_reference, read_written
from cascaded_dllm.cli.options import AsJson, Debug, Device, Out, require_output_file, tell
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.evaluate.figures import Figure, described, values_of
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.evaluate.sample_figures import PRESETS, MeasuredTexts, Measures, sample_figures
from cascaded_dllm.evaluate.text_features import TextFeatures, encoder_features, judge_features
from cascaded_dllm.model.devices import choose_device
from cascaded_dllm.text.local import UNITS

_MAUVE_SCATTERS_BELOW = 1000
"""Texts on each side below which a note says that MAUVE scatters; docs/evaluation.md says how much."""


ERRORS = "+-: standard error over texts; see docs/evaluation.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of samples and reference, and what a reader needs to compare them.

    Attributes:
        source: where the samples come from.
        samples: figures of the samples.
        reference_source: where the real texts come from; None without a reference.
        reference: figures of the real texts; empty without a reference.
        settings: everything else that decides the figures, by name.
        notes: what a reader must know to compare the figures.
    """

    source: str
    samples: Sequence[Figure]
    reference_source: str | None
    reference: Sequence[Figure]
    settings: dict[str, Any]
    notes: Sequence[str]


def report_summary(report: Report) -> dict[str, Any]:
    """The report for programs: values and errors by name, reasons for missing values, and definitions."""
    figures = [*report.samples, *report.reference]
    return {
        "samples": {"source": report.source, **described(report.samples)},
        "reference": None
        if report.reference_source is None
        else {"source": report.reference_source, **described(report.reference)},
        **report.settings,
        "notes": list(report.notes),
        "definitions": {figure.name: figure.definition for figure in figures},
    }


def report_table(report: Report) -> Table:
    """The report as a table for people; "-" stands for a missing value."""
    columns = {"samples": report.samples}
    if report.reference_source is not None:
        columns["reference"] = report.reference
    table = Table(title=Text(f"figures of {report.source}"))
    table.add_column("figure", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    for name in dict.fromkeys(figure.name for figure in (*report.samples, *report.reference)):
        own = [next((figure for figure in figures if figure.name == name), None) for figures in columns.values()]
        table.add_row(name, *map(_shown, own))
    return table


def _shown(figure: Figure | None) -> str:
    """The value of a figure, with its error if it has one; both with about five digits, so that two columns fit."""
    if figure is None or figure.value is None:
        return "-"
    if "num_" in figure.name:
        return f"{figure.value:,.0f}"
    decimals = 4 if figure.value < 10 else 3 if figure.value < 100 else 2
    value = f"{figure.value:,.{decimals}f}"
    return value if figure.error is None else f"{value} +- {figure.error:,.{decimals}f}"


def missing_lines(report: Report) -> list[str]:
    """The names of figures without a value, one line for each reason."""
    lines: dict[str, list[str]] = {}
    for whose, figures in (("samples", report.samples), ("reference", report.reference)):
        for figure in figures:
            if figure.value is None:
                lines.setdefault(f"of the {whose}: {figure.reason}", []).append(figure.name)
    return [f"no {', '.join(names)} {reason}" for reason, names in lines.items()]


def samples(
    path: Annotated[
        Path,
        typer.Argument(help="A sampling run, or a file of texts: .txt (see --unit), or .jsonl with one text a line."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Real text to compare with: a folder that `cdllm preprocess` made, or a file of texts."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Causal language model for generative perplexity: a folder or a hub id."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Which perplexities to report: per-sequence (mean over texts), corpus (over all tokens) or both."
        ),
    ] = "both",
    mauve_features: Annotated[
        str | None,
        typer.Option(
            help="Model whose features MAUVE compares: judge, the name of a sentence-transformers model, or none.",
            show_default="judge, if there are a judge and a reference",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer to count tokens with, if the run does not say it: a file, a folder or a hub id."),
    ] = None,
    packing: Annotated[
        str | None,
        typer.Option(
            help="How windows of the reference are cut, stream or document, if the models of the run do not say it.",
            show_default="stream",
        ),
    ] = None,
    unit: Annotated[str, typer.Option(help="What is one text in a .txt file: a line, paragraph or file.")] = "line",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the choice of real texts and of MAUVE's clusters.")] = 0,
    out: Out = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure written texts beside real ones: perplexity under a judge, diversity, MAUVE and overlap of stages.

    Examples:

      cdllm evaluate samples sampling_outputs/RUN --reference D --judge gpt2
      cdllm evaluate samples texts.txt --tokenizer gpt2 --reference real.txt --judge gpt2 --out figures.json
    """
    with reported_errors(debug):
        presets, text_unit = _presets(preset), one_of("the unit", unit, UNITS)
        require_output_file(out)
        _require_features(mauve_features, judge, reference)
        chosen = choose_device(device)
        written = read_written(path, tokenizer=tokenizer, reference=reference, unit=text_unit)
        real = None
        if reference is not None:
            real = read_reference(reference, written, packing=packing, seed=seed, unit=text_unit)
        asked = None if judge is None else Judge.load(judge)
        features_of, features = _features(mauve_features, asked, chosen, has_reference=real is not None)
        measures = Measures(
            judge=asked, presets=presets, features=features, keywords=written.keywords, device=chosen, seed=seed
        )
        of_samples, of_real = _measured(written.texts, real, measures)
        report = Report(
            source=str(path),
            samples=of_samples,
            reference_source=None if reference is None else str(reference),
            reference=of_real,
            settings={
                "num_asked": written.num_asked,
                "judge": judge,
                "mauve_features": features_of,
                "tokenizer": written.tokenizer.fingerprint,
                "keywords": list(written.keywords),
                "seed": seed,
            },
            notes=_notes(written, real, has_mauve="mauve" in values_of(of_samples)),
        )
        tell(report_summary(report), lambda: _show(report), out=out, as_json=as_json)


def _show(report: Report) -> None:
    console.print(report_table(report))
    has_errors = any(figure.error is not None for figure in (*report.samples, *report.reference))
    for line in (*[ERRORS] * has_errors, *report.notes, *missing_lines(report)):
        say(line)


def _presets(name: str) -> tuple[str, ...]:
    """The perplexities that a preset stands for."""
    known = {preset.replace("_", "-"): (preset,) for preset in PRESETS} | {"both": PRESETS}
    return known[one_of("--preset", name, known)]


def _require_features(name: str | None, judge: str | None, reference: Path | None) -> None:
    """Checks, before anything is read, that the features that MAUVE is to use can be had.

    Raises:
        ConfigError: there is no reference to compare with, or no judge to take features from.
    """
    if name in (None, "none"):
        return
    if reference is None:
        raise ConfigError(
            f"--mauve-features is {name}, and no --reference is given that MAUVE could compare with; name one"
        )
    if name == "judge" and judge is None:
        raise ConfigError(
            "--mauve-features is judge and no --judge is given; name one, or a sentence-transformers model"
        )


def _features(
    name: str | None, judge: Judge | None, device: torch.device, *, has_reference: bool
) -> tuple[str | None, TextFeatures | None]:
    """The model whose features MAUVE compares, by name, and what computes them; None twice for no MAUVE."""
    match name:
        case "none":
            return None, None
        case None | "judge":
            if judge is None or not has_reference:
                return None, None
            return judge.source, judge_features(judge, device)
        case _:
            return name, encoder_features(name, device)


def _measured(
    texts: MeasuredTexts, real: MeasuredTexts | None, measures: Measures
) -> tuple[list[Figure], list[Figure]]:
    """The figures of the samples, and those of the real texts, which are empty without a reference."""
    num_columns = 1 + (real is not None)
    with progress_bar("measuring") as (_, move):
        move(0, num_columns)
        of_samples = sample_figures(texts, measures, reference=real)
        move(1, num_columns)
        of_real = [] if real is None else sample_figures(real, measures)
    return of_samples, of_real


def _notes(written: Written, real: MeasuredTexts | None, *, has_mauve: bool) -> list[str]:
    """What a reader must know to compare the figures."""
    num_texts = len(written.texts)
    notes = []
    if num_texts < written.num_asked:
        notes.append(f"the run is not finished: {num_texts} of {counted(written.num_asked, 'text')} are measured")
    if real is not None and len(real) < num_texts:
        notes.append(
            f"the reference has {counted(len(real), 'text')} for {num_texts:,} samples: distinct shares, self-BLEU and "
            "MAUVE of different numbers of texts cannot be compared"
        )
    if has_mauve and real is not None and (fewest := min(num_texts, len(real))) < _MAUVE_SCATTERS_BELOW:
        notes.append(
            f"MAUVE of {counted(fewest, 'text')} on a side scatters by several hundredths from draw to draw and is "
            "higher than that of many texts: compare it only with MAUVE of the same number of texts"
        )
    return notes
