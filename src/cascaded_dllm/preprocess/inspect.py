"""A preprocessed dataset as training will see it: some of its windows, what every stage keeps of them, and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from cascaded_dllm.cascade.select_many import keep_ranks
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.checks import require_at_least
from cascaded_dllm.data.manifest import Counts, DamagedError, Settings
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.row_groups import row_groups
from cascaded_dllm.data.windows import Layout
from cascaded_dllm.errors import DataError
from cascaded_dllm.file_names import TOKENIZER_FILE
from cascaded_dllm.preprocess.completion import PREPARED_FOLDER
from cascaded_dllm.preprocess.inspect_choice import Found, document_windows, random_windows
from cascaded_dllm.preprocess.inspect_statistics import Statistics, first_stages, spread_windows, statistics
from cascaded_dllm.text.token_groups import token_groups
from cascaded_dllm.text.tokenizer import Tokenizer


class Span(NamedTuple):
    """The fewest tokens that decode to whole characters; mostly one.

    Attributes:
        text: what they decode to.
        stage: the first stage, 1..K, that keeps one of the tokens.
        tokens: id and importance of each.
    """

    text: str
    stage: int
    tokens: tuple[tuple[int, float], ...]


@final
@dataclass(frozen=True, slots=True)
class InspectedWindow:
    """A window and the stages made of it.

    Attributes:
        title: which window it is.
        documents: ids of the documents that have tokens in it.
        spans: its text.
        stages: the texts of the shortened stages; empty if the window is dropped, or if the data does not fill one.
        num_distinct: the number of tokens that the selection rule can keep.
    """

    title: str
    documents: tuple[str, ...]
    spans: tuple[Span, ...]
    stages: tuple[tuple[Span, ...], ...]
    num_distinct: int


@final
@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that is shown of a dataset.

    Attributes:
        folder: of the dataset.
        settings: what it was made with.
        counts: what went into it.
        fingerprint: of the dataset; None if it is not complete.
        num_shards: shards that are shown; fewer than `settings` says if the dataset is not complete.
        layout: how documents lie in windows.
        spec: the stage lengths.
        num_windows: of those shards, if known without reading them (packing "stream"); otherwise None.
        tail_tokens: tokens at the end that are not in any window; None if `num_windows` is.
        choice: which windows are shown, in words.
        windows: the windows that are shown.
        unique: whether a stage keeps a token id only once.
        statistics: of windows from all parts of the dataset.
    """

    folder: Path
    settings: Settings
    counts: Counts
    fingerprint: str | None
    num_shards: int
    layout: Layout
    spec: CascadeSpec
    num_windows: int | None
    tail_tokens: int | None
    choice: str
    windows: tuple[InspectedWindow, ...]
    unique: bool
    statistics: Statistics


def inspect_dataset(
    folder: Path,
    spec: CascadeSpec,
    *,
    packing: str,
    num_windows: int,
    seed: int = 0,
    document: str | None = None,
    unique: bool = True,
) -> Inspection:
    """Some windows of a preprocessed dataset of any size, and counts; shards are neither read as a whole nor verified.

    If the dataset is not complete, they are windows of the complete shards.

    Args:
        folder: the dataset.
        spec: the stage lengths; the last one is the window.
        packing: see `Layout`.
        num_windows: the most windows to show.
        seed: decides which windows of the dataset are drawn.
        document: id of a document whose windows are shown instead; of several with this id, the first.
        unique: whether a stage keeps a token id only once.

    Raises:
        ConfigError: the packing is unknown, `num_windows` is less than 1, or the windows are too long to be shown.
        DataError: there is no shard or no document, the dataset or its tokenizer cannot be read, or there is no such
            document.
    """
    require_at_least("the number of windows", num_windows, 1)
    dataset = _opened(folder)
    if dataset.counts.documents == 0:
        raise DataError(
            f"{_place(dataset)} hold 0 documents, so there is nothing to show yet; wait until more shards are there"
        )
    settings = dataset.settings
    tokenizer = _tokenizer(dataset)
    layout = Layout(spec.window_length, packing, settings.eos_id, settings.background)
    groups = row_groups(dataset)
    if document is None:
        chosen = random_windows(groups, layout, num_windows, seed)
    else:
        chosen = document_windows(groups, layout, num_windows, document, _place(dataset))
    whole, tail = divmod(dataset.counts.tokens + dataset.counts.documents, spec.window_length)
    is_known = packing == "stream"
    return Inspection(
        folder=folder,
        settings=settings,
        counts=dataset.counts,
        fingerprint=dataset.fingerprint if dataset.is_whole else None,
        num_shards=len(dataset.shards),
        layout=layout,
        spec=spec,
        num_windows=whole if is_known else None,
        tail_tokens=tail if is_known else None,
        choice=chosen.description if dataset.is_whole else f"of {_place(dataset)}: {chosen.description}",
        windows=tuple(_inspected(found, spec, settings.method, unique, tokenizer) for found in chosen.windows),
        unique=unique,
        statistics=statistics(spread_windows(groups, layout), spec, settings.method, unique=unique),
    )


