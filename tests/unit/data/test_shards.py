import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.data import shards
from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.data.shards import Shard, SourceHash, shard_fingerprint, write_shard
from cascaded_dllm.errors import DataError

DOCUMENTS = [
    ("first", [1, 2, 3], [1.0, 7.0, -100.0]),
    ("second \u00e9", [4], [0.25]),
    ("first", [], []),
    ("third", [5, 6, 7, 8], [3.0, 2.0, 1.0, 4.0]),
]


def content(shard):
    return [(record.id, record.token_ids.tolist(), record.importance.tolist()) for record in shard.records()]


def test_round_trip(tmp_path, make_shard, make_settings):
    shard = Shard.open(make_shard(tmp_path / "shard_0", DOCUMENTS))
    assert content(shard) == [document for document in DOCUMENTS if document[1]]
    assert shard.counts == Counts(3, 8, 30, {"empty": 1}, 10)
    assert shard.settings == make_settings()
    assert shard.fingerprint == shard_fingerprint(make_settings(), 0) != shard_fingerprint(make_settings(), 1)
    for record in shard.records():
        assert (record.token_ids.dtype, record.importance.dtype) == (np.int32, np.float32)


def test_format_is_what_is_documented(tmp_path, make_shard):
    folder = make_shard(tmp_path / "shard_0", DOCUMENTS)
    assert sorted(path.name for path in folder.iterdir()) == ["documents.parquet", "manifest.json"]
    schema = pq.read_schema(folder / "documents.parquet")
    assert schema.names == ["id", "token_ids", "importance"]
    assert [field.type for field in schema] == [pa.string(), pa.list_(pa.int32()), pa.list_(pa.float32())]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == {
        "documents": 3,
        "tokens": 8,
        "characters": 30,
        "dropped": {"empty": 1},
        "dropped_characters": 10,
    }
    assert manifest["settings"]["tokenizer"] == "0123456789abcdef"


def test_row_groups_bound_the_memory(tmp_path, make_shard, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 10)
    monkeypatch.setattr(shards, "_READ_DOCUMENTS", 3)
    documents = [(f"d{i}", list(range(i % 5 + 1)), [float(i)] * (i % 5 + 1)) for i in range(40)]
    shard = Shard.open(make_shard(tmp_path / "shard_0", documents))
    with pq.ParquetFile(shard.folder / "documents.parquet") as file:
        assert file.num_row_groups > 5
    assert content(shard) == documents


def test_shard_without_documents(tmp_path, make_shard):
    shard = Shard.open(make_shard(tmp_path / "shard_0", []))
    assert content(shard) == []
    assert shard.counts == Counts()


def test_source_hash_depends_on_ids_texts_and_order():
    def hash_of(*documents):
        source = SourceHash()
        for document in documents:
            source.add(*document)
        return source.hexdigest()

    hashes = [
        hash_of(),
        hash_of(("a", "b")),
        hash_of(("ab", "")),
        hash_of(("", "ab")),
        hash_of(("a", "b"), ("", "")),
        hash_of(("a", "b"), ("c", "d")),
        hash_of(("c", "d"), ("a", "b")),
    ]
    assert len(set(hashes)) == len(hashes)


def test_lone_surrogate():
    with pytest.raises(DataError, match=r"document 'x' holds the lone surrogate '\\ud800' at character 2; repair"):
        SourceHash().add("x", "ab\ud800c")


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ([1.0, float("nan")], "document 'd' has 2 tokens but 1 finite importance values"),
        ([float("inf"), float("-inf")], "has 2 tokens but 0 finite"),
        ([1.0], "has 2 tokens but 1 finite"),
        ([1.0, 2.0, 3.0], "has 2 tokens but 3 finite"),
    ],
)
def test_bad_importance(tmp_path, make_shard, importance, message):
    with pytest.raises(DataError, match=message):
        make_shard(tmp_path / "shard_0", [*DOCUMENTS, ("d", [1, 2], importance)])
    assert list(tmp_path.iterdir()) == []


def test_exception_leaves_no_shard(tmp_path, make_settings):
    def fail():
        with write_shard(tmp_path / "shard_0", make_settings(), 0, SourceHash()) as writer:
            writer.add("d", [1, 2], [1.0, 2.0], num_characters=3)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from cascaded_dllm.data import shards
    from cascaded_dllm.data.manifest import Settings
    shards.ROW_GROUP_TOKENS = 4
    settings = Settings("toy", "train", {}, 1, "constituency", {}, -100.0, "0", 50, 49)
    with shards.write_shard(Path(sys.argv[1]), settings, 0, shards.SourceHash()) as writer:
        for number in range(10):
            writer.add(str(number), [1, 2, 3], [1.0, 2.0, 3.0], num_characters=3)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_writer_leaves_no_shard(tmp_path, make_shard):
    folder = tmp_path / "shard_0"
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(folder)], check=False)
    assert result.returncode == -9
    with pytest.raises(DataError, match="is not a complete shard"):
        Shard.open(folder)
    assert len(list(tmp_path.iterdir())) == 1
    make_shard(folder, DOCUMENTS)
    assert list(tmp_path.iterdir()) == [folder]
    assert len(content(Shard.open(folder))) == 3


def test_truncated_records(tmp_path, make_shard):
    folder = make_shard(tmp_path / "shard_0", DOCUMENTS)
    path = folder / "documents.parquet"
    os.truncate(path, path.stat().st_size - 7)
    with pytest.raises(DataError, match="it is truncated or was changed; remove"):
        next(Shard.open(folder).records())


def test_foreign_records(tmp_path, make_shard):
    folder = make_shard(tmp_path / "shard_0", DOCUMENTS)
    pq.write_table(pa.table({"text": ["foreign"]}), folder / "documents.parquet")
    with pytest.raises(DataError, match=r"documents.parquet has SHA-256 .* the manifest says"):
        Shard.open(folder).verify()


def test_missing_records(tmp_path, make_shard):
    folder = make_shard(tmp_path / "shard_0", DOCUMENTS)
    (folder / "documents.parquet").unlink()
    with pytest.raises(DataError, match=r"documents.parquet is missing; remove"):
        Shard.open(folder).verify()


def test_manifest_without_a_hash(tmp_path, make_shard):
    folder = make_shard(tmp_path / "shard_0", DOCUMENTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["records_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"is incomplete \('records_sha256'\)"):
        Shard.open(folder)
