"""Cascades around a flat network, which fills in as it is: only the first stage and the layouts are trained."""

import os
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cascaded_dllm.assemble import from_flat
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.pretrained import load_stage
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.study.budget import cost_of_step
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train import run as run_module
from cascaded_dllm.train.meter import StepMeter
from cascaded_dllm.train.run_events import Evaluation
from tests.pipeline import tiny
from tests.pipeline.commands import failure, success
from tests.processes import cdllm
from tests.processes import run as run_process

NORMALIZED = ("model.parameterization=normalized", "layout.num_blocks=1")
FLAT = ("baseline=true", *NORMALIZED, "noise.type=geometric", "optim.lr=3e-2")
# The network of stage 1 is another one; the window is packed as the flat model's was.
FLAGS = [setting for setting in tiny.OVERRIDES if not setting.startswith(("device", "stage_lengths", "model=", "data"))]


def trained(stories: Path, folder: Path, *overrides: str) -> Path:
    list(assemble_run(tiny.config(stories, folder, *overrides)).events())
    return folder


@pytest.fixture(scope="module")
def flat(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(stories, tmp_path_factory.mktemp("from-flat") / "flat", *FLAT)


def command(flat: object, stories: Path, out: Path, *options: object) -> list[object]:
    flags = ["--data", stories, "--out", out, "--lengths", "4,8,40", "--device", "cpu"]
    return ["cascade", "from-flat", flat, *flags, *FLAGS, "layout.num_blocks=1", *options]


def weights_of(folder: Path, half: str, weights: str = "ema") -> dict[str, torch.Tensor]:
    state = load_stage(folder, weights=weights).model.state_dict()  # type: ignore[arg-type]
    return {name: value for name, value in state.items() if name.startswith("layout.") == (half == "layout")}


def test_the_flat_network_fills_every_stage(flat: Path, stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    shown = success(*command(flat, stories, tmp_path / "my cascade", "--valid", valid_stories, "training.num_steps=3"))
    folders = [tmp_path / "my cascade" / f"stage{k}" for k in (1, 2, 3)]
    cascade = Cascade.from_pretrained(folders)
    kept = load_stage(flat)
    for folder in folders[1:]:
        for weights in ("ema", "raw"):
            fill = weights_of(folder, "fill", weights)
            assert fill.keys() == kept.model.state_dict().keys()
            assert all(torch.equal(value, fill[name]) for name, value in kept.model.state_dict().items())
        assert load_stage(folder).settings.noise == kept.settings.noise == kept.settings.noise | {"type": "geometric"}
    # The first stage is a network of its own, with the schedule of the configuration.
    assert cascade.settings[0].noise["type"] == "loglinear"
    samples = cascade.generate(3)
    assert samples.nfe == (4.0, 4.0, 32.0)
    # What is shown at the end are commands that work.
    line = next(line for line in shown.output.splitlines() if line.startswith("keep it"))
    success(*shlex.split(line.split("cdllm ")[1].replace("DIR", str(tmp_path / "bundle"))))
    # Started again, it has nothing left to do.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "my cascade").rglob("*.safetensors")}
    success(*command(flat, stories, tmp_path / "my cascade", "--valid", valid_stories, "training.num_steps=3"))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "my cascade").rglob("*.safetensors")}


