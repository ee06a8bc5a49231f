"""`cdllm study`: arms at equal cost from one file, in the smallest size; interrupted, diverging, shared and resumed."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cascaded_dllm import lock_owner
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.interrupt import StopRequest
from cascaded_dllm.cli.main import app
from cascaded_dllm.cli.study import EXIT_BROKEN_ARM
from cascaded_dllm.cli.study_file import read_study
from cascaded_dllm.cli.study_work import prepare_work
from cascaded_dllm.data.dataset import evenly_spaced
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.run_lock import LOCK_FILE
from cascaded_dllm.study import work as study_work
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.plan import arm_configs
from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline.commands import failure, success
from tests.processes import cdllm, run, started

pytestmark = pytest.mark.slow
STUDY = {
    "name": "little",
    "corpus": {"dataset": "stories", "num_documents": 40},
    "lengths": [4, 8, 40],
    # A step takes 8 of 40 positions of a flat model, or 2 of 4 + 12 + 48 and 4 + (8 + 5) + (40 + 9) positions.
    "budget": {"token_forwards": 1000},
    "base": [
        "device=cpu",
        "data.packing=document",
        "data.unique=false",
        "model=tiny",
        "model.hidden_size=16",
        "model.num_heads=2",
        "model.num_blocks=1",
        "model.cond_dim=8",
        "training.batch_size=4",
        "training.log_every=1",
        "training.eval_windows=4",
        "training.eval_times=1",
        "optim.lr=1e-2",
        "optim.warmup=0",
        "sampling.num_samples=0",
    ],
    "arms": [
        {"name": "flat", "kind": "flat"},
        {"name": "one_way", "kind": "prefix", "overrides": ["model.prefix_attention=one_way"]},
        {"name": "joint", "kind": "prefix", "overrides": ["training.prefix_noise.prob=0.1"]},
        {"name": "placed", "kind": "placed"},
        {"name": "by_chance", "kind": "placed", "method": "random"},
        {"name": "around", "kind": "from_flat"},
    ],
    "evaluate": {"num_windows": 6, "num_times": 2, "batch_size": 4, "points": 2},
    "sampling": [
        {"name": "first", "num_samples": 5, "batch_size": 2, "tokens_per_call": 8},
        {"name": "walk", "predictor": "analytic", "steps": 2, "num_samples": 2},
    ],
}


def write_study(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def results_of(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def entries(results: dict) -> dict:
    return {(entry["arm"], entry["seed"]): entry for entry in results["arms"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study that has come to its end."""
    folder = tmp_path_factory.mktemp("study")
    result = success("study", "run", write_study(folder / "study.yaml"), "--out", folder / "out")
    assert "report.html and" in result.stdout
    return folder / "out"


def test_every_arm_is_trained_measured_and_sampled(finished):
    results = results_of(finished)
    assert (results["format"], results["name"], results["lengths"]) == ("cascaded-dllm-study/1", "little", [4, 8, 40])
    assert results["study"] == json.loads(json.dumps(read_study(str(finished / "study.yaml")).to_dict()))
    assert results["device"].startswith("cpu ")
    assert [entry["arm"] for entry in results["arms"]] == [arm["name"] for arm in STUDY["arms"]]
    for entry in results["arms"]:
        assert (entry["status"], entry["reason"], entry["seed"]) == ("done", None, 0)
        num_stages = 1 if entry["arm"] == "flat" else 3
        bound = entry["bound"]
        assert (bound["num_windows"], bound["length"], bound["num_stages"]) == (6, 40, num_stages)
        assert bound["bound_nats_per_window"] == pytest.approx(
            sum(stage["bound_nats_per_window"] for stage in bound["stages"])
        )
        assert [drawing["name"] for drawing in entry["sampling"]] == ["first", "walk"]
        assert [drawing["num_samples"] for drawing in entry["sampling"]] == [5, 2]
        assert entry["sampling"][0]["figures"]["num_texts"] == 5
        assert entry["sampling"][0]["figures"]["accepted_share"] == 0
        assert entry["sampling"][1]["nfe"] <= 3 * num_stages
        assert (finished / entry["sampling"][0]["folder"] / "samples.jsonl").is_file()
        assert len(entry["texts"]) == 4
        for stage in entry["texts"][0]:
            assert "".join(piece for piece, _ in stage["pieces"]) == stage["text"]
            assert {writer for _, writer in stage["pieces"]} <= set(range(1, stage["stage"] + 1))
    assert entries(results)["placed", 0]["bound"]["stages"][1]["layout_nats_per_window"] > 0
    shown = set(entries(results)["placed", 0]["sampling"][0]["figures"])
    assert shown <= results["definitions"].keys()
    assert results["reference"]["figures"]["num_texts"] == 5


