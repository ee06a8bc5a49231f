"""Before windows are built that take long, a batch of chance is computed, so that a lack of memory is told at once."""

import weakref
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from cascaded_dllm.assemble import inputs
from cascaded_dllm.assemble import run as assemble_module
from cascaded_dllm.assemble.inputs import gather_inputs
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import DryBatchError, OutputError
from cascaded_dllm.train import dry_batch, execution
from cascaded_dllm.train.trainer import StepResult, Trainer
from tests.pipeline import tiny


@pytest.fixture
def rehearsed(monkeypatch):
    """All windows take long to build; what is rehearsed, each with whether they were built, and tensors that stay."""
    monkeypatch.setattr(inputs, "_MANY_TOKENS", 1)
    seen = []

    def try_and_note(trainer):
        dry_batch.try_one_batch(trainer)
        part = next(iter(trainer._parts()))
        prefix = None if part.prefix is None else tuple(part.prefix.shape)
        seen.append((tuple(part.target.shape), prefix, part.places is not None, weakref.ref(trainer.model)))

    monkeypatch.setattr(assemble_module, "try_one_batch", try_and_note)
    return seen


@pytest.mark.parametrize(
    ("overrides", "shapes"),
    [
        (["stage=1"], ((2, 4), None, False)),
        (["stage=2"], ((2, 8), (2, 4), False)),
        (["stage=2", "conditioning=placed"], ((2, 8), (2, 4), True)),
        (["baseline=true"], ((2, 40), None, False)),
        (
            ["stage=3", "training.generated_prefix.prob=1", "training.generated_prefix.stage_paths=['{runs}/stage2']"],
            ((2, 40), (2, 8), False),
        ),
    ],
)
def test_a_batch_is_tried_before_windows_are_built(new_stories, runs, tmp_path, rehearsed, overrides, shapes):
    """Of the same shapes as one of the run, and nothing of it stays: neither a network nor another number."""
    overrides = ["training.accum=2", *(override.format(runs=runs) for override in overrides)]
    run = assemble_run(tiny.config(new_stories, tmp_path / "run", *overrides))
    ((*found, model),) = rehearsed
    assert tuple(found) == shapes
    assert model() is None
    again = assemble_run(tiny.config(new_stories, tmp_path / "again", *overrides))
    assert len(rehearsed) == 1, "the windows are there"
    losses = [[e.loss_nats_per_token for e in r.events() if isinstance(e, StepResult)] for r in (run, again)]
    assert losses[0] == losses[1]


def test_no_room_is_told_before_windows_are_built(new_stories, tmp_path, rehearsed, monkeypatch):
    monkeypatch.setattr(Trainer, "rehearse", mock.Mock(side_effect=MemoryError()))
    with pytest.raises(DryBatchError, match=r"there is no room for 4 x \(0 \+ 4\) tokens .*give training.accum=2"):
        assemble_run(tiny.config(new_stories, tmp_path / "run"))
    assert not (new_stories / "stages").exists()
    assert not (tmp_path / "run").exists()


def test_little_data_is_not_tried_twice(new_stories, tmp_path, rehearsed, monkeypatch):
    monkeypatch.setattr(inputs, "_MANY_TOKENS", 1_000_000)
    assemble_run(tiny.config(new_stories, tmp_path / "run"))
    assert rehearsed == []


def test_what_only_the_run_can_show_is_not_tried_before(new_stories, tmp_path, rehearsed, monkeypatch):
    monkeypatch.setattr(execution, "compile_blocks", lambda model, device: None)
    assemble_run(tiny.config(new_stories, tmp_path / "run", "training.compile=true"))
    assert rehearsed == []


@pytest.fixture
def new_stories(make_stories, tmp_path):
    """20 stories without windows."""
    return make_stories(tmp_path / "data", split="train", num=20, seed=5)


@pytest.mark.parametrize(("strategy", "shapes"), [("ddp", [(2, 4)]), ("fsdp", [])])
def test_one_process_tries_its_share(new_stories, tmp_path, rehearsed, strategy, shapes):
    """Of a batch of 4 for two processes; weights that are split need both of them."""
    rehearse = assemble_module._rehearsal(SimpleNamespace(size=2), torch.device("cpu"))
    gather_inputs(tiny.config(new_stories, tmp_path / "run", f"training.strategy={strategy}"), rehearse)
    assert [shape for shape, *_ in rehearsed] == shapes


def test_a_network_that_does_not_fit(stories, tmp_path, monkeypatch):
    """Neither into the memory of the host, where it is made, nor into that of the device, beside its average.

    The width exceeds what a process can address, so no system gives the memory in the hope that it is never touched.
    """
    config = tiny.config(stories, tmp_path / "run")
    message = r"no room for the network and what belongs to it in the memory of cpu \({}\); give a smaller model"
    huge = tiny.config(stories, tmp_path / "run", "model.hidden_size=800000000000", "model.num_heads=1")
    with pytest.raises(DryBatchError, match=message.format(".*can't allocate memory.*")):
        assemble_run(huge)
    with monkeypatch.context() as patch:
        patch.setattr(assemble_module, "place", mock.Mock(side_effect=torch.OutOfMemoryError("out of memory\nmore")))
        with pytest.raises(DryBatchError, match=message.format("out of memory")):
            assemble_run(config)
        patch.setattr(assemble_module, "place", mock.Mock(side_effect=RuntimeError("a mistake of ours")))
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            assemble_run(config)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_found_before_windows_are_built(new_stories, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/to_zoe.txt").write_text("Dear Zoe")
    before = sorted(new_stories.rglob("*"))
    with pytest.raises(OutputError, match="letters exists and is not a run folder; name an empty or a new one"):
        assemble_run(tiny.config(new_stories, tmp_path / "letters"))
    assert sorted(new_stories.rglob("*")) == before