def test_the_schedule_of_a_flat_model_of_sedd(
    flat: Path, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint says log-linear and no number, and the numbers of the configuration are those of stage 1."""
    kept = load_stage(flat)
    sedd = replace(kept, settings=replace(kept.settings, noise={"type": "loglinear"}))
    monkeypatch.setattr(from_flat, "load_stage", lambda *_, **__: sedd)
    config = tiny.config(stories, tmp_path, "noise.eps=0.01")
    runs = from_flat.runs_from_flat(config, str(flat), weights="ema", out=tmp_path)
    assert [run.noise.eps for run in runs] == [0.01, 1e-3, 1e-3]
    shared = from_flat.runs_from_flat(config, str(flat), weights="ema", out=tmp_path, first="flat")
    assert [run.noise.eps for run in shared] == [1e-3] * 3


def told_as_the_first_run_ends(number: signal.Signals, arguments: list[object]) -> None:
    """In a process: its last step is done and its last checkpoint written, so that nothing is left to stop."""
    ended: list[int] = []

    class Writer(run_module.BackgroundWriter):
        def __exit__(self, *error: object) -> None:
            super().__exit__(*error)  # type: ignore[arg-type]
            ended.append(1)
            if len(ended) == 1:
                os.kill(os.getpid(), number)

    run_module.BackgroundWriter = Writer  # type: ignore[misc]
    cdllm(*arguments)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_a_signal_as_a_run_ends_stops_the_command(
    flat: Path, stories: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = command(flat, stories, tmp_path, "training.num_steps=3")
    stopped = run_process(told_as_the_first_run_ends, number, arguments)
    assert stopped.returncode == code
    assert "stage 1: complete; stopped before what comes next, with which the same command goes on" in stopped.stderr
    assert (tmp_path / "stage1" / "checkpoints" / "step_3").is_dir()
    assert not (tmp_path / "stage2").exists()
    shown = success(*arguments)
    assert "stage 1: all 3 steps are done already" in shown.output
    assert (tmp_path / "stage3" / "checkpoints" / "step_3").is_dir()


def test_one_network_learns_all_fills(stories: Path, valid_stories: Path, tmp_path: Path) -> None:
    """It is a flat model, measured on whole windows; broken off, it ends as an unbroken one, and fills in a cascade."""
    settings = [*FLAT, "training.fills=true", f"data.valid='{valid_stories}'"]
    long = ["training.num_steps=4", "training.snapshot_every=2"]
    run = assemble_run(tiny.config(stories, tmp_path / "whole", *settings, *long))
    assert [part.target_length for part in run.trainer.dataset.parts] == [4, 8, 40, 40]
    events = list(run.events())
    bounds = [event.bound_nats_per_token for event in events if isinstance(event, Evaluation)]
    assert len(bounds) == 2
    assert Cascade.from_pretrained([tmp_path / "whole"]).is_flat
    trained(stories, tmp_path / "parts", *settings, "training.num_steps=2", "training.snapshot_every=2")
    trained(stories, tmp_path / "parts", *settings, *long)
    for weights in ("ema", "raw"):
        whole, parts = (weights_of(tmp_path / name, "fill", weights) for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    success(*command(tmp_path / "whole", stories, tmp_path / "cascade", "training.num_steps=2", "--first", "flat"))
    first = load_stage(tmp_path / "cascade" / "stage1").settings
    assert (first.stage, first.noise["type"]) == (1, "geometric")
    assert first.model == load_stage(tmp_path / "whole").settings.model
    samples = Cascade.from_pretrained([tmp_path / "cascade" / f"stage{k}" for k in (1, 2, 3)]).generate(2)
    assert [len(ids) for ids in samples.ids[-1]] == [40, 40]
    assert "training.fills is true and stage 1 is trained" in failure(
        *command(tmp_path / "whole", stories, tmp_path / "no", "training.fills=true")
    )


@pytest.fixture(scope="module")
def placed(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = (*NORMALIZED, "noise.type=geometric", "stage=2", "conditioning=placed")
    return trained(stories, tmp_path_factory.mktemp("placed") / "placed", *settings)


@pytest.mark.parametrize(("halves", "frozen"), [("layout", "fill"), ("fill", "layout")])
def test_one_half_is_trained(placed: Path, stories: Path, tmp_path: Path, halves: str, frozen: str) -> None:
    """The other one keeps every bit, whatever the weight decay; broken off, the run ends as an unbroken one."""
    settings = [
        *(*NORMALIZED, "noise.type=geometric", "stage=2", "conditioning=placed", f"training.halves={halves}"),
        *("pretrained.use_pretrained=true", f"pretrained.model_path='{placed}'", "optim.weight_decay=0.5"),
    ]
    long = ["training.num_steps=4", "training.snapshot_every=2"]
    run = assemble_run(tiny.config(stories, tmp_path / "whole", *settings, *long))
    began = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
    list(run.events())
    trained(stories, tmp_path / "parts", *settings, "training.num_steps=2", "training.snapshot_every=2")
    trained(stories, tmp_path / "parts", *settings, *long)
    for weights in ("ema", "raw"):
        for half in ("layout", "fill"):
            whole, parts = (weights_of(tmp_path / name, half, weights) for name in ("whole", "parts"))
            assert all(torch.equal(value, parts[name]) for name, value in whole.items())
            same = [torch.equal(value, began[name]) for name, value in whole.items()]
            assert all(same) if half == frozen else not all(same)


def test_work_of_one_half(placed: Path, stories: Path, tmp_path: Path) -> None:
    """Positions are counted where they are computed."""
    start = ("pretrained.use_pretrained=true", f"pretrained.model_path='{placed}'", "noise.type=geometric")
    settings = (*NORMALIZED, "stage=2", "conditioning=placed", *start)
    forwards, work = {}, {}
    for halves in ("both", "layout", "fill"):
        run = assemble_run(tiny.config(stories, tmp_path / halves, *settings, f"training.halves={halves}"))
        meter = StepMeter(run.trainer, peak_flops=1.0)
        step = next(run.trainer.steps())
        meter.add(step)
        line = meter.line(step)
        forwards[halves] = line["token_forwards"]
        work[halves] = line["mfu"] * step.seconds
    assert forwards == {"both": 4 * (8 + 5), "layout": 4 * 5, "fill": 4 * 8}
    assert work["both"] == pytest.approx(work["layout"] + work["fill"])


@pytest.mark.parametrize(
    "settings",
    [["baseline=true"], ["baseline=true", "training.fills=true"], ["stage=2"], ["stage=3", "conditioning=placed"]],
)
def test_a_study_knows_the_cost_of_a_step_before_there_is_data(
    stories: Path, tmp_path: Path, settings: list[str]
) -> None:
    config = tiny.config(stories, tmp_path / "run", *NORMALIZED, *settings)
    run = assemble_run(config)
    meter = StepMeter(run.trainer, peak_flops=1.0)
    step = next(run.trainer.steps())
    meter.add(step)
    line = meter.line(step)
    cost = cost_of_step(config, run.trainer.model.config.vocab_size)
    assert cost.token_forwards == line["token_forwards"]
    assert cost.flops == pytest.approx(line["mfu"] * step.seconds)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.halves=none"], "training.halves is 'none'; it must be one of both, layout, fill"),
        (["training.halves=fill"], "training.halves is fill, and only a placed stage has a layout and a fill"),
        (
            ["stage=2", "conditioning=placed", "training.halves=layout"],
            "training.halves is layout, and the other half would stay as random as it begins",
        ),
    ],
)
def test_halves_that_are_refused(stories: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.config(stories, tmp_path / "run", *overrides)


def test_the_half_that_is_not_trained_must_be_a_trained_one(
    flat: Path, placed: Path, stories: Path, tmp_path: Path
) -> None:
    """Bounds of such a stage would be those of random places, or of a network that misses its prefix."""
    reading = trained(stories, tmp_path / "reading", *NORMALIZED, "stage=2", "model.copy_head=false")
    for source, settings, message in (
        (flat, ["training.halves=fill"], r"flat has no layout network, so that of this stage, .* would stay as random"),
        (placed, ["training.halves=fill", "layout.num_blocks=2"], r"has a layout network of .*'num_blocks': 1"),
        (placed, ["training.halves=fill", "stage=3"], r"has a layout network of .*'num_tokens': 4, 'num_new': 4"),
        (reading, ["training.halves=layout"], r"halves is layout, and .*reading reads a prefix, without which"),
    ):
        start = ("pretrained.use_pretrained=true", f"pretrained.model_path='{source}'", "stage=2")
        config = tiny.config(stories, tmp_path / "run", *NORMALIZED, *start, "conditioning=placed", *settings)
        with pytest.raises(ConfigError, match=message):
            assemble_run(config)


def test_what_cannot_fill(flat: Path, runs: Path, stories: Path, tmp_path: Path) -> None:
    """Nothing is trained before it is known that everything can be."""
    out = tmp_path / "out"
    uniform = trained(
        stories, tmp_path / "uniform", "baseline=true", "graph.type=uniform", "model.scale_by_sigma=false"
    )
    for source, options, message in (
        (runs / "stage1", [], "is stage 1 of a cascade; give a flat model, which `cdllm train --flat` makes"),
        (uniform, [], "was trained with the uniform process, and only masked positions can be filled in"),
        (flat, ["--lengths", "4,50"], "texts of 40 tokens, and the last length is 50; give lengths up to 40, or"),
        (flat, ["--lengths", "40"], "the lengths are [40], which is the flat model itself; give at least 2"),
        (flat, ["--lengths", "8,4,40"], "has 4 after 8; lengths must strictly increase"),
        (flat, ["--lengths", "few"], "--lengths is 'few'; it must be whole numbers with commas"),
        (flat, ["--weights", "best"], "--weights is 'best'; it must be one of ema, raw"),
        (flat, ["--first", "best"], "--first is 'best'; it must be one of new, flat"),
        (flat, ["training.halves=fill"], "the override training.halves is decided by this command"),
        (flat, ["stage_lengths=[4,40]"], "the override stage_lengths is decided by this command"),
        (flat, ["data.packing=stream"], "the override data.packing is decided by this command"),
        (flat, ["pretrained.weights=raw"], "the override pretrained.weights is decided by this command"),
        (tmp_path / "nowhere", [], "nowhere"),
    ):
        assert message in failure(*command(source, stories, out, *options))
    assert "no --data is given" in failure("cascade", "from-flat", flat, "--out", out)
    assert not out.exists()


def test_another_tokenizer(flat: Path, make_stories: Callable[..., Path], tmp_path: Path) -> None:
    other = make_stories(tmp_path, split="train", num=5, seed=1, tokenizer=Tokenizer.train(["Once more."], 260))
    message = failure(*command(flat, other, tmp_path / "out"))
    assert "preprocess the text with that of the model (--tokenizer" in message
    assert not (tmp_path / "out").exists()
