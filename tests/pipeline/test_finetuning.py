"""A run that starts from the weights of another model: what it loses at first, and what it needs them for."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from cascaded_dllm.assemble import inputs
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.cli.main import app
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule, Noise
from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.train.objective import Objective
from cascaded_dllm.train.run_events import Evaluation
from cascaded_dllm.train.trainer import StepResult
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success
from tests.reference.plain_loss import plain_absorbing_loss

GOLDEN = Path(__file__).parents[1] / "golden"


def start(source: Path) -> list[str]:
    return ["pretrained.use_pretrained=true", f"pretrained.model_path='{source}'"]


def weights_of(run) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.trainer.model.parameters()])


def first_loss(run) -> float:
    return next(event.loss_nats_per_token for event in run.events() if isinstance(event, StepResult))


class StoredNoise:
    """The noise that the stored log scores were computed at, in the order in which training takes the sequences."""

    def __init__(self, order: np.ndarray) -> None:
        stored = load_file(GOLDEN / "legacy_run_expected.safetensors")
        self.stored = {name: value[torch.from_numpy(order)] for name, value in stored.items()}
        self.dsigma = torch.tensor([1.5, 0.25])[torch.from_numpy(order)]
        noise = self

        class Process(AbsorbingProcess):
            def sample_xt(self, x0, sigma, u):
                return noise.stored["xt"]

        class Schedule(LogLinearSchedule):
            def __call__(self, t):
                return Noise(noise.stored["sigma"], noise.dsigma)

        self.objective = Objective(Process(60), Schedule())


@pytest.fixture
def stored_windows(monkeypatch):
    """Windows of stage 3 of lengths 4, 8, 16 whose noised form is stored; what is masked there is any token."""
    stored = load_file(GOLDEN / "legacy_run_expected.safetensors")
    generator = torch.Generator().manual_seed(4)
    any_token = torch.randint(60, stored["xt"].shape, generator=generator)
    x0 = torch.where(stored["xt"] == 60, any_token, stored["xt"])
    arrays = StageArrays(
        spec=CascadeSpec((4, 8, 16)),
        packing="document",
        method="constituency",
        eos_id=0,
        vocab_size=60,
        tokenizer="unknown",
        fingerprint="by hand",
        dropped={},
        stages=tuple(ids.numpy().astype(np.int32) for ids in (stored["prefix"][:, :4], stored["prefix"], x0)),
        positions=(),
    )
    monkeypatch.setattr(inputs, "stage_dataset", lambda *_: (arrays, StageDataset(arrays, 3)))
    # The folder of the data has other tokens.
    monkeypatch.setattr(inputs, "require_models", lambda *_: None)
    return x0


@pytest.mark.parametrize(
    ("folder", "weights", "log_score"),
    [
        ("hub_model", "ema", "log_score_raw_weights"),
        ("legacy_run", "ema", "log_score_ema_weights"),
        ("legacy_run", "raw", "log_score_raw_weights"),
    ],
)
def test_first_loss_is_that_of_the_stored_log_scores(stories, tmp_path, stored_windows, folder, weights, log_score):
    """The reference implementation gave the log scores of the weights, and their loss is written down plainly.

    Random weights lose something else.
    """
    sizes = ["model.hidden_size=32", "model.num_blocks=2", "model.cond_dim=16", "stage=3", "stage_lengths=[4,8,16]"]
    given = [*sizes, *start(GOLDEN / folder), f"pretrained.weights={weights}", "training.batch_size=2"]
    run = assemble_run(tiny.config(stories, tmp_path / "run", *given))
    order = global_batch_indices(2, 2, 0, seed=run.trainer.loop.seed)
    noise = StoredNoise(order)
    run.trainer.objective = noise.objective
    expected, _ = plain_absorbing_loss(
        noise.stored[log_score].double(),
        noise.stored["xt"],
        stored_windows[torch.from_numpy(order)],
        noise.stored["sigma"].double(),
        noise.dsigma.double() / 2,
    )
    result = next(run.trainer.steps())
    # Log scores are stored to 1e-5.
    assert result.loss_nats_per_token == pytest.approx(float(expected) / 16, rel=1e-5)
    random = assemble_run(tiny.config(stories, tmp_path / "random", *given, "pretrained.use_pretrained=false"))
    random.trainer.objective = noise.objective
    assert next(random.trainer.steps()).loss_nats_per_token != pytest.approx(float(expected) / 16, rel=1e-2)


@pytest.fixture(scope="module")
def trained(stories, tmp_path_factory):
    """A stage that has seen the stories for sixty steps."""
    folder = tmp_path_factory.mktemp("trained") / "stage1"
    longer = ["training.num_steps=60", "training.batch_size=16", "training.ema=0.9", "training.log_every=50"]
    list(assemble_run(tiny.config(stories, folder, *longer, "training.snapshot_every=60")).events())
    return folder


def test_what_was_learnt_is_there_at_the_first_step(trained, stories, tmp_path):
    """On the same batch with the same noise; other seeds, so other batches, than those it was trained on."""
    for seed in (1, 2, 3):
        common = [f"training.seed={seed}", "training.batch_size=32"]
        random, tuned = (
            assemble_run(tiny.config(stories, tmp_path / f"{name}{seed}", *common, *more))
            for name, more in (("random", []), ("tuned", start(trained)))
        )
        assert first_loss(tuned) < 0.9 * first_loss(random)


def test_the_average_is_the_start_of_weights_and_average(trained, stories, tmp_path):
    run = assemble_run(tiny.config(stories, tmp_path / "run", *start(trained)))
    expected = load_stage(trained, weights="ema").model.state_dict()
    for name, value in run.trainer.ema.state_dict().items():
        assert torch.equal(value, expected[name])
    assert (run.trainer.step, run.trainer.ema.num_updates) == (0, 0)
    raw = assemble_run(tiny.config(stories, tmp_path / "raw", *start(trained), "pretrained.weights=raw"))
    assert not torch.equal(weights_of(run), weights_of(raw))


def test_a_stage_starts_from_the_stage_before(trained, stories, tmp_path):
    """By its run folder or by one of its checkpoints."""
    for source in (trained, trained / "checkpoints" / "step_60"):
        run = assemble_run(tiny.config(stories, tmp_path / "stage2", "stage=2", *start(source)))
        before = load_stage(trained).model
        assert torch.equal(weights_of(run), torch.cat([parameter.flatten() for parameter in before.parameters()]))
        assert (run.settings.stage, run.trainer.dataset.prefix_length) == (2, 4)


def test_one_way_starts_from_joint(runs, stories, tmp_path):
    run = assemble_run(
        tiny.config(stories, tmp_path / "run", "stage=2", "model.prefix_attention=one_way", *start(runs / "stage2"))
    )
    assert torch.equal(
        weights_of(run), torch.cat([p.flatten() for p in load_stage(runs / "stage2").model.parameters()])
    )
    assert first_loss(run) > 0


def test_the_command(trained, stories, tmp_path, monkeypatch):
    """Its folder says that it is a fine-tuning; taken up again it needs the other model no more."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    shutil.copytree(trained, source, symlinks=True)
    overrides = [*(item for item in tiny.OVERRIDES), *start(source)]
    result = success("train", "--data", stories, *overrides)
    assert "run folder: runs/stories-tiny-stage1-finetuning" in result.stdout
    assert f"stage 1: starts from {source}/checkpoints/step_60 (ema weights)" in result.stdout
    shutil.rmtree(source)
    again = success("train", "--data", stories, *overrides, "training.num_steps=3")
    assert "resumed at step 2" in again.stdout
    resumed = success("train", "load_dir=runs/stories-tiny-stage1-finetuning", "training.num_steps=4")
    assert "resumed at step 3" in resumed.stdout
    message = failure("train", "--data", stories, *overrides, "--out", "another")
    assert f"{source} does not exist here and is not a hub id; check the path" in message
    assert not (tmp_path / "another").exists()


