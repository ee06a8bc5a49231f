"""The tasks of a job on real processes and on Ray: killed anywhere, they end with the same bytes."""

import contextlib
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from cascaded_dllm.cli import preprocess_progress
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import WorkerDiedError
from cascaded_dllm.importance.tfidf import document_frequencies, save_frequencies
from cascaded_dllm.preprocess.batches import BATCH_DOCUMENTS
from cascaded_dllm.preprocess.progress import TaskLog
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.stories import story_tokenizer
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline import slow_job
from tests.pipeline.commands import failure, success
from tests.processes import cdllm, run, started

WORDS = ["fox", "key", "mill", "rain", "stone", "hare"]
SHARDS, NUM_DOCUMENTS = 3, 4 * BATCH_DOCUMENTS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches for every shard; some of the documents are empty."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("corpus") / "toy.jsonl"
    texts = (" ".join(draw.choices(WORDS, k=draw.randrange(60))) for _ in range(NUM_DOCUMENTS))
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    return path


def command(corpus: Path, out: Path, *more: object, shards: int = SHARDS) -> list[object]:
    return [
        "preprocess",
        "tfidf",
        "--dataset",
        corpus,
        "--train-tokenizer",
        300,
        "--shards",
        shards,
        "--out",
        out,
        *more,
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the logs, which tell times."""
    named = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith("logs/")}


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("unbroken")
    success(*command(corpus, out, "--workers", 1))
    counts = PreprocessedDataset.open(out / "tfidf" / "toy_train").counts
    assert counts.records == NUM_DOCUMENTS
    assert counts.dropped["empty"] > 0
    return contents(out / "tfidf" / "toy_train")


@pytest.mark.slow
def test_more_workers_than_shards_score_inside_them(corpus, expected, tmp_path):
    assert NUM_DOCUMENTS // SHARDS > BATCH_DOCUMENTS, "a single batch needs no process of its own"
    success(*command(corpus, tmp_path, "--workers", 5))
    assert contents(tmp_path / "tfidf" / "toy_train") == expected


@pytest.mark.slow
def test_what_killed_tasks_of_other_machines_left_is_removed(corpus, expected, tmp_path):
    folder = tmp_path / "tfidf" / "toy_train"
    left = folder / ".incomplete-shard_1@another-host-7-0a1b2c3d"
    left.mkdir(parents=True)
    said = success(*command(corpus, tmp_path, "--workers", 1, "--shard", 0)).stdout
    assert left.exists()
    assert "checking" not in said
    said = success(*command(corpus, tmp_path, "--workers", 2)).stdout
    assert contents(folder) == expected
    assert not left.exists()
    assert "note:" not in said, "with shards that are there, their number is settled"
    assert "checking 3 shards" in success(*command(corpus, tmp_path, "--workers", 2)).stdout


@pytest.mark.slow
def test_workers_that_would_have_nothing_to_do_are_told(corpus, tmp_path):
    said = success(*command(corpus, tmp_path, "--workers", 2)).stdout
    assert "note: the last round is 1 shard, in which 1 of 2 workers have nothing to do; a multiple of 2 in" in said


@pytest.mark.slow
def test_a_log_is_told_how_far_it_is(corpus, tmp_path, monkeypatch):
    """Once a minute where there is no terminal; here at every look."""
    monkeypatch.setattr(preprocess_progress, "_TELL_EVERY_SECONDS", 0.0)
    said = success(*command(corpus, tmp_path, "--workers", 1)).stdout
    told = re.findall(rf"^(\d) of {SHARDS} shards, ([\d,]+) of about [\d,]+ records, [\d,.]+/s", said, re.MULTILINE)
    assert told[-1] == (str(SHARDS), f"{NUM_DOCUMENTS:,}")


@pytest.mark.slow
def test_shards_one_by_one(corpus, expected, tmp_path):
    for shard in (2, 0):
        said = success(*command(corpus, tmp_path, "--workers", 1, "--shard", shard)).stdout
    assert "made 1 shard; 1 of 3 are still missing" in said
    assert "made 0 shards" in success(*command(corpus, tmp_path, "--workers", 1, "--shard", 0)).stdout
    assert f"{NUM_DOCUMENTS:,}" not in said
    said = success(*command(corpus, tmp_path, "--workers", 1)).stdout
    assert "2 of 3 shards are there, and are kept" in said
    assert contents(tmp_path / "tfidf" / "toy_train") == expected


@pytest.mark.slow
def test_shards_that_were_ended_are_told(corpus, tmp_path):
    """As those are that are too long for their time limit, time and again."""
    success(*command(corpus, tmp_path, "--workers", 1, "--shard", 0, shards=6))
    for shard in (1, 2, 3, 4, 5):
        TaskLog(tmp_path / "tfidf" / "toy_train", shard).tell(717 + shard)
    said = success(*command(corpus, tmp_path, "--workers", 1, "--shard", 2, shards=6)).stdout
    assert re.search(r"shard 2 had done 719 records in 0:00:00 when it was ended \(last heartbeat 0:0\d:\d\d ago", said)
    assert "note: if that was their time limit (--time), raise it, or start anew in another --out with more" in said
    assert "shard 1" not in said
    said = success(*command(corpus, tmp_path, "--workers", 1, shards=6)).stdout
    assert "\nshard 4 had done" in said
    assert "\nand 1 shard more\n" in said
    assert "shard 5" not in said
    assert "when it was ended" not in success(*command(corpus, tmp_path, "--workers", 1, shards=6)).stdout


@pytest.mark.slow
def test_ray_makes_the_same_bytes(corpus, expected, tmp_path):
    pytest.importorskip("ray")
    done = run(cdllm, *command(corpus, tmp_path), "--executor", "ray", "--workers", 2, "--memory-gb", 1)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "tfidf" / "toy_train") == expected


@pytest.mark.slow
def test_what_a_task_on_ray_raises_is_said(tmp_path):
    pytest.importorskip("ray")
    path = tmp_path / "toy.jsonl"
    path.write_text('{"text": "a fox"}\n{"text": 3}\n{"text": "a key"}\n')
    story_tokenizer().save(tmp_path)
    flags = ["--dataset", path, "--tokenizer", tmp_path, "--shards", 3, "--out", tmp_path, "--executor", "ray"]
    done = run(cdllm, "preprocess", "random", *flags, "--memory-gb", 1)
    assert done.returncode == 2
    assert "line 2 has a int in the field 'text', not a string" in done.stderr


@pytest.mark.slow
def test_ray_without_room_for_a_task(corpus, tmp_path):
    pytest.importorskip("ray")
    done = run(cdllm, *command(corpus, tmp_path), "--executor", "ray", "--gpus", 99)
    assert done.returncode == 2
    assert "a task asks for GPU 99, and all of the Ray cluster has" in done.stderr


def test_ray_cluster_that_is_not_there(corpus, tmp_path):
    pytest.importorskip("ray")
    arguments = [*command(corpus, tmp_path), "--executor", "ray", "--ray-address"]
    assert "no Ray cluster answers at 127.0.0.1:9 (" in failure(*arguments, "127.0.0.1:9")
    assert "--ray-address 'nowhere' is not an address; write host:port" in failure(*arguments, "nowhere")


@pytest.fixture(scope="module")
def slow_arguments(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("slow")
    texts = [document.text for document in slow_job.SlowStories(0.0).records(slow_part())]
    Tokenizer.train(texts, 280).save(folder)
    documents = Corpus.from_documents("slow", [Document(str(i), text) for i, text in enumerate(texts)])
    save_frequencies(document_frequencies(documents.documents()), folder / "counts.json")
    return [folder / "tokenizer.json", folder / "counts.json"]


def slow_part():
    from cascaded_dllm.text.document import Part

    return Part()


def processes_of(session: int) -> list[int]:
    """The living processes of a session, by the kernel's own list."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@pytest.mark.slow
@needs_proc
def test_killed_twenty_times(slow_arguments, tmp_path):
    expected = contents(slow_job.run(tmp_path / "unbroken", *slow_arguments, 0.0, 1))
    draw = random.Random(1)
    folder = tmp_path / "killed" / "tfidf" / "slow_train"
    killed = interrupted = 0
    while killed < 20:
        before = set(folder.glob(".incomplete*"))
        arguments = (tmp_path / "killed", *slow_arguments, 0.003, 2)
        with started(slow_job.run_forking, *arguments, leads_session=True) as process:
            while not set(folder.glob(".incomplete*")) - before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.uniform(0.0, 0.4))
            if process.poll() is None:
                # The command, or one of its workers, or all at once.
                victims = processes_of(process.pid)
                for pid in draw.choice([[process.pid], [draw.choice(victims)], victims]):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                killed += 1
            process.wait()
            wait_until(lambda session=process.pid: not processes_of(session))
        interrupted += bool(list(folder.glob(".incomplete*")))
        if len(list(folder.glob("shard_*"))) == slow_job.NUM_SHARDS:
            # It came to its end: some of it gets lost.
            for index in draw.sample(range(slow_job.NUM_SHARDS), 6):
                shutil.rmtree(folder / f"shard_{index}")
    assert interrupted >= 15, "the kills must hit shards that are being written"
    slow_job.run(tmp_path / "killed", *slow_arguments, 0.0, 2)
    assert contents(folder) == expected


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_is_said_and_the_rest_is_made_later(slow_arguments, tmp_path):
    folder = tmp_path / "tfidf" / "slow_train"
    with started(slow_job.run, tmp_path, *slow_arguments, 0.01, 2, leads_session=True) as process:
        wait_until(lambda: list(folder.glob("shard_*")))
        workers = [pid for pid in processes_of(process.pid) if "spawn_main" in command_line(pid)]
        os.kill(max(workers), signal.SIGKILL)
        ended = process.wait()
        wait_until(lambda: not processes_of(process.pid))
    assert ended.returncode == 1
    assert f"{WorkerDiedError.__name__}: a process that makes a shard was killed" in ended.stderr
    assert "run the same command again, with fewer --workers" in ended.stderr
    slow_job.run(tmp_path, *slow_arguments, 0.0, 2)
    assert PreprocessedDataset.open(folder).counts.documents == 1000


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
