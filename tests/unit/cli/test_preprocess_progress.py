"""How far the shards of a job are, as it is told where there is no terminal."""

import re
from types import SimpleNamespace

import pytest

from cascaded_dllm.cli import preprocess_progress
from cascaded_dllm.cli.preprocess_progress import (
    preparation_progress,
    progress_line,
    say_ended_tasks,
    shards_progress,
)
from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.preprocess.executors import Tasks
from cascaded_dllm.preprocess.progress import TaskLog


@pytest.fixture
def opened(monkeypatch):
    """The shards that were opened; each holds 10 documents."""
    names = []

    def open_shard(folder):
        names.append(folder.name)
        return SimpleNamespace(counts=Counts(10, 0))

    monkeypatch.setattr(preprocess_progress.Shard, "open", open_shard)
    monkeypatch.setattr(preprocess_progress, "_TELL_EVERY_SECONDS", 0.0)
    return names


def tasks(tmp_path, missing=(0, 1, 3)):
    return Tasks(lambda *_: None, tmp_path, 4, missing, [])


def without_times(said):
    return re.sub(r"[\d,.]+/s", "R/s", re.sub(r"\d+:\d\d:\d\d", "TIME", said)).splitlines()


def test_the_total_is_told_as_soon_as_a_shard_is_there(tmp_path, opened, capsys):
    with shards_progress(tasks(tmp_path), None) as tell:
        tell([], 0)
        tell([], 4)
        tell([3], 5)
        tell([0, 1], 5)
    assert without_times(capsys.readouterr().out) == [
        "0 of 3 shards, 0 records so far, R/s",
        "0 of 3 shards, 4 records so far, R/s",
        "1 of 3 shards, 15 of about 30 records, R/s, about TIME left",
        "3 of 3 shards, 30 of about 30 records, R/s, about TIME left",
    ]
    assert opened == ["shard_3", "shard_0", "shard_1"], "each once"


@pytest.mark.parametrize(("records", "at_first", "later"), [(39, 29, 29), (4000, 3000, 30)])
def test_the_records_of_the_corpus_tell_the_total_at_once(tmp_path, opened, capsys, records, at_first, later):
    """Of 39 records, shard 3 of 4 has 9; and a bound that is far too high is corrected by what is found."""
    with shards_progress(tasks(tmp_path), records) as tell:
        tell([], 4)
        tell([1], 0)
    first, second = without_times(capsys.readouterr().out)
    assert f"4 of about {at_first:,} records" in first
    assert f"10 of about {later:,} records" in second


def test_passes_before_the_first_shard(monkeypatch, capsys):
    monkeypatch.setattr(preprocess_progress, "_TELL_EVERY_SECONDS", 5.0)
    clock = [0.0]
    monkeypatch.setattr(preprocess_progress.time, "monotonic", lambda: clock[0])
    training, counting = ("training the tokenizer", 1000), ("counting words", None)
    with preparation_progress() as tell:
        for seconds, (what, total), done in (
            (10.0, training, 0),
            (14.0, training, 40),
            (20.0, training, 100),
            (30.0, counting, 0),
            (36.0, counting, 60),
        ):
            clock[0] = seconds
            tell(what, done, total)
    assert capsys.readouterr().out.splitlines() == [
        "training the tokenizer: 100 of about 1,000 records, 10/s, about 0:01:30 left",
        "counting words: 60 records so far, 10/s",
    ]


@pytest.mark.parametrize("has_time_limit", [False, True])
def test_a_time_limit_is_blamed_only_where_there_is_one(tmp_path, capsys, has_time_limit):
    TaskLog(tmp_path, 3)
    say_ended_tasks(tasks(tmp_path), has_time_limit=has_time_limit)
    said = capsys.readouterr().out
    assert ("time limit (--time), raise it, or start anew in another --out with more --shards than 4;" in said) is (
        has_time_limit
    )
    assert "if another job is still working on them, end this one" in said


def test_time_that_remains():
    assert progress_line(100, 700, 0.5) == "100 of about 700 records, 0.5/s, about 0:20:00 left"
    assert progress_line(0, 700, 0.0) == "0 of about 700 records, 0.0/s"