def _opened(folder: Path) -> PreprocessedDataset:
    """The dataset, or its complete shards if it is unfinished.

    Raises:
        DataError: there is no shard, or the dataset cannot be read.
    """
    try:
        return PreprocessedDataset.open(folder)
    except DamagedError as error:
        try:
            return PreprocessedDataset.open_unfinished(folder)
        except DamagedError:
            raise error from None


def _place(dataset: PreprocessedDataset) -> str:
    """The dataset, or the part of it that is complete, in words."""
    if dataset.is_whole:
        return str(dataset.folder)
    return f"the {len(dataset.shards):,} of {dataset.settings.num_shards:,} shards of {dataset.folder} that are there"


def _tokenizer(dataset: PreprocessedDataset) -> Tokenizer:
    """The tokenizer of a dataset, from beside its first shard or from where it was trained.

    Raises:
        DataError: it is in neither place.
    """
    folder, wanted = dataset.folder, dataset.settings.tokenizer
    paths = [folder / TOKENIZER_FILE, *sorted(folder.glob(f"{PREPARED_FOLDER}/tokenizer_*/{TOKENIZER_FILE}"))]
    for tokenizer in (Tokenizer.load(path) for path in paths if path.is_file()):
        if tokenizer.fingerprint == wanted:
            return tokenizer
    raise DataError(
        f"the tokenizer of {folder}, with the fingerprint {wanted}, is not there yet; it comes with the next shard or "
        "with the last one: go on with the command that made these"
    )


def _inspected(found: Found, spec: CascadeSpec, method: str, unique: bool, tokenizer: Tokenizer) -> InspectedWindow:
    """A window with the texts of its stages."""
    ids, importance = found.tokens
    ranks = keep_ranks(ids[None], importance[None], method=method, unique=unique)
    [stages] = first_stages(ranks, spec) if len(ids) == spec.window_length else np.zeros_like(ranks)
    # A dropped window has no stages; its tokens are shown like those that only the last stage keeps.
    shown = np.where(stages == 0, spec.num_stages, stages)
    kept = [np.flatnonzero(stages <= number) for number in range(1, spec.num_stages)] if stages[0] else []
    return InspectedWindow(
        title=found.title,
        documents=found.documents,
        spans=_spans(ids.tolist(), importance.tolist(), shown.tolist(), tokenizer),
        stages=tuple(
            _spans(ids[part].tolist(), importance[part].tolist(), shown[part].tolist(), tokenizer) for part in kept
        ),
        num_distinct=int((ranks < len(ids)).sum()),
    )


def _spans(
    ids: Sequence[int], importance: Sequence[float], stages: Sequence[int], tokenizer: Tokenizer
) -> tuple[Span, ...]:
    """The text of some tokens, in spans."""
    return tuple(
        Span(
            tokenizer.decode(ids[start:end]),
            min(stages[start:end]),
            tuple(zip(ids[start:end], importance[start:end], strict=True)),
        )
        for start, end in token_groups(ids, tokenizer.decode)
    )
