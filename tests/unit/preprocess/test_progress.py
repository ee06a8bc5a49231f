"""What tasks tell while they run, read by those who start the next ones."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.data.manifest import Counts
from cascaded_dllm.preprocess import progress
from cascaded_dllm.preprocess.executors import Tasks
from cascaded_dllm.preprocess.progress import TaskLog, heartbeats, known_records, records_in_progress, write_total
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.hub import HubRows
from cascaded_dllm.text.hub_corpora import HubCorpus


@pytest.fixture(autouse=True)
def every_batch_is_told(monkeypatch):
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)


def test_what_a_task_told_stays_until_the_next_one_begins(tmp_path):
    TaskLog(tmp_path, 3).tell(717)
    (told,) = heartbeats(tmp_path, {3, 4}).items()
    assert told[0] == 3
    assert told[1].records == 717
    assert 0 <= told[1].age < 600
    assert heartbeats(tmp_path, {4}) == {}, "of other tasks"
    log = TaskLog(tmp_path, 3)
    assert heartbeats(tmp_path, {3})[3].records == 0
    log.finish(Counts(1, 1, 1))
    assert heartbeats(tmp_path, {3}) == {}


def test_tasks_that_ended_before_are_not_in_progress(tmp_path):
    TaskLog(tmp_path, 0).tell(5)
    before = heartbeats(tmp_path, {0, 1})
    TaskLog(tmp_path, 1).tell(7)
    assert records_in_progress(tmp_path, {0, 1}, before) == 7
    TaskLog(tmp_path, 0).tell(2)
    assert records_in_progress(tmp_path, {0, 1}, before) == 9


def test_starting_tasks_forgets_nothing_of_those_at_work(tmp_path):
    for index in (0, 1):
        TaskLog(tmp_path, index).tell(5)
    Tasks(lambda *_: None, tmp_path, 2, missing=[1], complete=[0]).mark()
    assert heartbeats(tmp_path, {0, 1}).keys() == {1}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"records": "many"}'])
def test_damaged_files_tell_nothing(tmp_path, content):
    TaskLog(tmp_path, 0)
    (tmp_path / "logs" / "progress" / "00000.json").write_text(content)
    assert heartbeats(tmp_path, {0}) == {}
    assert heartbeats(tmp_path / "nowhere", {0}) == {}


@pytest.mark.parametrize("damage", ["{}", '{"documents": "two", "tokens": 3, "seconds": 1}', '{"seconds": []}'])
def test_a_damaged_summary_is_not_counted(tmp_path, damage):
    counts = Counts(2, 30, 90)
    for index in (0, 1):
        TaskLog(tmp_path, index).finish(counts)
    (tmp_path / "logs" / "summaries" / "00001.json").write_text(damage)
    write_total(tmp_path, counts, 2)
    told = json.loads((tmp_path / "logs" / "summary.json").read_text())
    assert (told["documents"], told["shards_timed"]) == (2, 1)


def test_records_that_are_known_without_reading(tmp_path):
    for name, number in (("a", 3), ("b", 4)):
        pq.write_table(pa.table({"text": ["a fox"] * number}), tmp_path / f"{name}.parquet")
    corpus = open_corpus(str(tmp_path), split="train")
    assert known_records(corpus) == len(list(corpus.part(0, 1))) == 7
    assert known_records(corpus.first(5)) == 5
    assert known_records(corpus.first(50)) == 7
    assert known_records(corpus.side(3, held=True)) == len(list(corpus.side(3, held=True).part(0, 1))) == 2
    assert known_records(corpus.first(5).side(3, held=False)) == 4
    stories = open_corpus("stories", split="valid")
    assert known_records(stories) is None
    assert known_records(stories.first(5)) == 5
    assert known_records(stories.first(5).side(5, held=True)) == 1


def test_headings_are_records_that_nobody_knows_before_reading(tmp_path):
    (tmp_path / "wiki.txt").write_text("\n = A = \n\n The fox \n\n = B = \n\n = = C = = \n\n The dog \n")
    corpus = open_corpus(str(tmp_path / "wiki.txt"), split="train", form="wikitext").first(2)
    assert len(list(corpus.part(0, 1))) == 5
    assert known_records(corpus) is None
    rows = HubRows(HubCorpus("owner/name", None, text_field="text", form="wikitext"), "train", ())
    assert known_records(Corpus("wiki", rows, 2)) is None
