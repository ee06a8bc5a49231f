"""A disk that is too small: said as such, nothing half-written, and the same command completes once there is room."""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import OutputError
from cascaded_dllm.model.integrity import newest_complete
from cascaded_dllm.train.metrics_file import forget_after
from cascaded_dllm.train.run_log import LogChoice, open_log
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success
from tests.processes import run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system of 180 KiB, and the function that gives it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=180k", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted ({done.stderr.strip() if done else 'needs root'})")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_while_a_checkpoint_is_written(disk, stories):
    """Of a run whose checkpoints take a sixth of a MiB each; the one before stands, and the run goes on from it."""
    folder, resize = disk
    resize("600k")
    changes = ["training.num_steps=12", "training.snapshot_every=2", "training.keep=9", "sampling.num_samples=0"]
    arguments = ["train", "--data", stories, "--out", folder / "run", *tiny.OVERRIDES, *changes]
    message = failure(*arguments)
    assert re.search(r"/run/.* cannot be written \(No space left on device\); choose", message)
    checkpoints = folder / "run" / "checkpoints"
    newest, faults = newest_complete(checkpoints)
    assert newest is not None
    assert faults == []
    assert newest == (checkpoints / "latest").resolve()
    assert not list(checkpoints.glob(".incomplete*"))
    resize("50m")
    assert f"resumed at step {newest.name.removeprefix('step_')}" in success(*arguments).stdout
    assert (checkpoints / "latest").resolve().name == "step_12"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk(disk, tmp_path, workers):
    folder, resize = disk
    corpus = tmp_path / "numbers.jsonl"
    texts = (" ".join(str(k * k * 7919 % 1000003) for k in range(i, i + 300)) for i in range(200))
    corpus.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    arguments = ["preprocess", "random", "--dataset", corpus, "--train-tokenizer", 300, "--shards", 3]
    arguments += ["--workers", workers, "--out", folder / "data"]
    assert re.search(
        r"(shard_\d|logs\S*) cannot be written \(.*No space left on device\); choose an output", failure(*arguments)
    )
    dataset = folder / "data" / "random" / "numbers_train"
    assert not (dataset / "manifest.json").exists()
    resize("50m")
    success(*arguments)
    assert PreprocessedDataset.open(dataset).counts.documents == 200
    assert not list(dataset.glob(".incomplete*"))


def test_full_disk_while_texts_are_drawn(disk, runs, tmp_path):
    """What is finished is kept, and once there is room the run ends with the bytes of one that had it all the time."""
    folder, resize = disk
    arguments = ["sample", "--stage", runs / "stage1", "--num-samples", 400, "--batch-size", 40, "--device", "cpu"]
    message = failure(*arguments, "--output-dir", folder / "out")
    (run,) = (folder / "out").iterdir()
    expected = (
        rf"cannot be written \(No space left on device\); .*make room, and go on with cdllm sample --resume {run}"
    )
    assert re.search(expected, message)
    kept = (run / "batches.jsonl").read_bytes().count(b"\n")
    assert 0 < kept < 10
    resize("50m")
    assert f"400 texts, of which {40 * kept} are there," in success("sample", "--resume", run).stdout
    success(*arguments, "--output-dir", tmp_path / "out")
    (whole,) = (tmp_path / "out").iterdir()
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in whole.iterdir())
    for name in ("samples.jsonl", "sample_stage1.txt", "settings.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_full_disk_at_a_line_of_metrics(disk):
    """It is dropped when the run goes on."""
    folder, resize = disk
    with open_log(folder, LogChoice(), config={}, step=0) as log:
        log.metrics({"step": 1})
        (folder / "filler").write_bytes(b"x" * (180 * 1024 - 4096))
        long = {"step": 2, "texts": "y" * 20_000}
        with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written \(No space left .*; make room"):
            log.metrics(long)
        (folder / "filler").unlink()
    resize("50m")
    forget_after(folder, 1)
    assert (folder / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("viewer", "choice", "package"),
    [("wandb=offline", "wandb=disabled", "wandb"), ("tensorboard=true", "tensorboard=false", "tensorboard")],
)
def test_full_disk_at_a_viewer(disk, viewer, choice, package):
    """One line about the viewer, of which nothing else is printed, and not the error of closing it."""
    pytest.importorskip(package)
    folder, resize = disk
    resize("2m")
    done = run(fill_up_in_the_log, folder, viewer, environment={**os.environ, "HOME": str(folder.parent)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(
        rf"{folder}/{package} cannot be written \(No space left on device\); make room, or go on without the viewer "
        rf"\(logging\.{choice}\), and give the same command again\n",
        done.stdout,
    )


def fill_up_in_the_log(folder: Path, viewer: str) -> None:
    """In a process, for W&B leaves much behind: the error of a log whose disk is filled up while it is open."""
    choice = LogChoice(wandb="offline") if "wandb" in viewer else LogChoice(tensorboard=True)
    try:
        with open_log(folder, choice, config={}, step=0) as log:
            log.metrics({"step": 1, "loss": 0.5})
            with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(b"x" * 512):
                    pass
            for step in range(2, 100):
                log.texts(step, "samples", ["a long text" * 1000])
    except OutputError as error:
        print(error)
