"""Two processes do what one does: the same samples, losses, weights, averages and bounds, replicated or split.

They are asked once, by `everything` in `in_processes`; the tests look at what they have brought.
"""

import itertools
import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cascaded_dllm.model.integrity import checkpoint_fault
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.group import Group
from tests.unit.train import in_processes
from tests.unit.train.forked import together, until_killed

pytestmark = pytest.mark.slow
BOTH = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What a single process finds."""
    return in_processes.numbers(in_processes.trainer_of(Group(), "single"))


@pytest.fixture(scope="module")
def plain_alone() -> dict[str, Any]:
    return in_processes.numbers(in_processes.trainer_of(Group(), "single", **in_processes.PLAIN_NETWORK))


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes has found."""
    in_processes.stop_after(in_processes.run_of(single(), folder / "single"), 6)
    for other in ("ddp", "fsdp"):
        shutil.copytree(folder / "single", folder / f"single for {other}", symlinks=True)
    return together(in_processes.in_the_group, in_processes.everything, folder, number=2)


def single():
    return in_processes.trainer_of(Group(), "single", num_steps=8)


def assert_close(one: list[list[float]], other: list[list[float]], tolerance: float = 1e-6) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=0, atol=tolerance)


# What no two runs have in common.
MEASURED = dict.fromkeys(("seconds", "tokens_per_second", "peak_memory_bytes", "mfu"))


@BOTH
def test_losses_of_20_steps(found, alone, strategy):
    for process in found:
        assert_close([process[strategy]["loss"]], [alone["loss"]])
        torch.testing.assert_close(
            torch.tensor(process[strategy]["norm"]), torch.tensor(alone["norm"]), rtol=1e-5, atol=0
        )
    assert len(alone["loss"]) == 20


@BOTH
def test_weights_and_averages_after_20_steps(found, alone, strategy):
    """Every step adds its rounding, of 1e-7 of the gradient; all processes have the same bits."""
    assert found[0][strategy]["weights"] == found[1][strategy]["weights"]
    assert found[0][strategy]["ema"] == found[1][strategy]["ema"]
    for what in ("weights", "ema"):
        assert_close(found[0][strategy][what], alone[what], 1e-5)


@BOTH
def test_numbers_of_a_plain_network(found, plain_alone, strategy):
    """Unnormalised scores, a joint prefix and no copy head, as in the original."""
    for process in found:
        numbers = process[f"{strategy} plain"]
        assert_close([numbers["loss"]], [plain_alone["loss"]])
        for what in ("weights", "ema"):
            assert_close(numbers[what], plain_alone[what], 1e-5)
    first, second = (process[f"{strategy} plain"] for process in found)
    assert (first["weights"], first["bound"]) == (second["weights"], second["bound"])


@BOTH
def test_samples_and_their_order(found, alone, strategy):
    """A batch of 12 in two parts: 3 windows a process and part, which are together the batch in its order."""
    parts = [process[strategy]["windows"][:40] for process in found]
    assert [batch_of(parts, step) for step in range(20)] == [batch_of([alone["windows"]], step) for step in range(20)]
    assert {len(part) for part in parts[0]} == {3}


def batch_of(parts: list[list[list[int]]], step: int) -> list[int]:
    """The windows of a batch in its order; `parts` are those of every process, two a step, dealt out one by one."""
    dealt = [process[2 * step + number] for number in range(2) for process in parts]
    return list(chain(*zip(*dealt, strict=True)))


@BOTH
def test_bound_is_the_same_number(found, alone, strategy):
    """Of equal weights; those of several processes differ from those of one in their last bits, so it is close only."""
    assert found[0][strategy]["bound"] == found[1][strategy]["bound"]
    assert_close([found[0][strategy]["bound"], found[0][strategy]["error"]], [alone["bound"], alone["error"]], 1e-4)
    assert len(alone["bound"]) == 11


@BOTH
def test_checkpoint_is_kept_when_samples_cannot_be_drawn(found, folder, strategy):
    """Also where no process could write it alone; the next start has nothing left to do but to draw them."""
    for process in found:
        assert process[f"{strategy} without samples"] == {
            "error": "the stage before is gone",
            "events": [("Resumed", 4), ("Snapshot", 4)],
        }
    run = folder / f"{strategy} without samples"
    assert checkpoint_fault(run / "checkpoints" / "step_4") is None
    assert (run / "samples" / "step_4.txt").is_file()


@BOTH
def test_one_is_asked_to_stop(found, folder, strategy):
    """All leave the bound, then the samples, which one draws alone where weights are whole; a third start has both."""
    ends = [process[f"{strategy} stopped"] for process in found]
    for bound, samples, end in ends:
        assert bound == [("StepResult", 4), ("Snapshot", 4), ("Stopped", 4)]
        assert samples == [("Resumed", 4), ("Evaluation", 4), ("Stopped", 4)]
        assert end[0] == ("Resumed", 4)
    assert ends[0][2] == [("Resumed", 4), ("Snapshot", 4)]
    lines = [json.loads(line) for line in (folder / f"{strategy} stopped" / "metrics.jsonl").read_text().splitlines()]
    assert [list(line)[1] for line in lines if line["step"] == 4] == [
        "loss_nats_per_token",
        "bound_nats_per_token",
        "conditional/multiset_overlap_mean_stage1_in_stage2",
    ]


