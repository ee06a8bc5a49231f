"""The commands one after another, as a user types them, on 60 stories; then every file that was promised."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.model.pretrained import load_stage
from tests.pipeline import tiny
from tests.pipeline.commands import success

SEPARATOR = "=" * 80


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def data(place, tokenizer):
    tokenizer.save(place / "tokenizer")
    arguments = ["constituency", "--dataset", "stories", "--tagger", "stories", "--tokenizer", place / "tokenizer"]
    for split, num in (("train", 60), ("valid", 12)):
        result = success(
            "preprocess", *arguments, "--split", split, "--num-documents", num, "--out", place / "data", "--shards", 2
        )
        assert f"{num} documents, " in result.stdout
        assert f"in {place / 'data' / 'constituency' / f'stories_{split}'}" in result.stdout
    return place / "data" / "constituency"


@pytest.fixture(scope="module")
def trained(place, data):
    """Stages 1, 2, 3 and the flat model."""
    common = ["train", "--data", data / "stories_train", "--valid", data / "stories_valid", "--lengths", "4,8,40"]
    folders = []
    for name, flags in [*((f"stage{k}", ["--stage", k]) for k in (1, 2, 3)), ("flat", ["--flat"])]:
        folders.append(place / "runs" / name)
        result = success(
            *common, *flags, "--out", folders[-1], "--device", "cpu", "--model", "tiny", *tiny.OVERRIDES[2:]
        )
        assert "bound" in result.stdout
        assert f"run folder: {folders[-1]}" in result.stdout
    return folders


def test_preprocessed_data(data):
    dataset = PreprocessedDataset.open(data / "stories_train")
    assert dataset.counts.documents == 60
    assert sorted(path.name for path in (data / "stories_train").iterdir()) == [
        "logs",
        "manifest.json",
        "shard_0",
        "shard_1",
        "tokenizer.json",
    ]


def test_run_folders(trained):
    for number, folder in enumerate(trained, start=1):
        assert {path.name for path in folder.iterdir()} == {"config.yaml", "metrics.jsonl", "samples", "checkpoints"}
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["stage_lengths"] == [4, 8, 40]
        assert (config["stage"], config["baseline"]) == ((number, False) if number < 4 else (1, True))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 2]
        assert lines[1].keys() == {"step", "loss_nats_per_token", "grad_norm", "lr", "tokens", "seconds"}
        assert lines[2].keys() >= {"step", "bound_nats_per_token", "standard_error", "num_windows"}
        assert (folder / "samples" / "step_2.txt").read_text().endswith(f"\n{SEPARATOR}\n")
        assert (folder / "checkpoints" / "latest").resolve() == folder / "checkpoints" / "step_2"
        assert {path.name for path in (folder / "checkpoints" / "step_2").iterdir()} == {
            "model.safetensors",
            "ema.safetensors",
            "config.json",
            "tokenizer.json",
            "trainer.pt",
            "checksums.json",
        }
        settings = load_stage(folder).settings
        assert (settings.stage, settings.step) == (number % 4, 2)


def sampled(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_sampling_a_cascade(trained, tmp_path):
    stages = [argument for folder in trained[:3] for argument in ("--stage", folder)]
    result = success(
        "sample", *stages, "--num-samples", 5, "--steps", 3, "--predictor", "euler", "--output-dir", tmp_path
    )
    folder = sampled(tmp_path)
    assert re.fullmatch(r"sample_cascade_steps_3_len_40_\d{8}_\d{6}", folder.name)
    assert f"5 texts in {folder}" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "sample_stage1.txt",
        "sample_stage2.txt",
        "sample_stage3.txt",
        "samples.jsonl",
        "summary.json",
    ]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["sample"] for sample in samples] == [0, 1, 2, 3, 4]
    for number, length in enumerate((4, 8, 40), start=1):
        texts = (folder / f"sample_stage{number}.txt").read_text().split(f"\n{SEPARATOR}\n")
        assert texts.pop() == ""
        assert texts == [sample["stages"][number - 1]["text"] for sample in samples]
        assert {len(sample["stages"][number - 1]["ids"]) for sample in samples} == {length}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["stages"] == [str(folder) for folder in trained[:3]]
    assert summary["stage_lengths"] == [4, 8, 40]
    chosen = {key: summary[key] for key in ("num_samples", "steps", "predictor", "seed", "weights", "device")}
    assert chosen == {
        "num_samples": 5,
        "steps": 3,
        "predictor": "euler",
        "seed": 0,
        "weights": "ema",
        "device": summary["device"],
    }
    assert len(summary["nfe_per_stage"]) == 3
    assert summary["token_forwards"] > 0


def test_samples_do_not_depend_on_the_batch(trained, tmp_path):
    texts = []
    for name, flags in [("a", ["--batch-size", 1]), ("b", ["--batch-size", 4]), ("c", ["--seed", 1])]:
        success(
            "sample",
            "--stage",
            trained[0],
            "--num-samples",
            4,
            "--device",
            "cpu",
            "--output-dir",
            tmp_path / name,
            *flags,
        )
        texts.append((sampled(tmp_path / name) / "samples.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_sampling_a_flat_model_and_one_checkpoint(trained, tmp_path, weights):
    checkpoint = trained[3] / "checkpoints" / "step_2"
    success("sample", "--stage", checkpoint, "--num-samples", 1, "--weights", weights, "--output-dir", tmp_path)
    assert json.loads((sampled(tmp_path) / "summary.json").read_text())["weights"] == weights


def test_likelihood_of_cascade_and_flat_model(trained, data, tmp_path):
    common = ["--data", data / "stories_valid", "--packing", "document", "--num-windows", 6, "--num-times", 2]
    stages = [argument for folder in trained[:3] for argument in ("--stage", folder)]
    result = success("evaluate", "likelihood", *stages, *common, "--out", tmp_path / "cascade.json")
    summary = json.loads((tmp_path / "cascade.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == [1, 2, 3]
    total = sum(stage["bound_nats_per_window"] for stage in summary["stages"])
    assert summary["bound_nats_per_window"] == pytest.approx(total, rel=1e-9)
    assert (summary["num_windows"], summary["length"]) == (6, 40)
    assert "written to" in result.stdout
    assert "joint" in result.stdout
    # Without --out the numbers follow on the terminal.
    result = success("evaluate", "likelihood", "--stage", trained[3], *common)
    flat = json.loads(result.stdout[result.stdout.index("{") :])
    assert len(flat["stages"]) == 1
    # Two steps of training: about log V for each of 40 tokens.
    assert 40 * 5 < flat["bound_nats_per_window"] < 40 * 8


def test_going_on_with_a_run(trained, data):
    """The same command again finds nothing left to do."""
    flags = ["--data", data / "stories_train", "--valid", data / "stories_valid", "--stage", 1, "--out", trained[0]]
    result = success("train", *flags, *tiny.OVERRIDES)
    assert "stage 1: resumed at step 2" in result.stdout


def test_preprocessing_again_changes_nothing(place, data):
    before = {path: path.stat().st_mtime_ns for path in data.glob("stories_valid/shard_*/*")}
    success(
        "preprocess", "constituency", "--dataset", "stories", "--tagger", "stories", "--split", "valid", "--shards", 2,
        "--tokenizer", place / "tokenizer", "--num-documents", 12, "--out", place / "data",
    )  # fmt: skip
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("unit", ["line", "file"])
def test_own_text_with_a_tokenizer_of_its_own(tmp_path, unit):
    path = tmp_path / "My notes.txt"
    path.write_text("The fox found a key.\nThe key opened nothing.\n\nThen it rained.\n")
    result = success(
        "preprocess", "tfidf", "--dataset", path, "--train-tokenizer", 300, "--unit", unit, "--out", tmp_path
    )
    assert ("3 documents, " if unit == "line" else "1 document, ") in result.stdout
    assert (tmp_path / "tfidf" / "My-notes_train" / "manifest.json").is_file()


def test_jsonl_with_a_field_and_a_name(tmp_path):
    path = tmp_path / "papers.jsonl"
    path.write_text('{"abstract": "We find a key."}\n{"abstract": ""}\n')
    flags = ["--text-field", "abstract", "--name", "papers-2", "--split", "all", "--train-tokenizer", 300]
    success("preprocess", "tfidf", "--dataset", path, *flags, "--out", tmp_path)
    assert PreprocessedDataset.open(tmp_path / "tfidf" / "papers-2_all").counts.documents == 1


def test_version():
    assert re.fullmatch(r"cdllm \d+\.\d+\.\d+\S*\n", success("--version").stdout)