def test_what_it_started_from_is_recorded(trained, stories, tmp_path):
    """And that a newer checkpoint of the other model was damaged."""
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained, source, symlinks=True)
    shutil.copytree(source / "checkpoints" / "step_60", source / "checkpoints" / "step_61")
    (source / "checkpoints" / "step_61" / "ema.safetensors").write_bytes(b"")
    flags = ["train", "--data", stories, "--out", run, *tiny.OVERRIDES, *start(source)]
    result = CliRunner().invoke(app, [str(flag) for flag in flags])
    assert result.exit_code == 0
    fault = f"{source}/checkpoints/step_61: ema.safetensors does not have its recorded checksum"
    assert result.stderr == f"passed over a damaged checkpoint: {fault}\n"
    success(*flags, "training.num_steps=3")
    first, second = json.loads((run / "provenance.json").read_text())["starts"]
    folder = str(source / "checkpoints" / "step_60")
    assert first["start"] == {"folder": folder, "weights": "ema", "stage": 1, "step": 60, "passed_over": [fault]}
    assert (second["start"], second["step"]) == (None, 2)
    assert first["data"]["fingerprint"] == second["data"]["fingerprint"]
    assert first["tokenizer"]["fingerprint"] == load_stage(run).settings.tokenizer
    assert first["config"]["training"]["num_steps"] == 2


def test_networks_that_differ(trained, stories, tmp_path):
    message = failure(
        "train", "--data", stories, "--out", tmp_path / "run", *tiny.OVERRIDES, "model.hidden_size=32", *start(trained)
    )
    assert "stage1 cannot be the start of this network: model.hidden_size is 16 there and 32 here; give the" in message


def test_another_vocabulary(stories, tmp_path):
    config = tiny.config(stories, tmp_path / "run", *start(GOLDEN / "hub_model"))
    with pytest.raises(CheckpointError, match=r"hub_model has 60 tokens, and the data \d+; what a token means"):
        assemble_run(config)


def test_a_run_is_not_taken_up_from_another_start(trained, stories, tmp_path):
    """Where the weights came from decides the run."""
    config = tiny.config(stories, tmp_path / "run", *start(trained))
    list(assemble_run(config).events())
    other = dataclasses.replace(config, pretrained=dataclasses.replace(config.pretrained, weights="raw"))
    with pytest.raises(CheckpointError, match=r"other settings: pretrained\.weights was ema and is raw"):
        list(assemble_run(other).events())


def test_bound_of_the_weights_that_a_run_starts_from(stories, valid_stories, tmp_path):
    """Under step 0, the number that the run they come from has for its end; a run with weights of its own has none."""
    bounds = {}
    for name, others in (("source", []), ("tuned", start(tmp_path / "source"))):
        run = assemble_run(tiny.config(stories, tmp_path / name, f"data.valid='{valid_stories}'", *others))
        found = [event for event in run.events() if isinstance(event, Evaluation)]
        bounds[name] = {event.step: event.bound_nats_per_token for event in found}
    assert list(bounds["source"]) == [2]
    assert list(bounds["tuned"]) == [0, 2]
    assert bounds["tuned"][0] == bounds["source"][2]
    assert bounds["tuned"][2] != bounds["tuned"][0]
