"""A sampling run on disk: the files of the contract, grown by whole batches, each whole or absent."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cascaded_dllm.errors import ConfigError, DataError, OutputError
from cascaded_dllm.sample.drawing import Drawing
from cascaded_dllm.sample.output import SampleRun, require_writable, write_samples
from cascaded_dllm.sample.progress import Progress
from cascaded_dllm.sample.samples import CascadeSamples
from cascaded_dllm.sample.settings import RunSettings, SampleSettings
from cascaded_dllm.text.listing import SEPARATOR

SAMPLES = CascadeSamples(
    ids=(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6, 7], [8, 9, 10]])),
    texts=(["short", "nächst"], ["longer text", "two\nlines"]),
    nfe=(2.0, 2.5),
    token_forwards=23,
    first_stage=1,
    final_texts=["longer text", "two\nlines"],
)
TEXTS = SampleSettings(
    drawing=Drawing(seed=1, predictor=("euler",), steps=(8,)),
    stage_paths=("runs/a", "runs/b"),
    stage_lengths=(2, 3),
    weights_fingerprints=("aa", "bb"),
    tokenizer_fingerprint="cc",
    weights="raw",
)
SETTINGS = RunSettings(num_samples=4, batch_size=2, device="auto", judge=None, texts=TEXTS)
DRAWING_STORED: dict[str, Any] = {
    "predictor": ["euler"],
    "steps": [8],
    "tokens_per_call": [None],
    "eta": None,
    "gaps_per_call": None,
    "law": {"temperature": 1.0, "top_k": None, "top_p": 1.0},
    "seed": 1,
    "guidance": 0.0,
    "prefix_noise": 0.0,
    "control": {"keywords": [], "outline": None, "pins": [], "given": None, "require_coverage": False},
}
LOADING_STORED: dict[str, Any] = {
    "stage_paths": ["runs/a", "runs/b"],
    "stage_lengths": [2, 3],
    "weights_fingerprints": ["aa", "bb"],
    "tokenizer_fingerprint": "cc",
    "lengths": None,
    "tokenizer": None,
    "weights": "raw",
    "dtype": "float32",
    "compile": False,
    "cascade": None,
    "ranking": None,
}
TEXTS_STORED = DRAWING_STORED | LOADING_STORED
FOR_READERS = ["sample_stage1.txt", "sample_stage2.txt", "samples.jsonl", "settings.json", "summary.json"]
UNFINISHED = ["batches.jsonl", "samples.jsonl", "settings.json"]


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begun(tmp_path: Path, num_batches: int = 0, **changes: Any) -> SampleRun:
    """A run of which so many batches of two texts are there."""
    run = SampleRun.begin(tmp_path, replace(SETTINGS, **changes))
    for number in range(num_batches):
        run.append(2 * number, SAMPLES, seconds=0.5, device="cpu")
    return run


def concluded(run: SampleRun) -> dict[str, Any]:
    """The summary, once the files for readers are written."""
    run.conclude(run.samples(), run.progress(), {"figures": {"a": 1.0}})
    return json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))


def test_begin(tmp_path: Path) -> None:
    run = begun(tmp_path / "new")
    assert left_behind(run.folder) == UNFINISHED
    assert left_behind(tmp_path / "new") == [run.folder.name]
    assert json.loads((run.folder / "settings.json").read_text()) == {
        "format": "cascaded-dllm-samples/1",
        "num_samples": 4,
        "batch_size": 2,
        "device": "auto",
        "judge": None,
        "texts": {"drawing": DRAWING_STORED, **LOADING_STORED},
    }
    assert SampleRun.open(run.folder) == run
    assert run.progress() == Progress()
    assert (run.summary(), run.is_complete()) == ({}, False)


def test_files(tmp_path: Path) -> None:
    run = begun(tmp_path, 2)
    assert left_behind(run.folder) == UNFINISHED
    summary = concluded(run)
    assert left_behind(run.folder) == FOR_READERS
    first = (run.folder / "sample_stage1.txt").read_text(encoding="utf-8")
    assert first == f"short\n{'=' * 80}\nnächst\n{'=' * 80}\n" * 2
    second = (run.folder / "sample_stage2.txt").read_text(encoding="utf-8")
    assert second.split(f"\n{SEPARATOR}\n") == ["longer text", "two\nlines"] * 2 + [""]
    assert '"text": "nächst"' in (run.folder / "samples.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (run.folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {
            "sample": i,
            "settings": TEXTS_STORED,
            "stages": [
                {
                    "stage": k + 1,
                    "ids": SAMPLES.ids[k][i % 2].tolist(),
                    "written_by": [k + 1] * (k + 2),
                    "text": SAMPLES.texts[k][i % 2],
                }
                for k in range(2)
            ],
        }
        for i in range(4)
    ]
    assert summary == {
        "complete": True,
        "num_samples": 4,
        "num_finished": 4,
        **TEXTS_STORED,
        "device": "cpu",
        "seconds": 1.0,
        "figures": {"a": 1.0},
        "nfe_per_stage": [2.0, 2.5],
        "token_forwards": 46,
    }
    assert run.is_complete()
    run.change_summary(figures={"b": 2})
    assert run.summary() == summary | {"figures": {"b": 2}}


@pytest.mark.parametrize("num_batches", [0, 1])
def test_files_of_a_run_that_was_stopped(tmp_path: Path, num_batches: int) -> None:
    """Readers can tell it from a complete one, and it can go on."""
    run = begun(tmp_path, num_batches)
    summary = concluded(run)
    assert [summary[key] for key in ("complete", "num_samples", "num_finished")] == [False, 4, 2 * num_batches]
    assert left_behind(run.folder) == sorted({*UNFINISHED, *FOR_READERS})
    assert not run.is_complete()
    assert Progress.take_up(run.folder) == run.progress()
    assert run.samples().ids[1].shape == (2 * num_batches, 3)


def test_of_a_stage_that_was_drawn_twice(tmp_path: Path) -> None:
    """Counts and seconds add up; every device is named once."""
    run = begun(tmp_path, 1)
    run.append(2, SAMPLES, seconds=1.0, device="cuda:0")
    progress = run.progress()
    assert (progress.num_finished, progress.calls_per_stage, progress.token_forwards) == (4, (8, 10), 46)
    assert (progress.seconds, progress.devices) == (1.5, ("cpu", "cuda:0"))


@pytest.mark.parametrize("torn", ["samples", "half a batch", "batches"])
def test_what_a_killed_process_has_half_written(tmp_path: Path, torn: str) -> None:
    run = begun(tmp_path, 2)
    whole = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    first = whole["samples.jsonl"].splitlines(keepends=True)
    kept = {"samples.jsonl": b"".join(first[:2]), "batches.jsonl": whole["batches.jsonl"].splitlines(keepends=True)[0]}
    match torn:
        case "samples":  # killed within a line, the second batch not being counted
            wrote = {"samples.jsonl": whole["samples.jsonl"][:-9], "batches.jsonl": kept["batches.jsonl"]}
        case "half a batch":  # between two lines
            wrote = {"samples.jsonl": b"".join(first[:3]), "batches.jsonl": kept["batches.jsonl"]}
        case _:  # within the line that counts it
            wrote = {"samples.jsonl": whole["samples.jsonl"], "batches.jsonl": whole["batches.jsonl"][:-4]}
    for name, content in wrote.items():
        (run.folder / name).write_bytes(content)
    assert Progress.take_up(run.folder).num_finished == 2
    assert {name: (run.folder / name).read_bytes() for name in kept} == kept
    run.append(2, SAMPLES, seconds=0.5, device="cpu")
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == whole


def test_folder_is_named_after_steps_length_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a grid after its network calls, one a token of every stage; by a number if the name is taken."""
    assert re.fullmatch(r"sample_cascade_steps_8_len_3_\d{8}_\d{6}", begun(tmp_path).folder.name)
    monkeypatch.setattr("time.strftime", lambda _: "20260101_000000")
    hitting = replace(TEXTS, drawing=Drawing(), stage_lengths=(8, 16, 40))
    names = [begun(tmp_path, texts=hitting).folder.name for _ in range(3)]
    assert names == [f"sample_cascade_calls_64_len_40_20260101_000000{end}" for end in ("", "_2", "_3")]


