"""`cdllm study report`: writes the results of a study as an HTML page and as JSON."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from cascaded_dllm.atomic import write_json, write_text
from cascaded_dllm.cli.console import reported_errors, say
from cascaded_dllm.cli.options import Debug
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.file_names import RESULTS_FILE
from cascaded_dllm.report.content import ReportContent
from cascaded_dllm.report.content import report as report_content
from cascaded_dllm.report.page import page
from cascaded_dllm.report.reading import read_results
from cascaded_dllm.report.summary import summary

REPORT_NAME = "report.html"


class Written(NamedTuple):
    """A report on disk.

    Attributes:
        content: what the report says.
        page: file of the page; the JSON is beside it.
    """

    content: ReportContent
    page: Path


def report(
    results: Annotated[Path, typer.Argument(help="Folder of a study, or its results.json.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of the page, a .html; the JSON goes beside it. By default report.html beside the results.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the results of a study as one HTML page and as JSON: which arm wins, errors, curves, costs and texts.

    Examples:

      cdllm study report runs/tiny-stories
      cdllm study report runs/tiny-stories/results.json --out tiny.html
    """
    with reported_errors(debug):
        file = results / RESULTS_FILE if results.is_dir() else results
        out = file.with_name(REPORT_NAME) if out is None else out
        _require_page_name(out, file)
        say_written(write_report(file, out))


def write_report(file: Path, out: Path | None = None) -> Written:
    """Writes the page to `out`, by default report.html beside the results in `file`, with the JSON beside it."""
    out = file.with_name(REPORT_NAME) if out is None else out
    content = report_content(read_results(file))
    write_text(out, page(content))
    write_json(out.with_suffix(".json"), summary(content))
    return Written(content, out)


def say_written(written: Written) -> None:
    """Prints which arm wins, the notes of the report, and where it is."""
    say(written.content.ranking.sentence)
    for note in written.content.notes:
        say(f"- {note}")
    say(f"written to {written.page} and {written.page.with_suffix('.json')}")


def _require_page_name(out: Path, file: Path) -> None:
    """Checks that neither the page nor the JSON beside it overwrites results.

    Raises:
        ConfigError: `out` is a folder, does not end in .html, or its JSON would overwrite the results of this study
            or of another one in that folder.
    """
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"--out is {out}; it must be a file that ends in .html, for example {REPORT_NAME}")
    beside = out.with_suffix(".json")
    if beside.name == RESULTS_FILE or beside.resolve() == file.resolve():
        raise ConfigError(
            f"--out is {out}, and the JSON beside it would replace {beside}, the results of a study; choose another "
            f"name, for example {REPORT_NAME}"
        )
