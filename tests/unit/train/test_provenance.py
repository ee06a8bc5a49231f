"""The record of every start of a run."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from cascaded_dllm import __version__
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.train import provenance
from cascaded_dllm.train.provenance import append_start, checkout_commit, device_facts, process_facts
from cascaded_dllm.train.run_events import Snapshot


def starts(folder):
    return json.loads((folder / "provenance.json").read_text())["starts"]


def test_starts_are_added_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "model=tiny"])
    append_start(tmp_path, {"data": {"fingerprint": "abc"}}, step=0)
    first = (tmp_path / "provenance.json").read_text()
    append_start(tmp_path, {"data": {"fingerprint": "abc"}}, step=7)
    assert [start["step"] for start in starts(tmp_path)] == [0, 7]
    assert starts(tmp_path)[0] == json.loads(first)["starts"][0]
    for start in starts(tmp_path):
        assert start["command"] == ["train.py", "model=tiny"]
        assert start["data"] == {"fingerprint": "abc"}
        assert start["versions"]["torch"] == torch.__version__
        assert start["versions"]["cascaded-dllm"] == __version__
        assert abs(datetime.now(UTC) - datetime.fromisoformat(start["time"])) < timedelta(minutes=5)
        assert start["host"]


def test_a_run_records_its_starts(make_run):
    first = make_run(provenance={"tokenizer": "0123"})
    for event in first.events():
        if isinstance(event, Snapshot) and event.step == 3:
            break
    list(make_run(provenance={"tokenizer": "0123"}).events())
    list(make_run(provenance={"tokenizer": "0123"}).events())
    assert [(start["step"], start["tokenizer"]) for start in starts(first.folder)] == [
        (0, "0123"),
        (3, "0123"),
        (6, "0123"),
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"starts": 3}', '{"other": []}'])
def test_a_record_that_cannot_be_read_is_not_overwritten(tmp_path, content):
    path = tmp_path / "provenance.json"
    path.write_text(content)
    with pytest.raises(
        CheckpointError, match=r"provenance\.json cannot be read \(\w+\), and writing .*; repair it, or"
    ):
        append_start(tmp_path, {}, step=1)
    assert path.read_text() == content


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_of_a_checkout(tmp_path):
    assert checkout_commit(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert checkout_commit(tmp_path) is None, "there is no commit yet"
    (tmp_path / "a.py").write_text("1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").write_text("what no commit knows is no change")
    assert checkout_commit(tmp_path) == {"id": commit, "has_changes": False}
    (tmp_path / "a.py").write_text("2\n")
    assert checkout_commit(tmp_path) == {"id": commit, "has_changes": True}


def test_commit_without_git(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout_commit(tmp_path) is None


def test_devices(monkeypatch):
    assert device_facts(torch.device("cpu")).keys() == {"type", "name", "threads"}

    class Properties:
        name, total_memory = "NVIDIA H200", 141

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    assert device_facts(torch.device("cuda")) == {"type": "cuda", "name": "NVIDIA H200", "memory_bytes": 141}


def test_libraries_that_are_not_installed_have_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "_LIBRARIES", ("torch", "no-such-library"))
    assert process_facts()["versions"].keys() == {"cascaded-dllm", "python", "torch"}


@pytest.mark.parametrize(
    ("told", "processor", "expected"),
    [
        ("processor : 0\nmodel name\t: Example 9000 @ 2 GHz\nmodel name\t: another\n", "x86", "Example 9000 @ 2 GHz"),
        # As on an ARM machine, whose file names no model.
        ("processor : 0\nBogoMIPS : 243.75\n", "", "machine"),
        (None, "arm", "arm"),
        (None, "", "machine"),
    ],
)
def test_name_of_the_processor(tmp_path, monkeypatch, told, processor, expected):
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(provenance, "Path", lambda path: tmp_path / Path(path).relative_to("/proc"))
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "machine")
    facts = device_facts(torch.device("cpu"))
    assert (facts["type"], facts["name"]) == ("cpu", expected)
