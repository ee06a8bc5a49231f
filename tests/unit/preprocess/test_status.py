"""How far a job is, by its files."""

import json
import os
import shutil
import time

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.random_scores import RandomScorer
from cascaded_dllm.preprocess import progress
from cascaded_dllm.preprocess.encoder import Encoder
from cascaded_dllm.preprocess.pipeline import Plan
from cascaded_dllm.preprocess.progress import TaskLog
from cascaded_dllm.preprocess.status import SILENT_SECONDS, note_job, status
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.stories import story_tokenizer
from tests.pipeline.commands import failure, success

NUM_SHARDS, NUM_DOCUMENTS = 6, 60


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two shards are done, one is at work, one is silent; the job is known to have 60 records."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)
    corpus = Corpus.from_documents("toy", [Document(str(i), "the fox") for i in range(NUM_DOCUMENTS)])
    encoder = Encoder(story_tokenizer(), RandomScorer(0))
    plan = Plan.make(
        corpus,
        split="train",
        out_dir=tmp_path,
        tokenizer=encoder.tokenizer,
        scorer=encoder.scorer,
        num_shards=NUM_SHARDS,
    )
    for index in (0, 4):
        plan.write(index, encoder.encode_all)
    for index, records in ((1, 5), (2, 7)):
        TaskLog(plan.folder, index).tell(records)
        # What it would say after four seconds.
        path = plan.folder / "logs" / "progress" / f"0000{index}.json"
        path.write_text(json.dumps({"records": records, "seconds": 4.0}))
    long_ago = time.time() - SILENT_SECONDS - 60
    os.utime(path, (long_ago, long_ago))
    return plan.folder


def test_what_is_known_of_a_job(folder):
    note_job(folder, NUM_SHARDS, 58)
    now = status(folder)
    assert now.done == (0, 4)
    assert now.at_work.keys() == {1}
    assert now.silent.keys() == {2}
    assert now.not_begun == 2
    assert (now.records_done, now.records_total) == (25, 58), "what a silent task has done is lost"
    assert now.rate == 5 / 4
    assert now.seconds_left == (58 - 25) * 4 / 5


def test_shards_tell_what_nobody_noted(folder):
    assert status(folder).records_total == NUM_DOCUMENTS
    assert status(folder).num_shards == NUM_SHARDS


def test_what_was_known_stays(folder):
    note_job(folder, NUM_SHARDS, 58)
    note_job(folder, NUM_SHARDS, None)
    assert status(folder).records_total == 58
    note_job(folder, 2 * NUM_SHARDS, None)
    assert status(folder).records_total == NUM_DOCUMENTS


def test_a_bound_far_above_what_there_is(folder):
    note_job(folder, NUM_SHARDS, 72)
    assert status(folder).records_total == NUM_DOCUMENTS


def test_a_bound_does_not_replace_a_count(tmp_path):
    note_job(tmp_path, 3, 40, is_exact=True)
    note_job(tmp_path, 3, 1000)
    assert status(tmp_path).records_total == 40
    note_job(tmp_path, 3, 30)
    assert status(tmp_path).records_total == 30, "the count was of another corpus"
    note_job(tmp_path, 3, 1000)
    note_job(tmp_path, 3, 41, is_exact=True)
    assert status(tmp_path).records_total == 41


def test_a_job_that_has_only_begun(tmp_path):
    note_job(tmp_path, 3, None)
    now = status(tmp_path)
    assert (now.not_begun, now.records_total, now.rate, now.seconds_left) == (3, None, 0, None)
    with pytest.raises(DataError, match=r"no job of cdllm preprocess has begun in .*nowhere; give the folder of"):
        status(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damage", ['{"shards": "six"}', '{"shards": -1, "records": true}', '{"shards": [6]', "[]", "\0"]
)
def test_a_damaged_note_tells_nothing(folder, tmp_path, damage):
    """Logs are no part of the data; the shards say what they know."""
    for place in (folder, tmp_path / "begun"):
        (place / "logs").mkdir(parents=True, exist_ok=True)
        (place / "logs" / "job.json").write_text(damage)
    now = status(folder)
    assert (now.done, now.num_shards, now.records_total) == ((0, 4), NUM_SHARDS, NUM_DOCUMENTS)
    with pytest.raises(DataError, match=r"no job of cdllm preprocess has begun in .*begun; give the folder of"):
        status(tmp_path / "begun")


def test_what_is_no_shard_is_passed_over(folder):
    shutil.copytree(folder / "shard_0", folder / "shard_0.bak")
    assert status(folder).done == (0, 4)
    with pytest.raises(DataError, match=r"manifest\.json is a file; give the folder of the dataset, <out>/<method>"):
        status(folder / "shard_0" / "manifest.json")


def test_a_damaged_shard_is_not_done(folder):
    (folder / "shard_4" / "manifest.json").write_text("{")
    assert status(folder).done == (0,)


def test_command(folder):
    note_job(folder, NUM_SHARDS, None)
    (folder / "logs" / "slurm.json").write_text('{"name": "n", "jobs": ["17", "18"]}')
    lines = success("preprocess", "status", folder).stdout.splitlines()
    assert lines[0] == "2 of 6 shards done, 1 at work, 2 not begun, 1 silent"
    assert lines[1] == "25 of about 60 records, 1.2/s, about 0:00:28 left"
    assert lines[2].startswith("shard 1 is at work: 5 records in 0:00:04, last heartbeat 0:00:0")
    assert lines[3].startswith("shard 2 is silent: 7 records in 0:00:04, last heartbeat 0:11:")
    assert lines[4].startswith("note: a silent task has most likely ended")
    assert lines[5] == "Slurm jobs: 17, 18"
    told = json.loads(success("preprocess", "status", folder, "--json").stdout)
    assert told["at_work"][0].keys() == {"shard", "records", "seconds", "age"}
    assert (told["shards"], told["done"], told["not_begun"], told["seconds_left"]) == (6, 2, 2, 28)
    assert "no job of cdllm preprocess has begun in" in failure("preprocess", "status", folder / "logs")


def test_many_tasks_are_not_all_listed(folder, monkeypatch):
    monkeypatch.setattr("cascaded_dllm.cli.preprocess_status._SAID", 0)
    assert success("preprocess", "status", folder).stdout.splitlines()[2:4] == ["and 1 shard more"] * 2