def test_the_budget_is_used_up_and_kept(finished):
    """Every arm trains on at most as many positions as the budget has; one more step of its runs would be too much."""
    results = results_of(finished)
    of_a_step = {"flat": 160, "one_way": 4 * 64, "joint": 4 * 64, "placed": 4 * 66, "by_chance": 4 * 66}
    # Around a flat model: it, stage 1, and layouts of 5 and 9 gaps.
    of_a_step["around"] = 4 * (40 + 4 + 5 + 9)
    for entry in results["arms"]:
        used = 0
        for training in entry["runs"]:
            lines = metrics_of(finished / training["folder"])
            forwards = [line["token_forwards"] for line in lines if "token_forwards" in line]
            assert forwards[-1] == training["token_forwards"] == training["curve"][-1][0]
            assert training["bound_curve"][-1][0] == training["token_forwards"]
            assert training["seconds"] > 0
            used += forwards[-1]
        assert used == entry["token_forwards"] == 1000 // of_a_step[entry["arm"]] * of_a_step[entry["arm"]]


def test_equal_runs_are_one_run(finished):
    """Stage 1 knows nothing of prefixes, so that it is trained once; chance has other data."""
    found = entries(results_of(finished))
    stage_1 = {
        arm: next(run for run in entry["runs"] if run["stage"] == 1)
        for (arm, _), entry in found.items()
        if arm != "flat"
    }
    assert stage_1["one_way"]["folder"] == stage_1["joint"]["folder"]
    assert stage_1["one_way"]["shared_by"] == ["one_way", "joint", "placed"]
    assert stage_1["by_chance"]["folder"] != stage_1["placed"]["folder"]
    assert stage_1["by_chance"]["shared_by"] == ["by_chance"]
    for training in stage_1.values():
        assert len(json.loads((finished / training["folder"] / "provenance.json").read_text())["starts"]) == 1
    stage_2 = {arm: found[arm, 0]["runs"][1]["folder"] for arm in ("one_way", "joint", "placed", "by_chance")}
    assert len(set(stage_2.values())) == 4


def test_a_first_stage_is_shared_though_gaps_cost(tmp_path):
    """9000 positions: 35 steps of 4 * 64 with a prefix, 34 of 4 * 66 placed; 34 of stage 1 leave 35 for the others."""
    study = read_study(
        str(write_study(tmp_path / "study.yaml", budget={"token_forwards": 9000}, arms=STUDY["arms"][1:4]))
    )
    work = prepare_work(
        study, arm_configs(study, compose_config), StudyFolder(tmp_path / "out"), StudyCallbacks(), "now"
    )
    steps = {arm.settings.name: [run.config.training.num_steps for run in arm.runs] for arm in work.arms}
    assert steps == {"one_way": [34, 35, 35], "joint": [34, 35, 35], "placed": [34, 34, 34]}
    assert len({arm.runs[0].key for arm in work.arms}) == 1
    assert len({run.key for arm in work.arms for run in arm.runs}) == 1 + 3 * 2


