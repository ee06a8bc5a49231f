"""`cdllm bundle`, and `--cascade` where commands take stages: the same numbers as from the stages one by one."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from cascaded_dllm.cli import bundle as bundle_command
from cascaded_dllm.cli import sample_entry
from cascaded_dllm.cli.interrupt import StopRequest
from cascaded_dllm.cli.main import app
from cascaded_dllm.sample.cascade import Cascade
from tests.pipeline.commands import failure, success
from tests.unit.sample.upload_hub import upload_hub


@pytest.fixture(scope="module")
def stages(runs: Path) -> list[str]:
    return ["--stage", f"{runs}/stage1", "--stage", f"{runs}/stage2"]


@pytest.fixture(scope="module")
def bundle(stages: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "stories"
    shown = success("bundle", *stages, "--out", folder, "--license", "mit").stdout
    assert shown.split() == f"written to {folder}".split()
    return folder


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def texts(folder: Path) -> list[list[str]]:
    """Of every stage and every text of the only run in a folder."""
    lines = (only(folder) / "samples.jsonl").read_text().splitlines()
    return [[stage["text"] for stage in json.loads(line)["stages"]] for line in lines]


def test_same_texts_as_from_the_stages(stages, bundle, tmp_path):
    asked = ["--num-samples", 3, "--seed", 5, "--device", "cpu", "--output-dir"]
    success("sample", *stages, *asked, tmp_path / "one by one")
    success("sample", "--cascade", bundle, *asked, tmp_path / "together")
    assert texts(tmp_path / "together") == texts(tmp_path / "one by one")
    settings = [
        json.loads((only(tmp_path / name) / "settings.json").read_text()) for name in ("one by one", "together")
    ]
    assert [found["texts"]["cascade"] for found in settings] == [None, str(bundle)]
    assert settings[1]["texts"]["stage_paths"] == [str(bundle)] * 2
    assert settings[0]["texts"]["weights_fingerprints"] == settings[1]["texts"]["weights_fingerprints"]


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_run_from_a_bundle_goes_on(runs, stages, tmp_path, monkeypatch, weights):
    """It needs no other option, whichever weights the bundle holds; another bundle is refused, and other weights."""
    place = tmp_path / "b"
    success("bundle", *stages, "--weights", weights, "--out", place)
    asked = ["sample", "--cascade", place, "--num-samples", 4, "--batch-size", 2, "--device", "cpu", "--output-dir"]
    success(*asked, tmp_path / "unbroken")
    calls: list[int] = []

    def stop_in_the_second_batch(*_):
        return calls.append(1) is None and len(calls) == 20

    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "is_made_and_answered", stop_in_the_second_batch)
        result = CliRunner().invoke(app, [str(argument) for argument in [*asked, tmp_path / "broken"]])
    assert result.exit_code == 75
    assert len(texts_so_far(tmp_path / "broken")) == 2
    run = only(tmp_path / "broken")
    assert f"--stage is {runs}/stage1, {runs}/stage2, and the run" in failure("sample", "--resume", run, *stages)
    shutil.copytree(place, tmp_path / "c")
    assert f"--cascade is {tmp_path / 'c'}, and the run in" in failure(
        "sample", "--resume", run, "--cascade", tmp_path / "c"
    )
    other = "raw" if weights == "ema" else "ema"
    assert f"--weights is {other}" in failure("sample", "--resume", run, "--weights", other)
    shutil.rmtree(place)
    success("bundle", "--stage", runs / "stage1", "--stage", runs / "stage2", "--weights", other, "--out", place)
    assert f"holds only the {other} weights; leave weights out" in failure("sample", "--resume", run)
    shutil.rmtree(place)
    shutil.move(tmp_path / "c", place)
    success("sample", "--resume", run, "--cascade", place)
    assert texts(tmp_path / "broken") == texts(tmp_path / "unbroken")
    assert (run / "samples.jsonl").read_bytes() == (only(tmp_path / "unbroken") / "samples.jsonl").read_bytes()


def texts_so_far(folder: Path) -> list[str]:
    return (only(folder) / "samples.jsonl").read_text().splitlines()


def test_stages_and_a_bundle(stages, bundle, tmp_path):
    for command in (["sample"], ["evaluate", "likelihood", "--data", tmp_path], ["bundle", "--out", tmp_path / "b"]):
        message = failure(*command, *stages, "--cascade", bundle)
        assert message == f"--stage is given, and --cascade is {bundle}, which holds all stages; leave one out"
        message = failure(*command)
        assert message.startswith(
            "no --stage is given; name at least 1 run folder, checkpoint or hub id, or a bundle of"
        )
    assert "is a bundle of all stages, and one stage is asked for" in failure("sample", "--stage", bundle)
    assert "checksums.json cannot be read" in failure("sample", "--cascade", not_a_bundle(tmp_path))


@pytest.mark.parametrize("command", [["sample"], ["evaluate", "likelihood", "--data", "x"], ["bundle", "--out", "b"]])
def test_run_in_place_of_a_bundle(runs, tmp_path, monkeypatch, command):
    """It is not taken for a cascade of one stage: texts of a first stage alone are not what is asked for."""
    monkeypatch.chdir(tmp_path)
    message = failure(*command, "--cascade", runs / "stage1")
    assert message.startswith(f"{runs}/stage1 is not a bundle of all stages: it has no cascade.json; give a folder")
    assert "name the stages one by one with --stage" in message
    assert "file is not a bundle" in failure(*command, "--cascade", a_file(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def a_file(path: Path) -> Path:
    path.write_text("x")
    return path


def not_a_bundle(folder: Path) -> Path:
    (folder / "none").mkdir()
    (folder / "none" / "cascade.json").write_text("{}")
    return folder / "none"


def test_same_bound_as_from_the_stages(stages, bundle, stories):
    common = [
        "evaluate",
        "likelihood",
        "--data",
        stories,
        "--num-windows",
        2,
        "--num-times",
        2,
        "--device",
        "cpu",
        "--json",
    ]
    one, other = (success(*common, *place).stdout for place in (stages, ["--cascade", bundle]))
    assert json.loads(one) == json.loads(other)


def test_entry_script(bundle, monkeypatch, capsys):
    asked: list[list[str]] = []
    with monkeypatch.context() as patched:
        patched.setattr(sample_entry, "app", lambda words, prog_name: asked.append(words))
        sample_entry.main(["--cascade", str(bundle), "--batch_size", "2", "--predictor", "first_hitting"])
    assert asked[0] == [
        *["sample", "--batch-size", "2", "--predictor", "first_hitting", "--output-dir", "./sampling_outputs"],
        *["--cascade", str(bundle), "--num-samples", "2"],
    ]
    with pytest.raises(SystemExit):
        sample_entry.main(["--batch_size", "2"])
    assert "give a path for every stage, from the first on, or --cascade" in capsys.readouterr().err


def test_where_a_bundle_goes(stages, bundle, tmp_path):
    assert (
        failure("bundle", *stages) == "neither --out nor --push is given; name a new folder, or a repository of the hub"
    )
    message = failure("bundle", *stages, "--out", tmp_path / "b", "--private")
    assert message == "--private is given without --push, and only a repository of the hub can be private; leave it out"
    assert "'a/b/c' is not a hub id; it must be owner/name" in failure("bundle", *stages, "--push", "a/b/c")
    message = failure("bundle", *stages, "--out", bundle)
    assert message == f"--out is {bundle}, which exists, and nothing is overwritten; choose another folder"
    assert list(tmp_path.iterdir()) == []


def test_bundle_on_the_hub(bundle, tmp_path, monkeypatch):
    with upload_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        flags = ["--push", "somebody/stories", "--private", "--message", "First", "--out", tmp_path / "copy"]
        shown = success("bundle", "--cascade", bundle, *flags).stdout
        assert f"uploaded to {hub.address}/somebody/stories" in shown
        assert (hub.commits, hub.private) == (["First"], {"somebody/stories"})
        assert hub.files["somebody/stories"]["cascade.json"] == (tmp_path / "copy" / "cascade.json").read_bytes()
        success("bundle", "--cascade", bundle, "--push", "somebody/open")
        assert hub.private == {"somebody/stories"}


def test_options_of_loading_reach_it(stages, tmp_path, monkeypatch):
    asked: list[dict[str, object]] = []

    def load(named: object, **options: object) -> Cascade:
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_command, "load_cascade", load)
    flags = ["--lengths", "4,8,40", "--tokenizer", "gpt2", "--weights", "raw"]
    CliRunner().invoke(app, ["bundle", *stages, *flags, "--out", str(tmp_path / "b")])
    assert asked == [{"bundle": None, "lengths": "4,8,40", "tokenizer": "gpt2", "weights": "raw", "device": "cpu"}]
