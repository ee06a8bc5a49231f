"""A sampling run on disk: the files of the contract, whole or absent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cascaded_dllm.errors import OutputExistsError
from cascaded_dllm.sample.cascade import CascadeSamples
from cascaded_dllm.sample.output import SampleSettings, run_folder, write_samples
from cascaded_dllm.text.listing import SEPARATOR

SAMPLES = CascadeSamples(
    ids=(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6, 7], [8, 9, 10]])),
    texts=(["short", "nächst"], ["longer text", "two\nlines"]),
    nfe=(2.0, 2.5),
    token_forwards=23,
)
SETTINGS = SampleSettings(
    seed=1, predictor="euler", num_steps=8, stage_paths=("runs/a", "runs/b"), stage_lengths=(2, 3), weights="raw"
)
SETTINGS_STORED: dict[str, Any] = {
    "seed": 1,
    "predictor": "euler",
    "num_steps": 8,
    "stage_paths": ["runs/a", "runs/b"],
    "stage_lengths": [2, 3],
    "weights": "raw",
    "dtype": "float32",
    "guidance": 0.0,
    "prefix_noise": 0.0,
}
SUMMARY: dict[str, Any] = {"seconds": 8}


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "samples" / "run"
    write_samples(folder, SAMPLES, SETTINGS, SUMMARY)
    assert left_behind(folder) == ["sample_stage1.txt", "sample_stage2.txt", "samples.jsonl", "summary.json"]
    assert left_behind(folder.parent) == ["run"]
    first = (folder / "sample_stage1.txt").read_text(encoding="utf-8")
    assert first == f"short\n{'=' * 80}\nnächst\n{'=' * 80}\n"
    second = (folder / "sample_stage2.txt").read_text(encoding="utf-8")
    assert second.split(f"\n{SEPARATOR}\n") == ["longer text", "two\nlines", ""]
    assert '"text": "nächst"' in (folder / "samples.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {
            "sample": i,
            "settings": SETTINGS_STORED,
            "stages": [
                {"stage": k + 1, "ids": SAMPLES.ids[k][i].tolist(), "text": SAMPLES.texts[k][i]} for k in range(2)
            ],
        }
        for i in range(2)
    ]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary == {**SETTINGS_STORED, "seconds": 8, "nfe_per_stage": [2.0, 2.5], "token_forwards": 23}


def test_folder_is_named_after_steps_length_and_time(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "new", num_steps=16, stage_lengths=(8, 40))
    assert folder.parent == tmp_path / "new"
    assert re.fullmatch(r"sample_cascade_steps_16_len_40_\d{8}_\d{6}", folder.name)
    assert not folder.parent.exists()


def test_folder_of_a_run_without_steps_is_named_after_its_network_calls(tmp_path: Path) -> None:
    """One a token of every stage, which is what first hitting makes (tests/unit/sample/test_cascade.py counts them)."""
    folder = run_folder(tmp_path, num_steps=None, stage_lengths=(8, 16, 40))
    assert re.fullmatch(r"sample_cascade_steps_64_len_40_\d{8}_\d{6}", folder.name)


def test_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20260101_000000")
    folder = run_folder(tmp_path, num_steps=1, stage_lengths=(1, 2))
    assert folder.name == "sample_cascade_steps_1_len_2_20260101_000000"
    folder.mkdir()
    folder = run_folder(tmp_path, num_steps=1, stage_lengths=(1, 2))
    assert folder.name == "sample_cascade_steps_1_len_2_20260101_000000_2"


def test_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    """Another run may have taken the name since it was chosen; neither of the two is lost without a word."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="run exists already and is not overwritten; name another folder"):
        write_samples(folder, SAMPLES, SETTINGS, SUMMARY)
    assert left_behind(folder) == ["kept.txt"]
    assert left_behind(tmp_path) == ["run"]


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputExistsError, match="file is a file; name a folder for the samples with --output-dir"):
        run_folder(file, num_steps=1, stage_lengths=(1, 2))
    with pytest.raises(OutputExistsError, match=r"file/run cannot be written \(Not a directory\)"):
        write_samples(file / "run", SAMPLES, SETTINGS, SUMMARY)
    assert file.read_text() == "x"


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_samples(tmp_path / "run", SAMPLES, SETTINGS, {"seconds": torch.ones(1)})
    assert left_behind(tmp_path) == []

    def full_disk(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OutputExistsError, match="No space left on device"):
        write_samples(tmp_path / "run", SAMPLES, SETTINGS, SUMMARY)
    assert left_behind(tmp_path) == []