def test_around_a_network_that_learns_all_fills(tmp_path):
    """Only its flat network does, at the cost of four kinds of texts; the others are as around any flat network."""
    arms = [{"name": "around", "kind": "from_flat", "overrides": ["training.fills=true"]}]
    study = read_study(str(write_study(tmp_path / "study.yaml", budget={"token_forwards": 3000}, arms=arms)))
    work = prepare_work(
        study, arm_configs(study, compose_config), StudyFolder(tmp_path / "out"), StudyCallbacks(), "now"
    )
    runs = work.arms[0].runs
    assert [run.config.training.fills for run in runs] == [True, False, False, False]
    assert [run.config.baseline for run in runs] == [True, False, False, False]
    # 4 + 8 + 40 + 40 positions of the flat network, 4 * 4 of stage 1, and 4 * 5 and 4 * 9 gaps.
    assert {run.config.training.num_steps for run in runs} == {3000 // (92 + 16 + 20 + 36)}


def test_differences_are_those_of_the_same_windows(finished):
    results = results_of(finished)
    nats = {}
    for arm in ("flat", "placed", "by_chance"):
        with np.load(finished / "arms" / arm / "seed0" / "bound.npz") as content:
            nats[arm] = content["nll_nats"]
            np.testing.assert_allclose(content["nll_nats_per_stage"].sum(0), nats[arm])
        bound = entries(results)[arm, 0]["bound"]["bound_nats_per_window"]
        assert nats[arm].mean() == pytest.approx(bound)
    pairs = {(pair["arm"], pair["other"]): pair for pair in results["paired"]}
    names = [arm["name"] for arm in STUDY["arms"]]
    assert set(pairs) == {(arm, other) for place, arm in enumerate(names) for other in names[:place]}
    for arm, other in (("placed", "flat"), ("by_chance", "placed")):
        differences = [float(a - b) for a, b in zip(nats[arm], nats[other], strict=True)]
        mean = sum(differences) / 6
        error = (sum((value - mean) ** 2 for value in differences) / 5 / 6) ** 0.5
        assert pairs[arm, other]["mean_nats_per_window"] == pytest.approx(mean)
        assert pairs[arm, other]["standard_error_nats"] == pytest.approx(error)


def test_the_report_names_the_arm_with_the_lowest_bound(finished):
    results, report = results_of(finished), json.loads((finished / "report.json").read_text())
    bounds = {entry["arm"]: entry["bound"]["bound_nats_per_window"] for entry in results["arms"]}
    assert report["format"] == "cascaded-dllm-report/1"
    page = (finished / "report.html").read_text()
    assert all(name in page for name in bounds)
    assert min(bounds, key=bounds.__getitem__) in json.dumps(report["ranking"])


def test_the_truth_is_that_of_the_windows(finished):
    results, grammar = results_of(finished), StoryGrammar()
    valid = PreprocessedDataset.open(Path(results["data"]["valid"]))
    assert valid.settings.source["kind"] == "stories"
    measured = evenly_spaced(valid.counts.documents, 6).tolist()
    stories = [grammar.document(index, 1).text for index in measured]
    assert results["truth_nats_per_window"] == pytest.approx(-np.mean([grammar.log_prob(text) for text in stories]))
    assert results["entropy_nats_per_text"] == pytest.approx(grammar.entropy)


def test_the_same_command_again_does_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    success("study", "run", finished / "study.yaml", "--out", finished)
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {"study.yaml", "results.json", "report.html", "report.json"}


def test_collect_writes_the_same_results(finished):
    before = results_of(finished)
    (finished / "results.json").unlink()
    success("study", "collect", finished)
    after = results_of(finished)
    assert {**after, "command": ""} == {**before, "command": ""}


def stop_after(monkeypatch, number: int) -> None:
    """The wish to stop is there from the `number`-th time on that somebody asks for it."""
    asked = []

    def is_made(self: StopRequest) -> bool:
        asked.append(self)
        return len(asked) >= number

    monkeypatch.setattr(StopRequest, "is_made", is_made)


SMALL = {"arms": STUDY["arms"][:2], "sampling": STUDY["sampling"][:1]}


def weights(out: Path) -> dict:
    """The averaged weights of every run, byte for byte."""
    return {path.parts[-4]: path.read_bytes() for path in out.glob("runs/*/checkpoints/latest/ema.safetensors")}


def what_must_be_equal(value):
    """Results without times, and without names of folders that hold a time."""
    if isinstance(value, dict):
        varying = ("folder", "seconds", "seconds_per_text", "command", "data")
        return {key: what_must_be_equal(inner) for key, inner in value.items() if key not in varying}
    return [what_must_be_equal(inner) for inner in value] if isinstance(value, list) else value


def test_interrupted_anywhere_it_ends_alike(tmp_path, monkeypatch):
    """Stopped again and again, in training, bounds and texts, it ends as an unbroken one."""
    study = write_study(tmp_path / "study.yaml", **SMALL)
    success("study", "run", study, "--out", tmp_path / "whole")
    said = []
    for number in (4, 8, 9, 14):
        with monkeypatch.context() as patch:
            stop_after(patch, number)
            result = CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "broken")])
        assert result.exit_code == 75, result.output
        said.append(result.stderr)
    assert any(re.search(r"\w+-\w+ was stopped at step \d of \d, which is kept", line) for line in said), said
    assert any("the study was told to stop; what is finished is kept" in line for line in said), said
    result = success("study", "run", study, "--out", tmp_path / "broken")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 4
    assert what_must_be_equal(results_of(tmp_path / "broken")) == what_must_be_equal(results_of(tmp_path / "whole"))