def test_name_that_another_run_takes_at_this_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "20260101_000000")
    taken = tmp_path / "sample_cascade_steps_8_len_3_20260101_000000"
    encode = RunSettings.to_json

    def with_rival(settings: RunSettings) -> str:
        taken.mkdir(exist_ok=True)
        (taken / "kept.txt").touch()
        return encode(settings)

    monkeypatch.setattr(RunSettings, "to_json", with_rival)
    assert begun(tmp_path).folder.name == "sample_cascade_steps_8_len_3_20260101_000000_2"
    assert left_behind(taken) == ["kept.txt"]


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputError, match="file is a file; name a folder for the samples with --output-dir"):
        require_writable(file)
    with pytest.raises(OutputError, match=r"file/a/b cannot be written \(Not a directory\); use --output-dir to name"):
        require_writable(file / "a" / "b")
    with pytest.raises(OutputError, match=r"file/sample_cascade\S+ cannot be written \(Not a directory\)"):
        begun(file)
    assert file.read_text() == "x"


def test_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out by trying, since the owner of everything may write where others may not."""
    require_writable(tmp_path / "new" / "one")
    assert left_behind(tmp_path) == []

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.mkdir", refused)
    with pytest.raises(OutputError, match=r"one cannot be written \(Permission denied\); use --output-dir to name"):
        require_writable(tmp_path / "new" / "one")


def test_full_disk_while_a_batch_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path, 1)
    (run.folder / "samples.jsonl").rename(run.folder / "elsewhere")
    message = (
        r"samples\.jsonl cannot be written \(No such file .*\); what is finished is kept: make room, and go on with"
    )
    with pytest.raises(OutputError, match=rf"{message} cdllm sample --resume {run.folder}"):
        run.append(2, SAMPLES, seconds=0.5, device="cpu")
    (run.folder / "elsewhere").rename(run.folder / "samples.jsonl")
    assert run.progress().num_finished == 2

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.truncate", refused)
    with pytest.raises(OutputError, match=r"samples\.jsonl cannot be written \(Permission denied\); make sure"):
        Progress.take_up(run.folder)


def test_two_processes(tmp_path: Path) -> None:
    run = begun(tmp_path)
    with (
        run.lock(),
        pytest.raises(OutputError, match=r"is going on: .* or stop it, or sample into a new folder\. If you are sure"),
        run.lock(),
    ):
        pass
    assert left_behind(run.folder) == UNFINISHED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("batches.jsonl", None, r"batches\.jsonl is missing, and nothing else says which texts are complete"),
        ("batches.jsonl", b"{\n", r"batches\.jsonl is damaged \(Expecting property name"),
        ("batches.jsonl", b"[1]\n", r"batches\.jsonl is damaged \(there is a list\); restore it"),
        ("batches.jsonl", b"{}\n", r"batches\.jsonl is damaged \(KeyError\('calls_per_stage'\)\); restore it"),
        ("samples.jsonl", b"", r"samples\.jsonl has 0 bytes of \d+ that were written: texts were lost; restore the"),
        ("samples.jsonl", None, r"samples\.jsonl has 0 bytes of \d+ that were written"),
    ],
)
def test_damage(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    run = begun(tmp_path, 1)
    (run.folder / name).unlink()
    if content is not None:
        (run.folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Progress.take_up(run.folder)


def test_texts_of_another_run(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.append(5, SAMPLES, seconds=0.5, device="cpu")
    with pytest.raises(
        DataError, match=r"samples\.jsonl holds the texts \[5, 6\]\.\.\., and those from 0 on were written"
    ):
        run.samples()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", r"it has no settings\.json; give"), ("nowhere", "it does not exist; give")],
)
def test_folder_of_something_else(tmp_path: Path, name: str, reason: str) -> None:
    folder = tmp_path / name
    with pytest.raises(ConfigError, match=f"{re.escape(str(folder))} is not the folder of a sampling run: {reason}"):
        SampleRun.open(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "pop"),
        ("{}", "'format'"),
        ('{"format": "cascaded-dllm-samples/9", "texts": {}}', "'format'"),
        ('{"format": "cascaded-dllm-samples/1", "texts": {"seed": 1}}', "drawing"),
        ('{"format": "cascaded-dllm-samples/1", "texts": 3}', "not iterable"),
    ],
)
def test_settings_that_are_damaged(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(DataError, match=rf"settings\.json is damaged, or was written by another version \(.*{reason}"):
        SampleRun.open(tmp_path)


def test_summary_that_is_damaged(tmp_path: Path) -> None:
    run = begun(tmp_path)
    (run.folder / "summary.json").write_text('{"complete"')
    with pytest.raises(DataError, match=r"summary\.json is damaged \(.*; restore it, or sample into a new folder"):
        run.is_complete()


def test_texts_that_are_all_there(tmp_path: Path) -> None:
    folder = write_samples(tmp_path, SAMPLES, replace(SETTINGS, num_samples=2, device="cpu"), {}, seconds=8.0)
    assert left_behind(folder) == FOR_READERS
    summary = json.loads((folder / "summary.json").read_text())
    assert [summary[key] for key in ("complete", "seconds", "device", "token_forwards")] == [True, 8, "cpu", 23]
