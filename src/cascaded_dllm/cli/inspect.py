"""`cdllm preprocess inspect`: shows what each stage keeps of the data, before anything is trained on it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from omegaconf import OmegaConf
from rich.table import Table
from rich.text import Text

from cascaded_dllm.atomic import write_text
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.cli import preprocess_flags as flags
from cascaded_dllm.cli.compose import config_folder
from cascaded_dllm.cli.console import console, note, reported_errors, say, visible
from cascaded_dllm.cli.options import Debug, parse_lengths
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.preprocess.inspect import InspectedWindow, Inspection, Span, inspect_dataset
from cascaded_dllm.preprocess.inspect_facts import facts, looked_at, losses, stage_names, without_stages
from cascaded_dllm.preprocess.inspect_page import page
from cascaded_dllm.preprocess.inspect_statistics import Bin

_STYLES = ("bold yellow", "cyan", "magenta", "green")
_BAR_WIDTH = 40


def inspect(
    folder: flags.Folder,
    lengths: flags.Lengths = None,
    packing: flags.Packing = None,
    unique: flags.Unique = None,
    num_windows: Annotated[int, typer.Option(help="Largest number of windows to show.")] = 8,
    seed: Annotated[int | None, typer.Option(help="Seed of the choice of windows; 0 by default.")] = None,
    document: Annotated[
        str | None, typer.Option(help="Show the windows of the document with this id instead of a random choice.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Show windows of a preprocessed dataset, what every stage keeps of them, and what is dropped and why.

    If the dataset is still being made, only its finished shards are used.

    Examples:

      cdllm preprocess inspect data/preprocessed/constituency/mine_train
      cdllm preprocess inspect D --lengths 16,32,128 --num-windows 20 --seed 7 --html look.html
      cdllm preprocess inspect D --document 42
    """
    with reported_errors(debug):
        if document is not None and seed is not None:
            raise ConfigError(f"--document {document!r} and --seed {seed} both say what to show; give one of them")
        spec, chosen_packing, is_unique = asked_windows(lengths, packing, unique)
        inspection = inspect_dataset(
            folder,
            spec,
            packing=chosen_packing,
            unique=is_unique,
            num_windows=num_windows,
            seed=seed or 0,
            document=document,
        )
        # The page comes first, since the terminal may close before the end, as with `| head`.
        if html is not None:
            write_text(html, page(inspection))
        _show(inspection)
        if html is not None:
            say(f"written to {html}")


def asked_windows(lengths: str | None, packing: str | None, unique: bool | None) -> tuple[CascadeSpec, str, bool]:
    """Stage lengths, packing and whether a stage keeps a token only once: as given, or else as configured."""
    configured = OmegaConf.load(config_folder() / "cascade_config.yaml")
    return (
        CascadeSpec(tuple(configured.stage_lengths) if lengths is None else parse_lengths(lengths)),
        packing or configured.data.packing,
        configured.data.unique if unique is None else unique,
    )


def _show(inspection: Inspection) -> None:
    """Prints the inspection."""
    names = stage_names(inspection.spec)
    console.rule(Text(visible(f"{inspection.settings.dataset}, {inspection.settings.split}")))
    if inspection.num_shards < inspection.settings.num_shards:
        note(
            f"the dataset is not complete: {inspection.num_shards:,} of its "
            f"{inspection.settings.num_shards:,} shards are there, and only they are shown and counted"
        )
    console.print(pairs(facts(inspection)))
    console.print(visible(inspection.choice))
    console.print(Text("  ").join(Text(name, _style(stage, len(names))) for stage, name in enumerate(names, start=1)))
    for window in inspection.windows:
        console.print()
        console.print(_lines(window, inspection.spec))
    console.rule("importance")
    console.print(f"tokens of {looked_at(inspection)}")
    console.print(_histogram(inspection.statistics.bins, len(names)))
    console.rule("what is dropped")
    console.print(pairs((loss.reason, f"{loss.number:,} of {loss.total:,} {loss.what}") for loss in losses(inspection)))


def _style(stage: int, num_stages: int) -> str:
    """The style of a stage; the last one is plain text."""
    return _STYLES[(stage - 1) % len(_STYLES)] if stage < num_stages else ""


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one below the other."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(visible(name), "dim"), Text(visible(value)))
    return table


def _lines(window: InspectedWindow, spec: CascadeSpec) -> Text:
    """A window and its stages, one below the other."""
    lines = Text.assemble((visible(window.title), "bold"), "  ", (visible(", ".join(window.documents)), "dim"), "\n")
    lines.append_text(_coloured(window.spans, spec.num_stages))
    for number, spans in enumerate(window.stages, start=1):
        lines.append(f"\n  {number}  ", "dim")
        lines.append_text(_coloured(spans, spec.num_stages))
    if not window.stages:
        lines.append(f"\n  {without_stages(window, spec)}", "dim")
    return lines


def _coloured(spans: Iterable[Span], num_stages: int) -> Text:
    return Text.assemble(*((visible(span.text), _style(span.stage, num_stages)) for span in spans))


def _histogram(bins: Iterable[Bin], num_stages: int) -> Table:
    """A bar for each bin of importance, divided by stage."""
    rows = list(bins)
    largest = max((sum(row.counts) for row in rows), default=1)
    table = Table.grid(padding=(0, 2))
    for row in rows:
        styles = [_style(stage, num_stages) for stage in range(1, num_stages + 1)]
        bar = Text()
        for count, style in zip(row.counts, [*styles, "dim"], strict=True):
            bar.append("█" * round(_BAR_WIDTH * count / largest), style)
        table.add_row(Text(row.label), Text(f"{sum(row.counts):,}", justify="right"), bar)
    return table
