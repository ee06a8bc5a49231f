"""What is said of a gap to people."""

import io
import re

from rich.console import Console

from cascaded_dllm.assemble.gap import GapSettings
from cascaded_dllm.cli.evaluate_gap import gap_summary, gap_table
from cascaded_dllm.evaluate.gap import GapFigure, StageGap
from cascaded_dllm.evaluate.intervals import Interval
from cascaded_dllm.sample.drawing import Drawing

SETTINGS = GapSettings(drawing=Drawing(), num_texts=7)


def figure(name: str, low: float, high: float) -> GapFigure:
    middle = (low + high) / 2
    real, on_true, on_generated = Interval(1.0, 0.0, 2.0), Interval(2.0, 1.0, 3.0), Interval(2.0 + middle, 1.0, 3.0)
    return GapFigure(name, real, on_true, on_generated, Interval(middle, low, high))


GAP = StageGap(3, (figure("ordered_coverage", -0.25, 0.75), figure("token_entropy_nats", 0.5, 1.5)))


def test_a_star_where_0_is_outside() -> None:
    table = gap_table(GAP, SETTINGS)
    assert table.title == "stage 3 on 7 prefixes of each kind"
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["ordered coverage", "token entropy nats"]
    assert [column[1] for column in columns[1:4]] == ["1.0000", "2.0000", "3.0000"]
    assert columns[4] == ["0.2500\n(-0.2500, 0.7500)", "* 1.0000\n(0.5000, 1.5000)"]


def test_no_name_is_broken_where_80_columns_are_all() -> None:
    longest = figure("distinct_bigram_share_per_text", 0.5, 1.5)
    table = gap_table(StageGap(3, (longest, *GAP.figures)), SETTINGS)
    printed = io.StringIO()
    Console(width=80, file=printed).print(table)
    words = set(re.findall(r"[a-z]+", printed.getvalue()))
    assert {"distinct", "bigram", "share", "per", "text", "coverage", "entropy", "generated", "prefixes"} <= words


def test_summary() -> None:
    summary = gap_summary([GAP], SETTINGS, "a judge")
    assert (summary["judge"], summary["num_texts"], summary["level"]) == ("a judge", 7, 0.95)
    assert list(summary["definitions"]) == ["token_entropy_nats", "ordered_coverage"]
    gap = summary["stages"][0]["figures"]["ordered_coverage"]["gap"]
    assert gap == {"estimate": 0.25, "low": -0.25, "high": 0.75}
