"""How overrides and paths become a configuration; the command itself is tested in tests/pipeline/test_cli.py."""

import os
import signal
from pathlib import Path

import pytest
import typer
from hydra.core.global_hydra import GlobalHydra

from cascaded_dllm.cli import train_run as train_run_module
from cascaded_dllm.cli.compose import compose_config, config_folder
from cascaded_dllm.cli.train_run import train_run, warn_of_long_warmup
from cascaded_dllm.errors import ConfigError

NEEDED = ["run_dir=runs/x", "data.path=data"]


def test_defaults_are_those_of_the_original():
    config = compose_config(NEEDED)
    assert config.stage_lengths == (32, 64, 128)
    assert (config.model.name, config.training.batch_size, config.training.ema) == ("small", 512, 0.9999)
    assert (config.optim.lr, config.optim.warmup, config.graph.type) == (3e-4, 2500, "absorbing")


def test_overrides():
    config = compose_config([*NEEDED, "model=tiny", "model.dropout=0.5", "optim.lr=1e-3", "stage_lengths=[2,3]"])
    assert (config.model.name, config.model.dropout, config.optim.lr) == ("tiny", 0.5, 1e-3)
    assert config.stage_lengths == (2, 3)


def test_other_file():
    assert compose_config(NEEDED, name="quickstart").stage_lengths == (8, 16, 40)


def test_composing_leaves_no_state():
    compose_config(NEEDED)
    with pytest.raises(ConfigError, match=r"data\.path has no value; give --data"):
        compose_config(["data.path=???"])
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run_dir=???", "data.path=???"], r"data\.path and run_dir have no value; give --data and --out"),
        ([*NEEDED, "optim.lr=???"], r"optim\.lr has no value; give optim\.lr=\.\.\."),
        ([*NEEDED, "training"], r"the override 'training' has no key and '='; write key=value, for example"),
        ([*NEEDED, "=1"], r"the override '=1' has no key and '='"),
        ([*NEEDED, "model=huge"], "^model is 'huge'; it must be one of medium, quick, small, tiny$"),
        ([*NEEDED, "model=3"], "model is '3'; it must be one of"),
        ([*NEEDED, "model="], "model is ''; it must be one of"),
        ([*NEEDED, "+model=tiny"], "the configuration cannot be composed: .*; check the overrides"),
        ([*NEEDED, "optim.lr={"], r"the override 'optim\.lr={' cannot be read \(.*\); write key=value"),
        ([*NEEDED, "optim.lr=1,2"], r"'optim\.lr=1,2' gives several values, and a run takes one; put a text with"),
        (
            [*NEEDED, "~optim.lr=1"],
            r"the override '~optim\.lr=1' removes a key, and every key is needed; give it a value",
        ),
        ([*NEEDED, "device=${elsewhere}"], "the configuration cannot be composed: .*elsewhere"),
        ([*NEEDED, "~optim.lr"], r"the override '~optim\.lr' has no key and '='"),
        ([*NEEDED, "+extra=1"], "the key extra is unknown; the keys are"),
        ([*NEEDED, "optim.learning_rate=1"], r"the key optim\.learning_rate is unknown"),
        ([*NEEDED, "optim.lrr=1"], r"the key optim\.lrr is unknown; did you mean optim\.lr\?"),
    ],
)
def test_overrides_that_cannot_be_read(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_config(overrides)


@pytest.mark.parametrize(
    "path",
    [
        "a/b",
        "it's",
        "a b",
        "a,b",
        "x=1",
        "[1]",
        "{a}",
        "(c)",
        '"q"',
        "a#b",
        "~/x",
        "null",
        "3",
        "ü",
        "a\\b",
        "${y}",
        "a\\",
    ],
)
def test_paths_of_any_name(path):
    config = compose_config([], paths={"run_dir": Path(path), "data.path": Path(path)})
    assert config.run_dir == config.data.path == path


def test_folder_of_the_configurations():
    assert {path.name for path in config_folder().iterdir()} >= {"cascade_config.yaml", "quickstart.yaml", "model"}


@pytest.mark.parametrize(
    ("steps", "warmup", "said"),
    [
        (1000, 2500, "the learning rate only rises, to 40% of optim.lr; a tenth of the steps is a usual warm-up, "),
        (100, 100, "to 100% of optim.lr; a tenth of the steps is a usual warm-up, optim.warmup=10\n"),
        (101, 100, None),
        (1, 0, None),
    ],
)
def test_warm_up_as_long_as_the_run(capsys, steps, warmup, said):
    warn_of_long_warmup(compose_config([*NEEDED, f"training.num_steps={steps}", f"optim.warmup={warmup}"]))
    found = capsys.readouterr().err
    if said is None:
        assert found == ""
    else:
        assert found.startswith(f"warning: optim.warmup is {warmup} and training.num_steps {steps}: ")
        assert said in found


@pytest.mark.parametrize("is_last", [True, False])
def test_a_request_that_came_as_the_processes_ended(monkeypatch, capsys, is_last):
    """They could not be told any more; with another run to come, the command stops."""
    before = signal.getsignal(signal.SIGTERM)

    def launch(function, arguments, *, number, should_stop):
        assert arguments[1] is is_last
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
        return [0] * number

    monkeypatch.setattr(train_run_module, "launch", launch)
    config = compose_config([*NEEDED, "ngpus=2", "device=cpu"])
    if is_last:
        train_run(config)
    else:
        with pytest.raises(typer.Exit) as ended:
            train_run(config, is_last=False)
        assert ended.value.exit_code == 75
    said = "the run is complete; stopped before what comes next, with which the same command goes on\n"
    assert capsys.readouterr().err == ("" if is_last else said)
    assert signal.getsignal(signal.SIGTERM) == before