@BOTH
@pytest.mark.parametrize("halves", ["both", "layout", "fill"])
def test_placed_stage(found, strategy, halves):
    """Its layout network is called by itself, before the other where that is not trained."""
    trainer = in_processes.placed_trainer(Group(), "single", halves)
    expected, texts = in_processes.numbers(trainer), in_processes.texts_of(trainer)
    for process in found:
        trained = process[f"{strategy} placed"][halves]
        assert_close([trained["loss"]], [expected["loss"]])
        for what in ("weights", "ema"):
            assert_close(trained[what], expected[what], 1e-5)
        assert_close([trained["bound"]], [expected["bound"]], 1e-4)
        assert trained["texts"] == texts


@BOTH
def test_taken_up_by_as_many_processes(found, strategy):
    for process in found:
        resumed = process[f"{strategy} resumed"]
        assert resumed["resumed at"] == 6
        assert resumed["same bits"]


@pytest.mark.parametrize(
    ("strategy", "source"), [("ddp", "fsdp"), ("fsdp", "ddp"), ("ddp", "single"), ("fsdp", "single")]
)
def test_taken_up_in_another_way(found, strategy, source):
    for process in found:
        assert_close(process[f"{strategy} from {source}"], process["ddp resumed"]["weights"])


@BOTH
def test_moved_to_one_process(found, folder, strategy):
    """The samples of steps 7 and 8 are those that the two processes would have seen, in the same order."""
    trainer = single()
    with in_processes.recorded(trainer) as asked:
        list(in_processes.run_of(trainer, folder / f"{strategy} for single").events())
    assert_close(in_processes.weights_of(trainer), found[0][f"{strategy} resumed"]["weights"])
    of_two = [process[f"{strategy} resumed"]["windows"] for process in found]
    for step in range(2):
        assert batch_of([asked], step) == batch_of(of_two, step)


@BOTH
def test_checkpoint_loads_like_any_other(found, folder, strategy):
    run = folder / strategy
    steps = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert steps == ["step_2", "step_4", "step_6", "step_8"]
    checkpoint = run / "checkpoints" / "latest"
    assert checkpoint_fault(checkpoint) is None
    assert (checkpoint / "optimizer").is_dir() == (strategy == "fsdp")
    listed = set(json.loads((checkpoint / "checksums.json").read_text()))
    files = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    assert listed == files - {"checksums.json"}
    model = ScoreModel.from_pretrained(run, weights="raw")
    weights = [parameter.flatten().tolist() for parameter in model.parameters()]
    assert weights == found[0][f"{strategy} resumed"]["weights"]
    assert load_file(checkpoint / "ema.safetensors").keys() == load_file(checkpoint / "model.safetensors").keys()
    assert [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []


@BOTH
def test_metrics_of_a_run_taken_up(found, folder, strategy):
    """Written by one process: every step once, the figures of every snapshot, and the bound."""
    lines = [
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in (strategy, f"{strategy} unbroken")
    ]
    assert [[line["step"] for line in part] for part in lines] == [[1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 8]] * 2
    assert [line | MEASURED for line in lines[0]] == [line | MEASURED for line in lines[1]]


@BOTH
def test_all_stop_where_one_is_not_finite(found, strategy):
    for process in found:
        broken = process[f"{strategy} broken"]
        assert "the gradient norm is" in broken["error"]
        assert "at step 3" in broken["error"]
        assert broken["unchanged"]


def test_group(found):
    for rank, process in enumerate(found):
        assert process["group"] == {
            "any": [False, True, True],
            "gather": ["from 0", "from 1"],
            "from_first": "of 0",
            "from_first raises": "DataError: process 0 has no data",
            "together": rank,
            "together raises": "DataError: process 1 has no data",
            "after_first": [rank],
        }


def test_three_processes_add_in_the_same_order_after_a_restart(tmp_path):
    """With two, a + b = b + a hides it: with three, sums depend on which gradients travel together."""
    found = together(in_processes.in_the_group, in_processes.interrupted, "ddp", tmp_path / "ddp", number=3)
    assert [process["same bits"] for process in found] == [True] * 3
    assert all(one["weights"] == other["weights"] for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(("strategy", "number", "num_deaths"), [("ddp", 2, 10), ("fsdp", 2, 3)])
def test_killed_again_and_again(tmp_path, strategy, number, num_deaths):
    """With SIGKILL in the middle of random steps: the same samples in the same order, and the same end, bit by bit."""
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    assert until_killed(in_processes.killed_once, strategy, unbroken, None, number=number)
    # Some on the way from one checkpoint to the next, some of the same step again.
    for death in sorted(np.random.default_rng(0).integers(1, 13, size=num_deaths).tolist()):
        assert not until_killed(in_processes.killed_once, strategy, run, death, number=number)
    assert until_killed(in_processes.killed_once, strategy, run, None, number=number)
    for name in ("model.safetensors", "ema.safetensors"):
        ends = [folder / "checkpoints" / "step_12" / name for folder in (run, unbroken)]
        assert ends[0].read_bytes() == ends[1].read_bytes()
    for rank in range(number):
        seen = [
            dict(json.loads(line) for line in (tmp_path / f"windows {name} {rank}").read_text().splitlines())
            for name in ("run", "unbroken")
        ]
        assert seen[0] == seen[1]
        assert list(seen[1]) == list(range(1, 13))
    metrics = [
        [json.loads(line) | MEASURED for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, unbroken)
    ]
    assert metrics[0] == metrics[1]