def test_texts_that_were_stopped_are_gone_on_with(tmp_path, monkeypatch):
    """Stopped in the second batch of texts, the first one stays."""
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=STUDY["sampling"][:1])
    success("study", "run", study, "--out", tmp_path / "out")
    whole = results_of(tmp_path / "out")
    (tmp_path / "out/records/samples/flat/seed0/first.json").unlink()
    [folder] = (tmp_path / "out/arms/flat/seed0/samples/first").iterdir()
    content = (folder / "samples.jsonl").read_bytes()
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        result = CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "out")])
    assert result.exit_code == 75
    assert "texts of flat, seed 0, first were stopped at 2 of 5, which are kept" in result.stderr
    # Another machine had begun to go on with them, and may be dead.
    [folder] = (tmp_path / "out/arms/flat/seed0/samples/first").iterdir()
    lock, looks, look = folder / LOCK_FILE, [], lock_owner._look
    lock.write_text(json.dumps({"host": "another-machine", "pid": 1, "started": "7", "token": "ab"}))
    with monkeypatch.context() as patch:
        patch.setattr(lock_owner, "_look", lambda path: looks.append(path) or look(path))
        patch.setattr(StopRequest, "is_made", lambda _: bool(looks))
        result = CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "out")])
    assert (result.exit_code, looks) == (75, [lock])
    assert "the study was told to stop" in result.stderr
    lock.unlink()
    success("study", "run", study, "--out", tmp_path / "out")
    [folder] = (tmp_path / "out/arms/flat/seed0/samples/first").iterdir()
    assert (folder / "samples.jsonl").read_bytes() == content
    assert what_must_be_equal(results_of(tmp_path / "out")) == what_must_be_equal(whole)


def test_an_arm_that_diverges_does_not_end_the_study(tmp_path):
    arms = [*STUDY["arms"][:1], {"name": "wild", "kind": "placed", "overrides": ["optim.lr=1e30"]}]
    study = write_study(tmp_path / "study.yaml", arms=arms, seeds=[3], sampling=STUDY["sampling"][:1])
    command = ["study", "run", str(study), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == EXIT_BROKEN_ARM, result.output
    found = entries(results_of(tmp_path / "out"))
    assert (found["flat", 3]["status"], found["wild", 3]["status"]) == ("done", "diverged")
    assert re.match(r"stage \d: the (loss|gradient norm) is \S+ at step \d", found["wild", 3]["reason"])
    assert (found["wild", 3]["bound"], found["wild", 3]["sampling"], found["wild", 3]["texts"]) == (None, [], [])
    assert results_of(tmp_path / "out")["paired"] == []
    assert "wild, seed 3: diverged: stage " in result.stderr
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/records").rglob("*.json")}
    assert CliRunner().invoke(app, command).exit_code == EXIT_BROKEN_ARM
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/records").rglob("*.json")} == records
    only_flat = CliRunner().invoke(app, [*command, "--arm", "flat"])
    assert only_flat.exit_code == 0, "the chosen arm is sound"


def test_what_failed_is_tried_again_by_the_next_command(tmp_path, monkeypatch):
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=[])
    command = ["study", "run", str(study), "--out", str(tmp_path / "out")]

    def fails(*_: object) -> None:
        raise CheckpointError("the disk has hiccups")

    with monkeypatch.context() as patch:
        patch.setattr(study_work, "train", fails)
        assert CliRunner().invoke(app, command).exit_code == EXIT_BROKEN_ARM
    [entry] = results_of(tmp_path / "out")["arms"]
    assert (entry["status"], entry["reason"]) == ("failed", "the flat model: the disk has hiccups")
    success(*command)
    [entry] = results_of(tmp_path / "out")["arms"]
    assert (entry["status"], entry["reason"]) == ("done", None)


def test_a_run_that_somebody_has_removed(tmp_path):
    """Its record says that it is done, so the parts that need its weights fail and say what to do."""
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=[])
    command = ["study", "run", str(study), "--out", str(tmp_path / "out")]
    success(*command)
    [entry] = results_of(tmp_path / "out")["arms"]
    shutil.rmtree(tmp_path / "out" / entry["runs"][0]["folder"])
    success(*command)
    shutil.rmtree(tmp_path / "out/records/bounds")
    result = CliRunner().invoke(app, command)
    told = re.search(r"/flat-\w+ is gone, and its record says that it is trained; .* remove (\S+) to", result.stderr)
    assert result.exit_code == EXIT_BROKEN_ARM
    assert told is not None
    Path(told[1]).unlink()
    success(*command)
    [again] = results_of(tmp_path / "out")["arms"]
    assert again["bound"] == entry["bound"]


