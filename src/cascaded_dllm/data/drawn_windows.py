"""A few random windows of a dataset, drawn without reading all of it and without writing a file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.build_stages import StageRule, Stages
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.row_groups import RowGroup, row_groups
from cascaded_dllm.data.windows import Layout, Tokens
from cascaded_dllm.errors import DataError
from cascaded_dllm.rng import numpy_generator

_NUM_GROUPS = 16
"""Number of row groups from which windows are drawn, each in proportion to its tokens, a million at most."""
_AT_ONCE = 1024
"""Windows whose stages are selected together."""


def drawn_windows(
    folder: Path, spec: CascadeSpec, *, packing: str, unique: bool = True, num_windows: int, seed: int
) -> tuple[npt.NDArray[np.int32], ...]:
    """For every stage, the ids of distinct windows of a preprocessed dataset, (windows, its length), in random order.

    They are windows that `StageArrays.build` makes for training, except those that lie across row groups.

    Args:
        folder: of the preprocessed dataset.
        spec: the stage lengths; the last one is the window.
        packing: see `Layout`.
        unique: whether a shortened stage keeps a token id once.
        num_windows: number of windows; fewer are returned if the dataset does not have so many.
        seed: of the draw.

    Raises:
        ConfigError: the packing is unknown.
        DataError: the dataset is damaged, or has no window.
    """
    dataset = PreprocessedDataset.open(folder)
    settings = dataset.settings
    rule = StageRule(
        spec, Layout(spec.window_length, packing, settings.eos_id, settings.background), settings.method, unique
    )
    groups = row_groups(dataset)
    missing = rule.layout.missing(groups)
    generator = numpy_generator(seed, "drawn windows")
    places = generator.permutation(len(groups)).tolist()
    # The largest last: it makes up for those that have fewer windows than their share.
    shared = sorted(places[:_NUM_GROUPS], key=lambda place: groups[place].num_tokens)
    num_tokens = sum(groups[place].num_tokens for place in shared)
    found: list[Stages] = []
    num_found, has_more = 0, False
    for place in (*shared, *places[_NUM_GROUPS:]):
        wanted, size = num_windows - num_found, groups[place].num_tokens
        if wanted <= 0:
            break
        quota = -(-wanted * size // max(num_tokens, size, 1))
        num_tokens -= size
        some = _some_of(groups[place], missing[place], rule, quota, generator)
        num_of_group = sum(stages.num_kept for stages in some)
        found, num_found, has_more = [*found, *some], num_found + num_of_group, has_more or num_of_group == quota
    if num_found < num_windows and has_more:
        # Nearly all windows are wanted, and they are not spread like the tokens.
        every = zip(groups, missing, strict=True)
        found = [
            stages
            for group, of_group in every
            for stages in _some_of(group, of_group, rule, group.num_tokens, generator)
        ]
        num_found = sum(stages.num_kept for stages in found)
    if num_found == 0:
        raise DataError(
            f"{folder} has {dataset.counts.tokens} tokens in {dataset.counts.documents} documents, and not one window "
            f"of {spec.window_length} tokens with the stages {list(spec.stage_lengths)} that lies in one shard; give a "
            "larger corpus, or preprocess it with fewer shards"
        )
    joined = [np.concatenate(stage) for stage in zip(*(stages.token_ids for stages in found), strict=True)]
    order = generator.permutation(num_found)[:num_windows]
    return tuple(stage[order] for stage in joined)


def _some_of(
    group: RowGroup, missing: int, rule: StageRule, num_windows: int, generator: np.random.Generator
) -> list[Stages]:
    """Up to `num_windows` windows of one row group, drawn at random among those that fill every stage."""
    windows = rule.layout.cut(group.read(), missing).windows
    order = generator.permutation(len(windows.token_ids))
    found: list[Stages] = []
    for start in range(0, len(order), _AT_ONCE):
        rows = order[start : start + _AT_ONCE]
        stages = rule.select(Tokens(windows.token_ids[rows], windows.importance[rows]))
        kept = min(stages.num_kept, num_windows)
        found.append(
            Stages(
                tuple(ids[:kept] for ids in stages.token_ids),
                tuple(places[:kept] for places in stages.positions),
                kept,
                stages.num_dropped,
            )
        )
        num_windows -= kept
        if num_windows == 0:
            break
    return found
