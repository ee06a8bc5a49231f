"""The commands one after another, as a user types them, on 60 stories; then every file that was promised."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.sample.regenerate import weights_fingerprint
from cascaded_dllm.text.listing import SEPARATOR
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success


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
        assert "no bound" not in result.stdout
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
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml",
            "provenance.json",
            "metrics.jsonl",
            "samples",
            "checkpoints",
        }
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["stage_lengths"] == [4, 8, 40]
        assert (config["stage"], config["baseline"]) == ((number, False) if number < 4 else (1, True))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        # Two steps, a bound, and the figures of the samples.
        assert [line["step"] for line in lines] == [1, 2, 2, 2]
        assert lines[1].keys() == {
            "step",
            "loss_nats_per_token",
            "grad_norm",
            "lr",
            "tokens",
            "seconds",
            "tokens_per_second",
            "token_forwards",
            "peak_memory_bytes",
            "mfu",
        }
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
        assert (settings.stage, settings.step, settings.packing) == (number % 4, 2, "document")


def sampled(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_training_without_validation_data(data, tmp_path):
    """It is said at the start that there will be no bound, and how there would be one."""
    result = success("train", "--data", data / "stories_train", "--out", tmp_path / "run", *tiny.OVERRIDES)
    said = "stage 1: no bound is measured, as there is no validation data; --valid (data.valid) names it\n"
    assert result.stdout.count(said) == 1


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
        "settings.json",
        "summary.json",
    ]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["sample"] for sample in samples] == [0, 1, 2, 3, 4]
    for number, length in enumerate((4, 8, 40), start=1):
        texts = (folder / f"sample_stage{number}.txt").read_text().split(f"\n{SEPARATOR}\n")
        assert texts.pop() == ""
        assert texts == [sample["stages"][number - 1]["text"] for sample in samples]
        assert {len(sample["stages"][number - 1]["ids"]) for sample in samples} == {length}
    loaded = [load_stage(folder) for folder in trained[:3]]
    settings = {
        "seed": 0,
        "predictor": ["euler"],
        "steps": [3],
        "tokens_per_call": [None],
        "eta": None,
        "gaps_per_call": None,
        "law": {"temperature": 1.0, "top_k": None, "top_p": 1.0},
        "control": {"keywords": [], "outline": None, "pins": [], "given": None, "require_coverage": False},
        "stage_paths": [str(folder) for folder in trained[:3]],
        "stage_lengths": [4, 8, 40],
        "weights_fingerprints": [weights_fingerprint([stage.model]) for stage in loaded],
        "tokenizer_fingerprint": loaded[0].settings.tokenizer,
        "lengths": None,
        "tokenizer": None,
        "cascade": None,
        "weights": "ema",
        "dtype": "float32",
        "compile": False,
        "ranking": None,
        "guidance": 0.0,
        "prefix_noise": 0.0,
    }
    assert [sample["settings"] for sample in samples] == [settings] * 5
    summary = json.loads((folder / "summary.json").read_text())
    assert {key: summary[key] for key in settings} == settings
    assert [summary[key] for key in ("complete", "num_samples", "num_finished", "batch_size")] == [True, 5, 5, 32]
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


def test_first_hitting_counts_its_network_calls(trained, tmp_path):
    """One a token: 4 + 8 in the first two stages; there are no steps to name the folder after."""
    success(
        "sample", "--stage", trained[0], "--stage", trained[1], "--num-samples", 1, "--output-dir", tmp_path
    )  # fmt: skip
    folder = sampled(tmp_path)
    assert folder.name.startswith("sample_cascade_calls_12_len_8_")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["steps"], summary["nfe_per_stage"]) == ([None], [4, 8])


def test_sampling_in_bfloat16(trained, tmp_path):
    flags = ["--stage", trained[0], "--num-samples", 2, "--dtype", "bfloat16", "--output-dir", tmp_path]
    assert "2 texts in " in success("sample", *flags).stdout
    assert json.loads((sampled(tmp_path) / "summary.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_sampling_a_flat_model_and_one_checkpoint(trained, tmp_path, weights):
    checkpoint = trained[3] / "checkpoints" / "step_2"
    success("sample", "--stage", checkpoint, "--num-samples", 1, "--weights", weights, "--output-dir", tmp_path)
    assert json.loads((sampled(tmp_path) / "summary.json").read_text())["weights"] == weights


def test_likelihood_of_cascade_and_flat_model(trained, data, tmp_path):
    common = ["--data", data / "stories_valid", "--num-windows", 6, "--num-times", 2]
    stages = [argument for folder in trained[:3] for argument in ("--stage", folder)]
    result = success("evaluate", "likelihood", *stages, *common, "--out", tmp_path / "cascade.json")
    summary = json.loads((tmp_path / "cascade.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == [1, 2, 3]
    total = sum(stage["bound_nats_per_window"] for stage in summary["stages"])
    assert summary["bound_nats_per_window"] == pytest.approx(total, rel=1e-9)
    assert (summary["num_windows"], summary["length"], summary["num_stages"]) == (6, 40, 3)
    assert f"written to {tmp_path / 'cascade.json'}" in result.stdout
    for shown in ("1 of 3", "2 of 3", "3 of 3", "joint", "on 6 windows of 40 tokens, 2 times each"):
        assert shown in result.stdout
    assert "{" not in result.stdout

    result = success("evaluate", "likelihood", "--stage", trained[3], *common, "--json")
    flat = json.loads(result.stdout)
    assert len(flat["stages"]) == 1
    # Two steps of training: about log V for each of 40 tokens.
    assert 40 * 5 < flat["bound_nats_per_window"] < 40 * 8
    flags = ["--num-windows", 1, "--num-times", 1]
    result = success("evaluate", "likelihood", "--stage", trained[3], *common, *flags)
    assert "flat" in result.stdout
    assert "joint" not in result.stdout
    assert "on 1 window of 40 tokens, 1 time each" in result.stdout


def test_likelihood_of_a_part_of_a_cascade(trained, data):
    """What the stages pay is told, and nothing is claimed of texts."""
    common = ["--data", data / "stories_valid", "--num-windows", 6, "--num-times", 2]
    stages = [argument for folder in trained[:2] for argument in ("--stage", folder)]
    shown = success("evaluate", "likelihood", *stages, *common).stdout
    assert "1 of 3" in shown
    assert "no bound on whole texts: only 2 of 3 stages are given, which write a shorter version of 8 tokens" in shown
    assert not any(word in shown for word in ("joint", "perplexity", "nats/token"))
    summary = json.loads(success("evaluate", "likelihood", *stages, *common, "--json").stdout)
    assert summary.keys() == {"num_windows", "length", "num_stages", "stages"}
    assert (summary["num_stages"], len(summary["stages"])) == (3, 2)


def test_packing_is_that_of_training(trained, data, tmp_path):
    """The windows of a stream are other texts, so their bound is another number."""
    common = ["evaluate", "likelihood", "--data", data / "stories_valid", "--stage"]
    message = "has windows of packing 'stream', and the models were trained with windows of packing 'document'"
    assert message in failure(*common, trained[0], "--packing", "stream")
    flags = ["--num-windows", 2, "--num-times", 1, "--json"]
    named, taken = (success(*common, trained[3], *flags, *given).stdout for given in (["--packing", "document"], []))
    assert named == taken
    message = "with shortened stages of data.unique=true: other windows would be measured; leave -"
    assert message in failure(*common, trained[0], "--no-unique")
    # A checkpoint from before it was recorded.
    old = tmp_path / "old"
    shutil.copytree((trained[3] / "checkpoints" / "latest").resolve(), old)
    (old / "checksums.json").unlink()
    settings = json.loads((old / "config.json").read_text())
    settings.pop("packing")
    (old / "config.json").write_text(json.dumps(settings))
    message = "the checkpoints do not say how windows are cut; give --packing stream or document"
    assert failure(*common, old) == message
    assert success(*common, old, *flags, "--packing", "document").stdout == taken


def test_model_of_sedd(trained, data, tmp_path):
    """Somebody else's flat model, which says neither its length nor its tokenizer nor its packing."""
    ours = load_stage(trained[3])
    model = ours.settings.model
    sizes = {"hidden_size": model.hidden_size, "n_heads": model.num_heads, "n_blocks": model.num_blocks}
    config = {
        "tokens": model.vocab_size,
        "graph": {"type": "absorb"},
        "noise": {"type": "loglinear"},
        "model": sizes | {"cond_dim": model.cond_dim, "dropout": 0.1, "scale_by_sigma": True, "length": 40},
    }
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "config.json").write_text(json.dumps(config))
    shutil.copy(ours.folder / "ema.safetensors", hub / "model.safetensors")
    common = ["--stage", hub, "--tokenizer", data / "stories_valid"]
    texts = {}
    for name, flags in (("sedd", common), ("ours", ["--stage", trained[3]])):
        lengths = ["--lengths", "40"] if name == "sedd" else []
        grid = ["--num-samples", 2, "--predictor", "analytic", "--steps", 3, "--output-dir", tmp_path / name]
        success("sample", *flags, *lengths, *grid)
        texts[name] = (sampled(tmp_path / name) / "sample_stage1.txt").read_text()
    assert texts["sedd"] == texts["ours"]
    assert "give their length with --lengths" in failure("sample", *common, "--output-dir", tmp_path / "none")
    measure = ["evaluate", "likelihood", *common, "--data", data / "stories_valid", "--num-windows", 3, "--json"]
    assert "give --packing" in failure(*measure, "--lengths", "40")
    lengths = ["--lengths", "4,8,40"]
    bound = json.loads(success(*measure, *lengths, "--packing", "document").stdout)
    ours_too = ["evaluate", "likelihood", "--stage", trained[3], "--data", data / "stories_valid"]
    assert bound == json.loads(success(*ours_too, "--num-windows", 3, "--json").stdout)


