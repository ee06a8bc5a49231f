"""Settings that would mean nothing beside the others of a run are refused where they are given, and only there."""

import pytest
from omegaconf import OmegaConf

from cascaded_dllm.cli.compose import compose_config, config_folder
from cascaded_dllm.errors import ConfigError

NEEDED = ["run_dir=run", "data.path=data"]
GENERATED = "training.generated_prefix"


def composed(*overrides, is_one_run=True):
    return compose_config([*NEEDED, *overrides], is_one_run=is_one_run)


@pytest.mark.parametrize(
    ("override", "beside", "switch", "remedy"),
    [
        ("pretrained.model_path=runs/a", [], "pretrained.use_pretrained is false", "pretrained.use_pretrained=true"),
        ("pretrained.model_path=louaaron/sedd-small", [], "pretrained.use_pretrained is false", "give "),
        ("pretrained.weights=raw", [], "pretrained.use_pretrained is false", "give pretrained.use_pretrained=true"),
        ("evaluation.judge=gpt2", ["sampling.num_samples=0"], "sampling.num_samples is 0", "ask for samples"),
        ("earlier_stages=[a]", ["sampling.num_samples=0", "stage=2"], "sampling.num_samples is 0", "ask for samples"),
        ("stage1_root_dir=a", ["sampling.num_samples=0", "stage=2"], "sampling.num_samples is 0", "ask for samples"),
        ("noise.eps=0.01", ["noise.type=geometric"], "noise.type is geometric", "set noise.type=loglinear"),
        ("noise.sigma_min=0.1", [], "noise.type is loglinear", "set noise.type=geometric"),
        ("noise.sigma_max=9", [], "noise.type is loglinear", "set noise.type=geometric"),
        ("training.prefix_noise.kind=mask", ["stage=2"], "training.prefix_noise.prob is 0.0", "a probability above 0"),
        (f"{GENERATED}.level=0.1", ["stage=2"], f"{GENERATED}.prob is 0.0", f"above 0 and {GENERATED}.stage_paths"),
        (f"{GENERATED}.predictor=euler", ["stage=2"], f"{GENERATED}.prob is 0.0", f"and {GENERATED}.stage_paths"),
        (f"{GENERATED}.num_steps=4", ["stage=2"], f"{GENERATED}.prob is 0.0", f"and {GENERATED}.stage_paths"),
        ("layout.num_blocks=2", ["stage=2"], "conditioning is prefix", "set conditioning=placed"),
        ("logging.project=mine", [], "logging.wandb is disabled", "set logging.wandb=online or offline"),
        ("logging.name=mine", [], "logging.wandb is disabled", "set logging.wandb=online or offline"),
    ],
)
def test_what_means_nothing_is_refused(override, beside, switch, remedy):
    key = override.partition("=")[0]
    what = f"{key} is .*, which has no effect while {switch}: .*{remedy}.*, or leave {key} out"
    with pytest.raises(ConfigError, match=what):
        composed(override, *beside)
    # What several runs share may be meant for others of them.
    composed(override, *beside, is_one_run=False)


def test_a_group_as_a_whole():
    with pytest.raises(ConfigError, match=r"pretrained\.model_path is runs/a, which has no effect while"):
        composed("pretrained={use_pretrained: false, model_path: runs/a, weights: ema}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["pretrained.use_pretrained=true", "pretrained.model_path=runs/a", "pretrained.weights=raw"],
        ["pretrained.use_pretrained=false"],
        ["sampling.num_samples=0", "sampling.num_steps=3", "sampling.predictor=euler"],
        ["sampling.num_samples=0", "evaluation.judge=null", "earlier_stages=[]", "stage1_root_dir=null"],
        ["evaluation.judge=gpt2", "stage=2", "earlier_stages=[a]"],
        ["noise.type=geometric", "noise.sigma_min=0.1", "noise.sigma_max=9"],
        ["noise.eps=0.01"],
        ["training.prefix_noise.kind=mask", "training.prefix_noise.prob=0.1"],
        [f"{GENERATED}.prob=0.1", f"{GENERATED}.stage_paths=[a]", f"{GENERATED}.level=0.1", "stage=2"],
        ["conditioning=placed", "layout.num_blocks=2", "stage=2"],
        # A first stage and a flat model of a placed cascade, which have none.
        ["layout.num_blocks=2"],
        ["layout.num_blocks=2", "baseline=true", "stage=2"],
        ["logging.project=mine", "logging.wandb=disabled"],
        ["logging.project=mine", "logging.name=it", "logging.wandb=offline"],
    ],
)
def test_what_means_something_is_taken(overrides):
    composed(*overrides)


@pytest.mark.parametrize("path", sorted((config_folder() / "stage").glob("*.yaml")), ids=lambda path: path.stem)
def test_files_of_stages(path):
    composed(f"stage@_global_={path.stem}")


def test_a_run_that_goes_on_may_have_what_means_nothing(tmp_path):
    """Runs from before it was refused go on, as those do whose samples are switched off now."""
    settings = ["pretrained.model_path=runs/a", "noise.sigma_max=9", "evaluation.judge=gpt2"]
    config = composed(*settings, is_one_run=False)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config.to_dict()))
    found = compose_config([f"load_dir='{tmp_path}'", "sampling.num_samples=0"], is_one_run=True)
    assert (found.pretrained.model_path, found.evaluation.judge) == ("runs/a", "gpt2")
    with pytest.raises(ConfigError, match=r"pretrained\.model_path is runs/b, which has no effect while"):
        compose_config([f"load_dir='{tmp_path}'", "pretrained.model_path=runs/b"], is_one_run=True)