def test_one_arm_and_one_seed(tmp_path):
    """What is not chosen is missing from the results, and said to be so; a change of the texts trains nothing anew."""
    study = write_study(tmp_path / "study.yaml", **SMALL, seeds=[0, 1])
    command = ["study", "run", study, "--out", tmp_path / "out", "--arm", "flat", "--seed", 1]
    success(*command)
    found = entries(results_of(tmp_path / "out"))
    assert {key: entry["status"] for key, entry in found.items()} == {
        ("flat", 0): "missing",
        ("one_way", 0): "missing",
        ("flat", 1): "done",
        ("one_way", 1): "missing",
    }
    assert len(list((tmp_path / "out/runs").iterdir())) == 1
    result = success(*command, "sampling=[{name: first, num_samples: 3}]", "figures=[num_texts, accepted_share]")
    assert "the flat model" not in result.stdout
    [drawing] = entries(results_of(tmp_path / "out"))["flat", 1]["sampling"]
    assert drawing["figures"] == {"num_texts": 3, "accepted_share": 0.0}


def test_methods_that_drop_different_windows(tmp_path):
    """With distinct tokens alone, the methods keep other stories, and the bounds are those of common ones."""
    arms = [{"name": "flat", "kind": "flat"}, {"name": "chance", "kind": "prefix", "method": "random"}]
    base = [entry for entry in STUDY["base"] if "unique" not in entry]
    study = write_study(tmp_path / "study.yaml", arms=arms, base=base, lengths=[4, 30, 40], sampling=[])
    success("study", "run", study, "--out", tmp_path / "out", "evaluate.num_windows=40")
    results = results_of(tmp_path / "out")
    number = results["data"]["num_common_windows"]
    assert 1 < number < 40
    for arm in ("flat", "chance"):
        with np.load(tmp_path / "out/arms" / arm / "seed0/bound.npz") as content:
            assert content["nll_nats"].shape == (number,)


def test_generated_prefixes_are_those_of_the_stage_before(tmp_path):
    overrides = ["training.generated_prefix.prob=0.5", "training.generated_prefix.num_steps=2"]
    arms = [{"name": "generated", "kind": "prefix", "overrides": overrides}, STUDY["arms"][1]]
    study = write_study(tmp_path / "study.yaml", arms=arms, sampling=[], lengths=[4, 40])
    success("study", "run", study, "--out", tmp_path / "out")
    found = entries(results_of(tmp_path / "out"))
    first, second = found["generated", 0]["runs"]
    config = yaml.safe_load((tmp_path / "out" / second["folder"] / "config.yaml").read_text())
    assert config["training"]["generated_prefix"]["stage_paths"] == [str(tmp_path / "out" / first["folder"])]
    assert found["one_way", 0]["runs"][0]["folder"] == first["folder"]


def test_folders_that_are_there(tmp_path, stories, valid_stories):
    corpus = {"folders": [{"method": "constituency", "train": str(stories), "valid": str(valid_stories)}]}
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], corpus=corpus, sampling=[])
    success("study", "run", study, "--out", tmp_path / "out")
    assert results_of(tmp_path / "out")["data"]["path"] == str(stories)
    assert not (tmp_path / "out/data").exists()
    arms = [{"name": "chance", "kind": "flat", "method": "random"}]
    corpus = {"folders": [{"method": "random", "train": str(stories), "valid": str(valid_stories)}]}
    study = write_study(tmp_path / "study.yaml", arms=arms, corpus=corpus)
    message = failure("study", "run", study, "--out", tmp_path / "other")
    assert f"corpus.folders gives {stories} for the method random, and it was made with constituency" in message