def test_going_on_with_a_run(trained, data):
    """The same command again finds nothing left to do."""
    flags = ["--data", data / "stories_train", "--valid", data / "stories_valid", "--stage", 1, "--out", trained[0]]
    result = success("train", *flags, *tiny.OVERRIDES)
    assert "stage 1: all 2 steps are done already" in result.stdout


def test_a_run_is_made_longer(trained, data, tmp_path):
    """Its learning rate is constant, so that the two steps done are the first two of four."""
    folder = tmp_path / "stage1"
    shutil.copytree(trained[0], folder, symlinks=True)
    flags = ["--data", data / "stories_train", "--valid", data / "stories_valid", "--stage", 1, "--out", folder]
    result = success("train", *flags, *tiny.OVERRIDES, "training.num_steps=4")
    assert "stage 1: resumed at step 2" in result.stdout
    assert load_stage(folder).settings.step == 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["training"]["num_steps"] == 4


def test_preprocessing_again_changes_nothing(place, data):
    before = {path: path.stat().st_mtime_ns for path in data.glob("stories_valid/shard_*/*")}
    success(
        "preprocess", "constituency", "--dataset", "stories", "--tagger", "stories", "--split", "valid", "--shards", 2,
        "--tokenizer", place / "tokenizer", "--num-documents", 12, "--out", place / "data",
    )  # fmt: skip
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
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


