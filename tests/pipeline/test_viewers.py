"""TensorBoard and Weights & Biases show the numbers of metrics.jsonl: what they wrote is read back from their files."""

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cascaded_dllm.cli.main import app
from tests.pipeline import tiny
from tests.processes import run
from tests.repo.source_tree import CHECKOUT

pytestmark = pytest.mark.slow


def results_of(commands: list[list[str]]) -> None:
    """In a process, for W&B leaves much behind: how the commands end and what they say, as a line of JSON."""
    results = [CliRunner().invoke(app, arguments) for arguments in commands]
    print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))


@pytest.fixture(scope="module")
def place(stories, valid_stories, tmp_path_factory):
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    place = tmp_path_factory.mktemp("viewers")
    common = ["train", "--data", str(stories), "--valid", str(valid_stories), *tiny.OVERRIDES]
    common += ["logging.project=stories", "training.peak_flops=1e9"]
    shown = [*common, "--out", "run", "logging.wandb=offline", "logging.tensorboard=true"]
    # A run, the same run made longer, and one that nobody is logged in for.
    commands = [shown, [*shown, "training.num_steps=4"], [*common, "--out", "other", "logging.wandb=online"]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment["HOME"] = str(place / "home")
    done = run(results_of, commands, folder=place, environment=environment)
    assert done.returncode == 0, done.stderr
    (place / "results.json").write_text(done.stdout.splitlines()[-1])
    return place


@pytest.fixture(scope="module")
def lines(place):
    """What metrics.jsonl holds, without what is not known."""
    entries = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if value is not None} for entry in entries]


def test_the_commands_end_well_and_say_nothing_more(place):
    results = json.loads((place / "results.json").read_text())
    assert [(exit_code, stderr) for exit_code, _, stderr in results[:2]] == [(0, ""), (0, "")]
    assert "resumed at step 2" in results[1][1]
    exit_code, _, stderr = results[2]
    assert exit_code == 2
    assert stderr.startswith("error: Weights & Biases cannot be used (No API key configured")
    assert stderr.endswith("run `wandb login`, or give logging.wandb=offline and `wandb sync` later\n")


def test_tensorboard_shows_every_number(place, lines):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "run" / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    expected: dict[int, dict[str, float]] = {}
    for line in lines:
        expected.setdefault(line["step"], {}).update({name: line[name] for name in line if name != "step"})
    assert found.keys() == expected.keys() == {1, 2, 3, 4}
    for step, values in expected.items():
        # Event files hold float32.
        assert found[step] == pytest.approx(values, rel=1e-6)
    assert {"loss_nats_per_token", "tokens_per_second", "mfu", "bound_nats_per_token"} <= found[4].keys()
    shown = events.Tensors("samples/unconditional/0/text_summary")
    assert [event.tensor_proto.string_val[0].decode() for event in shown] == [stored_text(place, n) for n in (2, 4)]


def stored_text(place: Path, step: int) -> str:
    """The one text of a snapshot, behind its figures."""
    _, text, end = (place / "run" / "samples" / f"step_{step}.txt").read_text().split(f"\n{'=' * 80}\n")
    assert end == ""
    return text


def records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: seven bytes, then blocks as in the log files of LevelDB."""
    content, block = path.read_bytes(), 32768
    assert content[:4] == b":W&B"
    position, parts = 7, []
    while position < len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield b"".join(parts)
            parts = []


def offline_runs(place: Path) -> list[tuple[Any, list[dict[str, Any]]]]:
    """What Weights & Biases wrote at every start: the description of the run, and its history."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted((place / "run" / "wandb").glob("offline-run-*/run-*.wandb")):
        run, history = None, []
        for content in records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "run":
                run = record.run
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                history.append(items)
        found.append((run, history))
    return found


def test_wandb_holds_every_number_of_one_run(place, lines):
    """Taken up again it is the same one, by the id in the run folder."""
    (first, before), (second, after) = offline_runs(place)
    run_id = (place / "run" / "wandb_id.txt").read_text().strip()
    assert first.run_id == second.run_id == run_id
    assert (first.project, first.display_name) == ("stories", "stories-tiny-stage1")
    config = {item.key: json.loads(item.value_json) for item in second.config.update}
    stored = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert {key: config[key] for key in stored} == stored
    starts = json.loads((place / "run" / "provenance.json").read_text())["starts"]
    assert config["provenance"] == {name: value for name, value in starts[1].items() if name != "config"}
    assert {"commit", "data"} <= config["provenance"].keys()
    assert config["provenance"]["data"]["fingerprint"]
    own = [
        {name: value for name, value in entry.items() if not name.startswith("_") and "samples" not in name}
        for entry in [*before, *after]
    ]
    assert [entry for entry in own if len(entry) > 1] == lines
    tables = [entry for entry in [*before, *after] if any(name.startswith("samples") for name in entry)]
    assert [entry["step"] for entry in tables] == [2, 4]


def test_wandb_keeps_the_texts(place):
    tables = sorted((place / "run" / "wandb").glob("offline-run-*/files/media/table/**/*.json"))
    rows = [json.loads(path.read_text())["data"] for path in tables]
    assert rows == [[[0, stored_text(place, step)]] for step in (2, 4)]


def test_documented_way_to_join_starts(place):
    """Of the command in docs/training.md: its files are there, and its options exist."""
    (command,) = re.findall(r"^(wandb sync .*)$", (CHECKOUT / "docs" / "training.md").read_text(), re.MULTILINE)
    found = re.fullmatch(r'wandb sync (--[a-z]+) "\$\(cat RUN/(\S+)\)" RUN/(\S+)', command)
    assert found
    option, identifier, pattern = found.groups()
    starts = sorted((place / "run").glob(pattern))
    run_id = (place / "run" / identifier).read_text().strip()
    assert [start.name.rpartition("-")[2] for start in starts] == [run_id] * 2
    environment = {**os.environ, "HOME": str(place / "home"), "WANDB_MODE": "offline", "WANDB_API_KEY": "0" * 40}
    tried = [sys.executable, "-m", "wandb", "sync", "--dry-run", option, run_id, *map(str, starts)]
    done = subprocess.run(tried, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 run(s)" in done.stderr