def test_chance_per_word_and_per_occurrence(tmp_path):
    """Two arms of one method with data of their own: equal words are kept or dropped everywhere, or not."""
    methods = ("random", "random_per_word")
    arms = [{"name": method, "kind": "prefix", "method": method} for method in methods]
    study = write_study(tmp_path / "study.yaml", arms=arms, lengths=[4, 40], sampling=[])
    success("study", "run", study, "--out", tmp_path / "out")
    found, several = entries(results_of(tmp_path / "out")), {}
    for method, name in zip(methods, ("little_train", "little_per_word_train"), strict=True):
        assert "random_per_word" in found["random_per_word", 0]["description"]
        dataset = PreprocessedDataset.open(tmp_path / "out/data/random" / name)
        assert dataset.settings.scorer.get("per") == (None if method == "random" else "word")
        of_token = {}
        for record in dataset.shards[0].records():
            for token, value in zip(record.token_ids.tolist(), record.importance.tolist(), strict=True):
                of_token.setdefault(token, set()).add(value)
        several[method] = sum(len(values) > 1 for values in of_token.values())
    # A token is a word here, or a sign.
    assert several["random_per_word"] == 0
    assert several["random"] > 20
    first, other = (found[method, 0]["runs"][0]["folder"] for method in methods)
    assert first != other
    folders = {
        "train": str(tmp_path / "out/data/random/little_train"),
        "valid": str(tmp_path / "out/data/random/little_valid"),
    }
    corpus = {"folders": [{"method": "random_per_word", **folders}]}
    study = write_study(tmp_path / "study.yaml", arms=arms[1:], corpus=corpus)
    message = failure("study", "run", study, "--out", tmp_path / "other")
    assert (
        f"corpus.folders gives {folders['train']} for the method random_per_word, and it was made with random;"
        in message
    )


BY_LENGTH = """
import re

def words(texts, sign):
    return [[(*word.span(), sign * len(word.group())) for word in re.finditer("[a-z]+", text)] for text in texts]

def long(texts):
    return words(texts, 1)

def short(texts):
    return words(texts, -1)
"""


def test_functions_of_a_user(tmp_path):
    """Two arms of one file with data of their own, made anew where the file has changed."""
    file = tmp_path / "mine.py"
    file.write_text(BY_LENGTH)
    methods = [f"{file}:{name}" for name in ("long", "short")]
    arms = [
        {"name": name, "kind": "prefix", "method": method}
        for name, method in zip(("long", "short"), methods, strict=True)
    ]
    study = write_study(tmp_path / "study.yaml", arms=arms, lengths=[4, 40], sampling=[])
    success("study", "run", study, "--out", tmp_path / "out")
    found = entries(results_of(tmp_path / "out"))
    assert found["long", 0]["runs"][0]["folder"] != found["short", 0]["runs"][0]["folder"]
    assert f"{file}:long" in found["long", 0]["description"]
    folders = {split: tmp_path / f"out/data/custom/little_mine_long_{split}" for split in ("train", "valid")}
    assert PreprocessedDataset.open(folders["valid"]).settings.scorer["function"] == "mine.py:long"
    checkpoint = tmp_path / "out" / found["short", 0]["runs"][0]["folder"] / "checkpoints/latest/config.json"
    assert json.loads(checkpoint.read_text())["choice"]["function"] == "mine.py:short"

    there = {split: str(folder) for split, folder in folders.items()}
    given = write_study(
        tmp_path / "given.yaml", arms=arms[:1], corpus={"folders": [{"method": methods[0], **there}]}, sampling=[]
    )
    success("study", "run", given, "--out", tmp_path / "given")
    assert results_of(tmp_path / "given")["data"]["path"] == there["train"]
    arms[1]["name"] = "long"
    given = write_study(
        tmp_path / "given.yaml", arms=arms[1:], corpus={"folders": [{"method": methods[1], **there}]}, sampling=[]
    )
    message = failure("study", "run", given, "--out", tmp_path / "other")
    assert f"for the method {methods[1]}, now mine.py:short of SHA-256 " in message
    assert "and it was made with mine.py:long of SHA-256 " in message

    file.write_text(file.read_text() + "# another version\n")
    assert "was made with other settings" in failure("study", "run", study, "--out", tmp_path / "out")
    file.unlink()
    assert "mine.py:long cannot be read (No such file" in failure("study", "run", study, "--out", tmp_path / "out")


def test_a_drawing_for_each_stage(tmp_path):
    """A cascade is drawn as each entry says, a flat model as the last one does."""
    each = {"name": "each", "num_samples": 2, "predictor": ["analytic", "first_hitting"], "steps": 3}
    each["tokens_per_call"] = [None, 8]
    arms = [STUDY["arms"][0], STUDY["arms"][1]]
    study = write_study(tmp_path / "study.yaml", arms=arms, lengths=[4, 40], sampling=[each])
    success("study", "run", study, "--out", tmp_path / "out")
    found = entries(results_of(tmp_path / "out"))
    [flat], [cascade] = (found[name, 0]["sampling"] for name in ("flat", "one_way"))
    assert [flat["options"][name] for name in ("predictor", "steps", "tokens_per_call")] == [
        ["first_hitting"],
        [None],
        [8],
    ]
    assert flat["nfe"] == 5
    assert cascade["options"]["predictor"] == ["analytic", "first_hitting"]
    # Of 3 steps and the last one only those are made in which a text changes.
    assert 5 < cascade["nfe"] <= 9


