import shutil

import pytest

from cascaded_dllm.data import preprocessed
from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import DataError

DOCUMENTS = [(f"d{i}", [i, i + 1], [1.0, float(i)]) for i in range(7)]


def test_records_come_shard_after_shard(tmp_path, make_dataset):
    dataset = PreprocessedDataset.open(make_dataset(tmp_path / "toy", DOCUMENTS, num_shards=3))
    assert [record.id for record in dataset.records()] == ["d0", "d3", "d6", "d1", "d4", "d2", "d5"]
    assert dataset.counts == Counts(7, 14, 70)


def test_fingerprint_depends_on_content_and_settings(tmp_path, make_dataset):
    folders = [
        make_dataset(tmp_path / "a", DOCUMENTS),
        make_dataset(tmp_path / "b", DOCUMENTS[:-1]),
        make_dataset(tmp_path / "c", DOCUMENTS, tokenizer="f" * 16),
    ]
    fingerprints = [PreprocessedDataset.open(folder).fingerprint for folder in folders]
    assert len(set(fingerprints)) == 3
    again = make_dataset(tmp_path / "again", DOCUMENTS)
    assert PreprocessedDataset.open(again).fingerprint == fingerprints[0]


def test_missing_shard(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS, num_shards=2)
    shutil.rmtree(folder / "shard_1")
    with pytest.raises(DataError, match="shard_1 is not a complete shard"):
        PreprocessedDataset.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "f" * 16}, "tokenizer: 'ffffffffffffffff', not '0123456789abcdef'"),
        ({"method": "tfidf"}, "method: 'tfidf', not 'constituency'"),
    ],
)
def test_shard_of_another_dataset(tmp_path, make_dataset, changes, message):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS, num_shards=2)
    other = make_dataset(tmp_path / "other", DOCUMENTS, num_shards=2, **changes)
    shutil.rmtree(folder / "shard_1")
    shutil.copytree(other / "shard_1", folder / "shard_1")
    with pytest.raises(DataError, match=f"shard_1 does not belong to .*{message}"):
        PreprocessedDataset.open(folder)


def test_exchanged_shards(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS, num_shards=2)
    (folder / "shard_0").rename(folder / "swap")
    (folder / "shard_1").rename(folder / "shard_0")
    (folder / "swap").rename(folder / "shard_1")
    with pytest.raises(DataError, match="a shard was exchanged; preprocess again"):
        PreprocessedDataset.open(folder)


def test_tokenizer_that_cannot_be_read(tmp_path, make_dataset, monkeypatch):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(preprocessed, "file_sha256", refuse)
    with pytest.raises(DataError, match=r"tokenizer.json cannot be read \(Permission denied\); check the disk and the"):
        PreprocessedDataset.open(folder)


def test_tokenizer_that_is_missing_or_another(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS)
    (folder / "tokenizer.json").write_text('{"another": 1}')
    with pytest.raises(DataError, match=r"tokenizer.json has SHA-256 .* the dataset was made with"):
        PreprocessedDataset.open(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json is missing"):
        PreprocessedDataset.open(folder)


def test_folder_without_a_manifest_is_incomplete(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="is not a complete preprocessed dataset"):
        PreprocessedDataset.open(folder)


def test_shard_is_no_dataset(tmp_path, make_dataset):
    folder = make_dataset(tmp_path / "toy", DOCUMENTS)
    with pytest.raises(DataError, match="describes 'shard', not 'preprocessed dataset'"):
        PreprocessedDataset.open(folder / "shard_0")
