import errno
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.data import shards
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.data.row_groups import row_groups
from cascaded_dllm.errors import DataError

DOCUMENTS = [(f"d{i}", list(range(i, 2 * i + 1)), [float(i)] * (i + 1)) for i in range(9)]


@pytest.fixture
def folder(tmp_path, make_dataset, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 6)
    return make_dataset(tmp_path / "toy", DOCUMENTS, num_shards=2)


def test_row_groups_hold_the_records_in_order(folder):
    dataset = PreprocessedDataset.open(folder)
    groups = row_groups(dataset)
    assert [(group.shard.folder.name, group.number) for group in groups] == [
        *(("shard_0", number) for number in range(3)),
        *(("shard_1", number) for number in range(3)),
    ]
    read = [group.read() for group in groups]
    assert [(len(documents.ids), len(documents.token_ids)) for documents in read] == [
        (group.num_documents, group.num_tokens) for group in groups
    ]
    records = list(dataset.records())
    assert [name for documents in read for name in documents.ids] == [record.id for record in records]
    assert np.concatenate([documents.lengths for documents in read]).tolist() == [len(r.token_ids) for r in records]
    for field in ("token_ids", "importance"):
        expected = np.concatenate([getattr(record, field) for record in records])
        np.testing.assert_array_equal(np.concatenate([getattr(documents, field) for documents in read]), expected)
    assert [name for group in groups for name in group.read_ids()] == [record.id for record in records]


def test_shard_without_documents_has_no_row_groups(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", [("only", [1], [1.0])], num_shards=2)
    assert [group.num_tokens for group in row_groups(PreprocessedDataset.open(folder))] == [1]


def test_only_the_ends_of_the_files_are_read(folder):
    path = folder / "shard_0" / "documents.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    groups = row_groups(PreprocessedDataset.open(folder))
    assert sum(group.num_documents for group in groups) == len(DOCUMENTS)
    for read in (groups[0].read, groups[0].read_ids):
        with pytest.raises(
            DataError, match=r"documents.parquet cannot be read .* remove .*shard_0 and preprocess again"
        ):
            read()


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_file_without_an_end(folder, damage):
    path = folder / "shard_1" / "documents.parquet"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"shard_1/documents.parquet cannot be read"):
        row_groups(PreprocessedDataset.open(folder))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (pa.ArrowException("Failed to launch worker thread: Resource temporarily unavailable"), "of processes and thr"),
        (OSError(errno.EMFILE, "Too many open files"), "of open files"),
    ],
)
def test_limits_of_a_process_are_no_damage(folder, monkeypatch, error, remedy):
    """Nobody is told to remove good data for them."""
    [group, *_] = row_groups(PreprocessedDataset.open(folder))

    def limited(*_, **__):
        raise error

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", limited)
    with pytest.raises(DataError, match=rf"documents.parquet cannot be read \(.*\); raise the limit {remedy}"):
        group.read()


def test_counts_that_do_not_fit(folder):
    path = folder / "shard_1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["counts"]["tokens"] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"holds 4 documents of 20 tokens, the manifest says 4 of 21"):
        row_groups(PreprocessedDataset.open(folder))


def test_records_of_a_copy_are_the_same(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    names = [[group.read_ids() for group in row_groups(PreprocessedDataset.open(path))] for path in (folder, copy)]
    assert names[0] == names[1]