def test_windows_that_another_arm_drops(tmp_path):
    """If an arm is changed so that it drops windows, the bounds of the others are measured anew on what is left."""
    own = "data.unique=false"
    base = [entry for entry in STUDY["base"] if "unique" not in entry]

    def arms(unique: str) -> list[dict[str, object]]:
        others = {"name": "cascade", "kind": "prefix", "overrides": [f"data.unique={unique}"]}
        return [{"name": "flat", "kind": "flat", "overrides": [own]}, others]

    settings = {"base": base, "lengths": [4, 30, 40], "sampling": []}
    for unique in ("false", "true"):
        study = write_study(tmp_path / "study.yaml", arms=arms(unique), **settings)
        success("study", "run", study, "--out", tmp_path / "out", "evaluate.num_windows=40")
    results = results_of(tmp_path / "out")
    number = results["data"]["num_common_windows"]
    assert 1 < number < 40
    assert [entry["bound"]["num_windows"] for entry in results["arms"]] == [number, number]
    assert len(results["paired"]) == 1


def test_folders_of_different_tokenizers(tmp_path, stories, make_stories):
    other = Tokenizer.train(["a few words of another language"], 300)
    valid = make_stories(tmp_path / "data", split="valid", num=20, seed=1, tokenizer=other)
    corpus = {"folders": [{"method": "constituency", "train": str(stories), "valid": str(valid)}]}
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], corpus=corpus)
    message = failure("study", "run", study, "--out", tmp_path / "out")
    assert f"{valid} has the tokenizer {other.fingerprint} and other data of the study " in message


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"sead": 1}, [], "the key sead is unknown; did you mean seeds?"),
        ({}, ["--arm", "plain"], "the arm plain is not in the study; it has flat, one_way, joint, placed"),
        ({}, ["--seed", 4], "the seed 4 is not in the study; it has 0"),
        ({}, ["--workers", 0], "--workers is 0; it must be at least 1"),
        ({}, ["--executor", "ray"], "--executor is 'ray'; it must be one of local, slurm"),
        ({}, ["--executor", "slurm"], "Slurm has to know where to run, and no partition is given; give --partition"),
        (
            {},
            ["--executor", "slurm", "--partition", "p", "--workers", 2],
            "--workers is 2, and --executor slurm starts one job for each arm and seed; leave it out",
        ),
        ({}, ["--partition", "p"], "--executor local has no use for --partition 'p'"),
        ({"figures": ["beauty"]}, [], "the figure beauty is not in the study; it has num_texts, "),
        ({"judge": "nowhere/at/all"}, [], "nowhere/at/all"),
        (
            {"arms": [{"name": "x", "kind": "flat", "method": "randon"}]},
            [],
            "the method of arm x is 'randon'; it must be one of constituency, keybert_no_stopword, keybert, tfidf, "
            "random, random_per_word, or FILE.py:FUNCTION",
        ),
        (
            {"arms": [{"name": "x", "kind": "flat", "method": "custom"}]},
            [],
            "the method of arm x is 'custom'; it must be one of ",
        ),
        (
            {"arms": [{"name": "x", "kind": "flat", "method": "mine:f"}]},
            [],
            "arm x: the scorer is 'mine:f'; give a file of Python and a function in it",
        ),
        (
            {"arms": [{"name": "x", "kind": "flat", "method": "no_such.py:f"}]},
            ["--executor", "slurm", "--partition", "p"],
            "arm x: the file of the scorer no_such.py:f cannot be read (No such file or directory)",
        ),
        (
            {"sampling": [{"name": "two", "predictor": ["analytic", "euler"]}]},
            [],
            "drawing two: 2 predictors are given for 3 stages; give one for all of them, or one for each",
        ),
        (
            {"sampling": [{"name": "odd", "predictor": ["analytic", "euler", "entropy"], "steps": [2, 2, 2]}]},
            [],
            "drawing odd: steps is 2 and the predictor entropy, which has no time grid",
        ),
        ({"corpus": {"dataset": "python-docs"}}, [], "corpus.dataset is python-docs and neither corpus.tokenizer"),
        ({"lengths": [40]}, [], "arm one_way: lengths is [40], and a cascade has at least 2 stages; give more"),
        ({"base": ["optim.lrr=1"]}, [], "arm flat: the key optim.lrr is unknown; did you mean optim.lr?"),
        (
            {"arms": [{"name": "p", "kind": "placed", "overrides": ["training.prefix_noise.prob=0.1"]}]},
            [],
            "arm p: conditioning is placed and training.prefix_noise.prob is 0.1; a placed stage needs 0.0",
        ),
        (
            {"sampling": [{"name": "x", "predictor": "first_hitting", "steps": 3}]},
            [],
            "steps is 3 and the predictor first_hitting, which has no time grid",
        ),
        ({"budget": {"token_forwards": 159}}, [], "budget.token_forwards is 159, and a step of every run of arm flat"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(tmp_path, changes, flags, message):
    study = write_study(tmp_path / "study.yaml", **changes)
    assert message in failure("study", "run", study, "--out", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_judge_reads_the_texts_and_the_real_ones(tmp_path, judge):
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=STUDY["sampling"][:1])
    success("study", "run", study, "--out", tmp_path / "out", f"judge='{judge}'")
    results = results_of(tmp_path / "out")
    [entry] = results["arms"]
    assert entry["sampling"][0]["figures"]["generative_ppl_corpus"] > 1
    assert results["reference"]["figures"]["generative_ppl_corpus"] > 1


def test_another_judge_of_the_same_name_reads_no_text(tmp_path, judge):
    own = shutil.copytree(judge, tmp_path / "judge")
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=STUDY["sampling"][:1])
    command = ("study", "run", study, "--out", tmp_path / "out", f"judge='{own}'")
    success(*command)
    weights = load_file(own / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, own / "model.safetensors", {"format": "pt"})
    # What is there was read by the former one, and nothing is left to read.
    success(*command)
    study = write_study(tmp_path / "study.yaml", arms=STUDY["arms"][:1], sampling=[{"name": "other", "num_samples": 8}])
    done = run(cdllm, *command)
    assert done.returncode == 3
    assert "is not the one that has read texts of this study before: it has other weights or" in done.stderr
    shutil.copyfile(judge / "model.safetensors", own / "model.safetensors")
    success(*command)
    [entry] = results_of(tmp_path / "out")["arms"]
    assert entry["sampling"][0]["figures"]["generative_ppl_corpus"] > 1


