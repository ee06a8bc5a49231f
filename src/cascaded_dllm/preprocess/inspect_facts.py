"""Facts about a dataset beside its windows: settings, counts, and what does not reach training."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.preprocess.inspect import InspectedWindow, Inspection


class Loss(NamedTuple):
    """Something that does not reach training.

    Attributes:
        reason: why.
        number: how much is lost.
        total: how much there was.
        what: the unit of both, in the plural.
    """

    reason: str
    number: int
    total: int
    what: str


def stage_names(spec: CascadeSpec) -> list[str]:
    """The name of every stage, with its length."""
    *shortened, length = spec.stage_lengths
    names = [f"stage {number}: {kept} tokens" for number, kept in enumerate(shortened, start=1)]
    return [*names, f"stage {spec.num_stages}: all {length}"]


def facts(inspection: Inspection) -> list[tuple[str, str]]:
    """The settings and counts, as names and values."""
    settings, counts = inspection.settings, inspection.counts
    is_whole = inspection.num_shards == settings.num_shards
    some = f"{inspection.num_shards:,} of {settings.num_shards:,} are there, and only they are shown and counted"
    known = [] if inspection.num_windows is None else [("windows", f"{inspection.num_windows:,}")]
    return [
        ("method", settings.method),
        ("importance by", _described(settings.scorer)),
        ("source", _described(settings.source)),
        ("documents", f"{counts.documents:,}"),
        ("tokens", f"{counts.tokens:,}"),
        ("characters", f"{counts.characters:,}"),
        *known,
        ("stage lengths", ", ".join(map(str, inspection.spec.stage_lengths))),
        ("packing", inspection.layout.packing),
        ("repeated tokens", "kept once" if inspection.unique else "kept"),
        ("shards", f"{settings.num_shards:,}" if is_whole else some),
        ("tokenizer", f"{settings.tokenizer}, {settings.vocab_size:,} tokens"),
        ("fingerprint", inspection.fingerprint or "none yet: the dataset is not complete"),
    ]


def losses(inspection: Inspection) -> list[Loss]:
    """What is dropped, and why: records of the corpus, windows without stages, and the end of the stream."""
    counts, seen = inspection.counts, inspection.statistics
    dropped = [
        Loss(f"records dropped by preprocessing: {reason}", number, counts.records, "records")
        for reason, number in sorted(counts.dropped.items())
    ]
    if not dropped:
        dropped = [Loss("records dropped by preprocessing", 0, counts.records, "records")]
    reason = f"windows dropped for too few distinct tokens, of {looked_at(inspection)}"
    windows = Loss(reason, seen.num_dropped, seen.num_windows, "windows")
    if inspection.tail_tokens is None:
        return [*dropped, windows]
    stream = counts.tokens + counts.documents
    return [*dropped, windows, Loss("tokens at the end that fill no window", inspection.tail_tokens, stream, "tokens")]


def looked_at(inspection: Inspection) -> str:
    """The part of the dataset that is counted, in words."""
    seen = inspection.statistics
    if seen.is_all:
        return f"all {seen.num_windows:,} windows"
    if inspection.num_windows is None:
        return f"{seen.num_windows:,} windows, evenly spaced over {inspection.counts.documents:,} documents"
    return f"{seen.num_windows:,} of {inspection.num_windows:,} windows, evenly spaced"


def without_stages(window: InspectedWindow, spec: CascadeSpec) -> str:
    """Why a window has no stages to show."""
    if (number := sum(len(span.tokens) for span in window.spans)) < spec.window_length:
        return f"{number:,} tokens do not fill a window of {spec.window_length:,}: choose shorter stages (--lengths)"
    if spec.num_stages == 1:
        return "there is one stage, the window"
    return (
        f"dropped: {window.num_distinct} distinct tokens can be kept, and stage {spec.num_stages - 1} needs "
        f"{spec.stage_lengths[-2]}"
    )


def _described(values: Mapping[str, Any]) -> str:
    """A description on one line, with the lengths of lists instead of their content."""
    parts = [
        f"{name}: {len(value):,}" if isinstance(value, list | dict) else f"{name}: {value}"
        for name, value in values.items()
        if value is not None
    ]
    return ", ".join(parts).replace("_", " ") or "not said"
