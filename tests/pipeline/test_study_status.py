"""`cdllm study status`: what is done, at work, left or lost of a study, and how long its trainings still take."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cascaded_dllm.cli.console import clock
from cascaded_dllm.cli.interrupt import StopRequest
from cascaded_dllm.cli.main import app
from cascaded_dllm.study.folder import StudyFolder
from tests.pipeline.commands import failure, success
from tests.pipeline.test_study import SMALL, STUDY, stop_after, write_study

pytestmark = pytest.mark.slow


def parts_of(out: Path) -> dict[str, dict]:
    """What a script is told, by the names of the parts."""
    return {part["name"]: part for part in json.loads(success("study", "status", out, "--json").stdout)["parts"]}


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a study that was stopped within its first training."""
    study = write_study(tmp_path / "study.yaml", **SMALL)
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "out")]).exit_code == 75
    return tmp_path / "out"


def first_run(out: Path) -> tuple[str, list[dict]]:
    """The name of the part that was begun, and its metrics."""
    [folder] = out.glob("runs/*")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return f"runs/{folder.name.partition('-')[2]}", [line for line in lines if "tokens_per_second" in line]


def test_a_training_that_was_left(stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    name, lines = first_run(stopped)
    parts = parts_of(stopped)
    begun, others = parts.pop(name), list(parts.values())
    [folder] = stopped.glob("runs/*")
    kept = max(int(path.name.removeprefix("step_")) for path in folder.glob("checkpoints/step_*"))
    assert (begun["state"], begun["step"]) == ("begun", kept)
    assert begun["step"] < begun["num_steps"]
    seconds = sum(line["tokens"] / line["tokens_per_second"] for line in lines) / len(lines)
    assert begun["seconds_left"] == pytest.approx((begun["num_steps"] - begun["step"]) * seconds)
    assert {part["state"] for part in others} == {"waiting"}
    trainings = [part for part in others if part["num_steps"] is not None]
    assert {part["step"] for part in trainings} == {0}
    # Four runs of two arms; the joint stages cost other numbers of positions a step, at the same pace a position.
    assert len(trainings) == 3
    assert all(part["seconds_left"] > 0 for part in trainings)
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before
    shown = success("study", "status", stopped).stdout
    assert shown.startswith(f"0 of {len(others) + 1} parts done, 1 begun, {len(others)} waiting\n")
    steps = sum(part["num_steps"] - part["step"] for part in [begun, *trainings])
    left = clock(sum(part["seconds_left"] for part in [begun, *trainings]))
    told = f"{steps} steps of training left, about {left} on one process; bounds and texts come on top"
    assert told in " ".join(shown.split())
    assert f"{begun['what']}: begun, {begun['step']} of {begun['num_steps']}, " in shown
    assert f"stage 3: waiting, 0 of {trainings[-1]['num_steps']}" in shown


def test_who_is_at_work(stopped):
    """Two at a time take half as long as one, but not less than those that wait for each other."""
    names = [name for name, part in parts_of(stopped).items() if part["num_steps"] is not None][:3]
    folder = StudyFolder(stopped)
    with folder.lock(names[0]), folder.lock(names[1]):
        parts = parts_of(stopped)
        shown = " ".join(success("study", "status", stopped).stdout.split())
    assert [parts[name]["state"] for name in names] == ["at work", "at work", "waiting"]
    assert "on the 2 that train now; bounds" in shown


def test_what_hangs_on_a_run_that_broke_down(tmp_path):
    arms = [{"name": "wild", "kind": "prefix", "overrides": ["optim.lr=1e30"]}]
    study = write_study(tmp_path / "study.yaml", arms=arms, sampling=STUDY["sampling"][:1])
    CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "out")])
    parts = parts_of(tmp_path / "out")
    assert {parts[name]["state"] for name in ("bounds/wild/seed0", "samples/wild/seed0/first")} == {"lost"}
    broken = [part for part in parts.values() if part["state"] == "diverged"]
    assert broken
    assert all(part["reason"].startswith("stage ") for part in broken)
    assert f"{broken[0]['name']}: diverged: stage " in success("study", "status", tmp_path / "out").stdout


def test_nothing_is_known_before_the_first_steps(tmp_path, monkeypatch):
    study = write_study(tmp_path / "study.yaml", **SMALL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.yaml").write_text(study.read_text())
    shown = success("study", "status", tmp_path / "out").stdout
    assert "there is no data yet, and no process is making it" in shown
    with StudyFolder(tmp_path / "out").lock("data"):
        assert "the data is being made" in success("study", "status", tmp_path / "out").stdout
    told = json.loads(success("study", "status", tmp_path / "out", "--json").stdout)
    assert told == {"data": "waiting", "training_seconds_left": None, "parts": None, "arms": []}
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "is_made", lambda _: bool(list((tmp_path / "out").glob("records/data.json"))))
        CliRunner().invoke(app, ["study", "run", str(study), "--out", str(tmp_path / "out")])
    shown = success("study", "status", tmp_path / "out").stdout
    assert "how long they take is known after the first steps of a training" in " ".join(shown.split())
    StudyFolder(tmp_path / "out").settle("data", {"of": "another version of a function", "status": "done"})
    shown = " ".join(success("study", "status", tmp_path / "out").stdout.split())
    assert "the data was made with other settings" in shown


def test_a_study_that_is_done(tmp_path):
    study = write_study(tmp_path / "study.yaml", **SMALL)
    success("study", "run", study, "--out", tmp_path / "out")
    told = json.loads(success("study", "status", tmp_path / "out", "--json").stdout)
    assert (told["data"], told["training_seconds_left"]) == ("done", 0)
    [flat, _] = told["arms"]
    assert (flat["arm"], flat["seed"], flat["bound"], len(flat["trainings"])) == ("flat", 0, "bounds/flat/seed0", 1)
    assert {part["state"] for part in told["parts"]} == {"done"}
    shown = success("study", "status", tmp_path / "out").stdout
    number = len(told["parts"])
    assert shown.startswith(f"{number} of {number} parts done\n")
    assert "left" not in shown.splitlines()[1]


def test_a_folder_of_no_study(tmp_path):
    message = failure("study", "status", tmp_path)
    assert f"{tmp_path} is not the folder of a study: it has no study.yaml" in message
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "budge": 1}))
    assert "budge" in failure("study", "status", tmp_path)