def test_folders_of_no_study(tmp_path):
    assert f"{tmp_path} is not the folder of a study: it has no study.yaml" in failure("study", "collect", tmp_path)
    study = write_study(tmp_path / "study.yaml", **SMALL)
    success("study", "run", study, "--out", tmp_path / "out", "--arm", "flat")
    (tmp_path / "out/records/bounds/flat/seed0.json").write_text("{")
    message = failure("study", "collect", tmp_path / "out")
    assert "seed0.json is damaged (JSONDecodeError); remove it, and the part is looked at again" in message


def test_shipped_studies_are_listed():
    shown = success("study", "list").stdout
    assert "tiny-stories: stories, 1.2e+07 token_forwards an arm, 2 seeds; flat, prefix_one_way" in shown
    assert "prose-small: wikitext103" in shown


def test_two_processes_share_the_work_and_stop_together(tmp_path):
    """Told to stop by SIGTERM, both keep their step, and the same command ends as one process does alone."""
    study = write_study(tmp_path / "study.yaml", **{**SMALL, "budget": {"token_forwards": 20_000}})
    command = ["study", "run", study, "--out", tmp_path / "two", "--workers", 2]
    with started(cdllm, *command) as process:
        deadline = time.monotonic() + 200
        while len(list((tmp_path / "two").glob("runs/*/metrics.jsonl"))) < 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send(signal.SIGTERM)
        ended = process.wait()
    assert ended.returncode == 75, ended.stdout + ended.stderr
    assert "the study was told to stop; what is finished is kept, and the same command goes on" in ended.stderr
    assert run(cdllm, *command).returncode == 0
    success("study", "run", study, "--out", tmp_path / "one")
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    assert what_must_be_equal(results_of(tmp_path / "two")) == what_must_be_equal(results_of(tmp_path / "one"))


def test_ctrl_c(tmp_path):
    study = write_study(tmp_path / "study.yaml", **{**SMALL, "budget": {"token_forwards": 200_000}})
    with started(cdllm, "study", "run", study, "--out", tmp_path / "out") as process:
        deadline = time.monotonic() + 200
        while not list((tmp_path / "out").glob("runs/*/metrics.jsonl")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send(signal.SIGINT)
        ended = process.wait()
    assert ended.returncode == 130, ended.stdout + ended.stderr
    assert re.search(r"was stopped at step \d+ of \d+, which is kept; the same command goes on", ended.stderr)
