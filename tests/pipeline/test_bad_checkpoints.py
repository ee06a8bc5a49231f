"""What `cdllm sample` and `cdllm train` say about checkpoints that are damaged, foreign or of another cascade."""

import json
import re
import shutil

import pytest

from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline import tiny
from tests.pipeline.commands import failure, files, success


@pytest.fixture
def copy(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


@pytest.fixture
def exported(runs, tmp_path):
    """The files of stage 1 as somebody would hand them on: without the checksums, which would speak first."""
    shutil.copytree(runs / "stage1" / "checkpoints" / "latest", tmp_path / "exported")
    (tmp_path / "exported" / "checksums.json").unlink()
    return tmp_path / "exported"


def sample(tmp_path, *stages, **flags):
    arguments = [argument for stage in stages for argument in ("--stage", stage)]
    for name, value in flags.items():
        arguments += [f"--{name}", value]
    message = failure("sample", *arguments, "--num-samples", "1", "--output-dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return message


def test_missing(tmp_path):
    assert re.search(r"nowhere.*; check the path", sample(tmp_path, tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    message = sample(tmp_path, tmp_path / "empty")
    assert re.search(r"empty is not a checkpoint: it has neither config\.json .*; give a run folder", message)
    (tmp_path / "empty" / "config.yaml").write_text("stage: 1\n")
    message = sample(tmp_path, tmp_path / "empty")
    assert re.search(
        r"empty is a run that has no checkpoint yet: the first one is written after training\.snap", message
    )


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_truncated(exported, tmp_path, size):
    path = exported / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    message = sample(tmp_path, exported)
    assert re.search(r"ema\.safetensors is truncated or not a safetensors file .*; use another checkpoint", message)


def test_damaged_since_it_was_written(copy, tmp_path):
    path = copy / "stage1" / "checkpoints" / "latest" / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message = sample(tmp_path, copy / "stage1")
    assert re.search(r"has no complete checkpoint \(.*ema\.safetensors does not have its recorded checksum", message)
    assert "is damaged: ema.safetensors does not have" in sample(tmp_path, path.parent.resolve())


def test_foreign(exported, tmp_path):
    path = exported / "config.json"
    path.write_text('{"model_type": "gpt2"}')
    assert "describes neither a checkpoint of this package nor a SEDD model" in sample(tmp_path, exported)
    path.write_text('{"model_type": ')
    assert "config.json is not valid JSON" in sample(tmp_path, exported)


def test_weights_of_another_network(exported, tmp_path):
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config["model"]["cond_dim"] = 24
    path.write_text(json.dumps(config))
    message = sample(tmp_path, exported)
    assert re.search(r"do not fit the network: .*sigma_map\.mlp\.0\.weight has shape \(8, 256\) and should", message)


@pytest.mark.parametrize(
    ("key", "value"), [("stage_lengths", 40), ("model", ["small"]), ("model", None), ("noise", None)]
)
def test_config_with_values_of_another_kind(exported, tmp_path, key, value):
    path = exported / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert re.search(r"config\.json .*damaged", sample(tmp_path, exported))


def test_stages_of_different_packing(runs, stories, tmp_path):
    list(assemble_run(tiny.config(stories, tmp_path / "other", "stage=2", "data.packing=stream")).events())
    message = sample(tmp_path, runs / "stage1", tmp_path / "other")
    assert re.search(r"windows of packing 'document', and .* with windows of packing 'stream'; train all", message)


def test_stages_in_the_wrong_order(runs, tmp_path):
    message = sample(tmp_path, runs / "stage2", runs / "stage1")
    assert re.search(r"is stage 2 of lengths \[4, 8, 40\], and stage 1 of lengths .* in order", message)


def test_prefix_of_the_wrong_length(runs, stories, tmp_path):
    """Stage 2 was trained on 5 tokens, stage 1 writes 4."""
    other = ["stage=2", "stage_lengths=[5,8,40]"]
    list(assemble_run(tiny.config(stories, tmp_path / "other", *other)).events())
    message = sample(tmp_path, runs / "stage1", tmp_path / "other")
    assert re.search(r"is stage 2 of lengths \[5, 8, 40\], and stage 2 of lengths \[4, 8, 40\] was expected", message)


def test_another_tokenizer(runs, tmp_path, tokenizer):
    Tokenizer.train(["Once more."], 260).save(tmp_path / "other")
    message = sample(tmp_path, runs / "stage1", tokenizer=tmp_path / "other")
    expected = rf"was trained with the tokenizer {tokenizer.fingerprint}, the cascade uses \w+; name the tokenizer"
    assert re.search(expected, message)


def test_no_tokenizer(exported, tmp_path):
    (exported / "tokenizer.json").unlink()
    message = sample(tmp_path, exported)
    assert "holds no tokenizer.json; name one with --tokenizer, for example gpt2" in message


def test_data_of_another_tokenizer(runs, make_stories, tmp_path):
    data = make_stories(tmp_path, split="x", num=9, seed=0, tokenizer=Tokenizer.train(["Once more."], 260))
    flags = ["--stage", runs / "stage1", "--data", data]
    assert "preprocess the text with the models' tokenizer" in failure("evaluate", "likelihood", *flags)


def test_first_hitting_of_a_uniform_process(stories, tmp_path):
    uniform = ["graph.type=uniform", "model.scale_by_sigma=false"]
    list(assemble_run(tiny.config(stories, tmp_path / "run", *uniform)).events())
    message = sample(tmp_path, tmp_path / "run", predictor="first_hitting")
    assert "predictor first_hitting needs the absorbing process" in message


def test_resuming_with_other_settings(copy, stories):
    flags = ["--data", stories, "--out", copy / "stage1", *tiny.OVERRIDES]
    before = files(copy)
    message = failure("train", *flags, "optim.lr=0.5")
    assert "trained with other settings: optim.lr was 0.01 and is 0.5; give the settings of the run's config" in message
    assert "other settings: stage was 1 and is 3; give" in failure("train", *flags, "--stage", "3")
    several = failure("train", *flags, "training.seed=3", "model.hidden_size=32", "model.name=other")
    assert "model.name was tiny and is other; model.hidden_size was 16 and is 32; training.seed was 0 and is" in several
    assert "data.packing was document and is stream; " in failure("train", *flags, "data.packing=stream")
    assert files(copy) == before


def test_data_of_another_content(copy, make_stories, tmp_path):
    data = make_stories(tmp_path / "data", split="x", num=9, seed=7)
    message = failure("train", "--data", data, "--out", copy / "stage1", *tiny.OVERRIDES)
    assert re.search(r"other settings: data\.path \(fingerprint of its windows\) was \w+ and is \w+; give", message)


def test_a_cosine_cannot_be_made_longer(stories, tmp_path):
    flags = ["--data", stories, "--out", tmp_path / "run", *tiny.OVERRIDES, "optim.decay=cosine"]
    success("train", *flags)
    message = failure("train", *flags, "training.num_steps=4")
    assert (
        "training.num_steps was 2 and is 4: with optim.decay=cosine the learning rates of the 2 steps done" in message
    )
    assert "only optim.decay=constant can be prolonged" in message


def test_run_without_a_checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("stage: 1\n")
    expected = "run is a run that has no checkpoint yet: the first one is written after training.snapshot_every steps"
    assert expected in sample(tmp_path, tmp_path / "run")
    assert expected in failure("evaluate", "likelihood", "--stage", tmp_path / "run", "--data", tmp_path)


def test_resuming_from_damaged_checkpoints(copy, stories):
    (copy / "stage1" / "checkpoints" / "step_2" / "trainer.pt").write_bytes(b"")
    message = failure("train", "--data", stories, "--out", copy / "stage1", *tiny.OVERRIDES)
    assert re.search(r"no checkpoint in .* is complete \(.*trainer\.pt does not have .*; remove the folder", message)
