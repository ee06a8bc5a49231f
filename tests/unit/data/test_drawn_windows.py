"""Windows at random are among those that training cuts, different from each other, and decided by the seed."""

import numpy as np
import pytest

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data import drawn_windows as module
from cascaded_dllm.data import shards
from cascaded_dllm.data.drawn_windows import drawn_windows
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import ConfigError, DataError

SPEC = CascadeSpec((2, 6))


@pytest.fixture
def folder(make_dataset, tmp_path, monkeypatch):
    """40 documents of 5 to 24 tokens in two shards, in row groups of some 60 tokens."""
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 60)
    generator = np.random.default_rng(0)
    documents = []
    for number in range(40):
        length = int(generator.integers(5, 25))
        documents.append((f"d{number}", generator.integers(0, 49, length).tolist(), generator.random(length).tolist()))
    return make_dataset(tmp_path / "data", documents, num_shards=2)


def as_set(stages):
    return {tuple(np.concatenate(row)) for row in zip(*stages, strict=True)}


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_are_among_those_of_training(folder, tmp_path, packing):
    """With the same stages; all of them are had where as many are asked for, but for those across row groups."""
    arrays = StageArrays.build(folder, SPEC, packing=packing, out=tmp_path / "stages")
    of_training = as_set(arrays.stages)
    some = drawn_windows(folder, SPEC, packing=packing, num_windows=9, seed=1)
    assert [stage.shape for stage in some] == [(9, 2), (9, 6)]
    assert as_set(some) < of_training
    assert len(as_set(some)) == 9
    every = drawn_windows(folder, SPEC, packing=packing, num_windows=10_000, seed=1)
    assert as_set(every) <= of_training
    num_across = len(of_training) - len(every[-1])
    assert (0 < num_across < 20) if packing == "stream" else num_across == 0


def test_seed_decides(folder):
    one, same, other = (
        drawn_windows(folder, SPEC, packing="document", num_windows=5, seed=seed)[-1].tolist() for seed in (3, 3, 4)
    )
    assert one == same
    assert one != other


def test_come_from_many_row_groups(folder):
    """Half of the windows are not the first row group's, though it alone has enough."""
    arrays = drawn_windows(folder, SPEC, packing="document", num_windows=10_000, seed=0)
    groups = [group.read() for group in module.row_groups(module.PreprocessedDataset.open(folder))]
    assert len(groups) > 5
    some = drawn_windows(folder, SPEC, packing="document", num_windows=6, seed=0)
    sources = {
        number
        for row in some[-1].tolist()
        for number, documents in enumerate(groups)
        if any(documents.token_ids[i : i + 4].tolist() == row[:4] for i in range(len(documents.token_ids)))
    }
    assert len(sources) >= 5
    assert len(arrays[-1]) > 6


@pytest.mark.parametrize("seed", range(6))
def test_a_small_row_group_gives_its_share(make_dataset, tmp_path, monkeypatch, seed):
    """The rest of a shard is a row group too, however few windows it has; the others give what it lacks."""
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 600)
    documents = [(f"d{n}", [n % 49, *range(5)], [0.5] * 6) for n in range(104)]
    folder = make_dataset(tmp_path / "data", documents)
    sizes = [group.num_documents for group in module.row_groups(module.PreprocessedDataset.open(folder))]
    assert sizes == [100, 4]
    [rows] = drawn_windows(folder, CascadeSpec((6,)), packing="document", num_windows=50, seed=seed)
    assert len(rows) == 50
    # Documents 100 to 103; others begin with the same numbers.
    assert sum(row[0] in (2, 3, 4, 5) for row in rows.tolist()) <= 2 + 2 * 4


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_nearly_all_windows(folder, packing):
    """They are not spread over row groups like the tokens, so some groups have fewer than their share."""
    num_windows = len(drawn_windows(folder, SPEC, packing=packing, num_windows=10_000, seed=1)[0])
    for fewer in (0, 1, 3):
        found = drawn_windows(folder, SPEC, packing=packing, num_windows=num_windows - fewer, seed=1)
        assert len(as_set(found)) == len(found[0]) == num_windows - fewer


def test_windows_that_cannot_fill_their_stages_are_passed_over(make_dataset, tmp_path):
    """One window of equal tokens among different ones, and windows more than are selected at once."""
    documents = [("same", [1] * 6, [-1.0] * 6)] + [(f"d{n}", list(range(6)), [0.5] * 6) for n in range(1500)]
    folder = make_dataset(tmp_path / "data", documents)
    first, last = drawn_windows(folder, CascadeSpec((3, 6)), packing="document", num_windows=2000, seed=0)
    assert (first.shape, last.shape) == ((1500, 3), (1500, 6))
    every = drawn_windows(folder, CascadeSpec((3, 6)), packing="document", unique=False, num_windows=2000, seed=0)
    assert [1, 1, 1] in every[0].tolist()


def test_none(folder):
    what = r"has \d+ tokens in 40 documents, and not one window of 5000 tokens .* in one shard; .* with fewer shards"
    with pytest.raises(DataError, match=what):
        drawn_windows(folder, CascadeSpec((5000,)), packing="stream", num_windows=3, seed=0)
    with pytest.raises(ConfigError, match="packing is 'loose'; it must be one of stream, document"):
        drawn_windows(folder, SPEC, packing="loose", num_windows=3, seed=0)