def test_word_counts_of_a_split_to_measure_on(tmp_path):
    """They change which words its stages keep, so it is said, unless they are those of the training data."""
    path = tmp_path / "notes.txt"
    path.write_text("We find a key.\n\nWe lose it.")
    flags = ["--dataset", path, "--train-tokenizer", 300, "--out", tmp_path]
    note = "note: the split valid has word counts of its own, so its stages keep other words than those of the train"
    assert "note:" not in success("preprocess", "tfidf", *flags).stdout
    assert note in success("preprocess", "tfidf", *flags, "--split", "valid").stdout
    counts = ["--word-counts", tmp_path / "tfidf" / "notes_train", "--name", "again"]
    assert "note:" not in success("preprocess", "tfidf", *flags, "--split", "valid", *counts).stdout
    alone = success("preprocess", "tfidf", *flags, "--num-documents", 1, "--name", "alone").stdout
    assert "note: the words of 1 document are counted, in which no word is rarer than another: all have" in alone


def test_version():
    assert re.fullmatch(r"cdllm \d+\.\d+\.\d+\S*\n", success("--version").stdout)


def test_windows_that_are_dropped_are_told(stories, valid_stories, tmp_path):
    """A stage of 28 different tokens is more than some texts of 40 have: on the terminal and in every record."""
    common = ["train", "--data", stories, *tiny.OVERRIDES, "sampling.num_samples=0"]
    result = success(*common, "--valid", valid_stories, "--out", tmp_path / "some", "stage_lengths=[4,28,40]")
    assert "parameters, 177 windows (23 of 200 dropped: too few different tokens)\n" in result.stdout
    assert "\nvalidation data: 17 windows (3 of 20 dropped: too few different tokens)\n" in result.stdout
    (start,) = json.loads((tmp_path / "some" / "provenance.json").read_text())["starts"]
    assert (start["data"]["num_windows"], start["data"]["dropped"]) == (177, dropped(23))
    assert start["data"]["valid_windows"] == {"num_windows": 17, "dropped": dropped(3)}
    lines = [json.loads(line) for line in (tmp_path / "some" / "metrics.jsonl").read_text().splitlines()]
    counts = [(line["num_windows_in_set"], line["num_windows_dropped"]) for line in lines if "standard_error" in line]
    assert counts == [(17, 3)]
    result = success(*common, "--out", tmp_path / "all", "data.valid=null")
    assert "parameters, 200 windows\n" in result.stdout
    assert "validation data: " not in result.stdout
    (start,) = json.loads((tmp_path / "all" / "provenance.json").read_text())["starts"]
    assert (start["data"]["dropped"], start["data"]["valid_windows"]) == (dropped(0), None)


def dropped(num_windows):
    return {"too_few_distinct_tokens": num_windows, "tail_tokens": 0}
