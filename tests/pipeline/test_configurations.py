"""Every shipped configuration says what its name says, and becomes a run; so do the documented choices."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
import torch
import yaml

from cascaded_dllm.assemble import stage
from cascaded_dllm.assemble.run import assemble_run
from cascaded_dllm.cli.compose import compose_config, config_folder
from cascaded_dllm.diffusion.process import UniformProcess
from cascaded_dllm.diffusion.schedule import GeometricSchedule, LogLinearSchedule
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from tests.pipeline.commands import failure, success
from tests.repo.source_tree import CHECKOUT

MODELS = sorted(path.stem for path in (config_folder() / "model").iterdir())
STAGES = sorted(path.stem for path in (config_folder() / "stage").glob("*.yaml"))
DELTAS = [name for name in STAGES if "-" in name]
NAME = re.compile(r"stage(?P<stage>[123])-lr(?P<lr>[\de-]+)-(?P<lengths>\d+_\d+_\d+)")


@pytest.fixture
def on_meta_device(monkeypatch):
    """Networks of any size without their memory."""

    class MetaModel(ScoreModel):
        def __init__(self, config):
            with torch.device("meta"):
                super().__init__(config)

        def to(self, device):
            return self

    monkeypatch.setattr(stage, "new_model", lambda config, layout: MetaModel(config))


@pytest.fixture
def named(stories, valid_stories, tmp_path):
    """Overrides that select the stories by their names, as `cdllm preprocess` calls the folders."""
    root = tmp_path / "preprocessed"
    (root / "constituency").mkdir(parents=True)
    for folder in (stories, valid_stories):
        (root / "constituency" / folder.name).symlink_to(folder)
    return [f"data.root='{root}'", "data.train=stories", "data.valid=stories", "device=cpu"]


def test_the_documented_names_are_there():
    bases = {f"stage{stage}" for stage in (1, 2, 3)}
    documented = {
        f"{base}-lr{lr}-{lengths}"
        for base in bases
        for lr in ("1e-4", "3e-4", "5e-4")
        for lengths in ("32_64_128", "16_32_128")
    }
    assert set(STAGES) == bases | documented


@pytest.mark.slow
@pytest.mark.parametrize("name", DELTAS)
def test_a_stage_file_says_what_its_name_says(name):
    config = compose_config([f"stage@_global_={name}"])
    match = NAME.fullmatch(name)
    assert match
    assert config.stage == int(match["stage"])
    assert config.optim.lr == float(match["lr"])
    assert config.stage_lengths == tuple(int(length) for length in match["lengths"].split("_"))
    assert config.model.name == "small"
    # And nothing else: all the rest is that of its base.
    base = compose_config([f"stage@_global_=stage{match['stage']}"])
    rest = dataclasses.replace(
        config, stage_lengths=base.stage_lengths, optim=dataclasses.replace(config.optim, lr=base.optim.lr)
    )
    assert rest == base


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_base_of_a_stage(stage):
    config = compose_config([f"stage@_global_=stage{stage}"])
    training, optim, sampling = config.training, config.optim, config.sampling
    assert (config.stage, config.baseline, config.stage_lengths) == (stage, False, (32, 64, 128))
    assert (config.graph.type, config.noise.type, config.noise.eps) == ("absorbing", "loglinear", 1e-3)
    assert (training.batch_size, training.accum, training.num_steps, training.ema) == (512, 1, 500_001, 0.9999)
    assert (training.log_every, training.eval_every, training.snapshot_every) == (50, 100, 10_000)
    assert (optim.beta1, optim.beta2, optim.eps, optim.weight_decay) == (0.9, 0.999, 1e-8, 0.0)
    assert (optim.warmup, optim.grad_clip, optim.decay) == (2500, 1.0, "constant")
    assert (sampling.predictor, sampling.num_steps) == ("euler", 128)
    assert not config.pretrained.use_pretrained
    assert config.pretrained.model_path == "louaaron/sedd-small"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"), [*((name, "small") for name in STAGES), ("stage3", "medium"), ("stage2", "tiny")]
)
def test_every_stage_file_assembles(named, on_meta_device, tmp_path, name, model):
    config = compose_config([f"stage@_global_={name}", f"model={model}", *named, f"run_dir='{tmp_path}/run'"])
    run = assemble_run(config)
    assert run.trainer.dataset.target_length == config.stage_lengths[config.stage - 1]
    assert run.trainer.dataset.prefix_length == (config.stage_lengths[config.stage - 2] if config.stage > 1 else 0)
    assert isinstance(run.trainer.objective.schedule, LogLinearSchedule)
    assert json.loads(json.dumps(run.config)) == run.config
    assert run.settings.stage == config.stage
    assert not run.folder.exists()


@pytest.mark.parametrize("name", ["", *STAGES])
def test_bound_and_checkpoint_are_of_steps_that_have_a_line(name):
    training = compose_config([f"stage@_global_={name}"] if name else []).training
    assert training.eval_every % training.log_every == 0
    assert training.snapshot_every % training.eval_every == 0


def test_flat_model_of_every_size(named, on_meta_device, tmp_path):
    """The control of a study: the last stage's length on the same windows, whatever the stage file says."""
    for lengths in ("32_64_128", "16_32_128"):
        overrides = [f"stage@_global_=stage1-lr3e-4-{lengths}", *named, "baseline=true"]
        config = compose_config([*overrides, f"run_dir='{tmp_path}/flat'"])
        flat = assemble_run(config)
        last = assemble_run(dataclasses.replace(config, baseline=False, stage=3))
        assert (flat.trainer.dataset.prefix_length, flat.trainer.dataset.target_length) == (0, 128)
        index = torch.arange(4).numpy()
        assert (flat.trainer.dataset.batch(index)[1] == last.trainer.dataset.batch(index)[1]).all()
        assert flat.settings.stage == 0


@pytest.mark.parametrize("model", MODELS)
def test_every_model_assembles(stories, tmp_path, on_meta_device, model):
    overrides = [f"data.path='{stories}'", f"run_dir='{tmp_path}/run'", "device=cpu", "stage_lengths=[4,8,40]"]
    run = assemble_run(compose_config([*overrides, "data.packing=document", f"model={model}"]))
    assert run.config["model"]["name"] == model
    assert run.trainer.model.config.hidden_size == run.config["model"]["hidden_size"]
    assert run.trainer.model.config.hidden_size // run.trainer.model.config.num_heads in (16, 32, 64)
    assert len(run.trainer.model.blocks) == run.trainer.model.config.num_blocks


def test_sizes_of_the_documented_models():
    sizes = {}
    for model in ("small", "medium"):
        settings = compose_config([f"model={model}"]).model
        sizes[model] = (settings.hidden_size, settings.num_heads, settings.num_blocks, settings.cond_dim)
    assert sizes == {"small": (768, 12, 12, 128), "medium": (1024, 16, 24, 128)}


@pytest.mark.parametrize("name", sorted(path.stem for path in config_folder().glob("*.yaml")))
def test_every_configuration_assembles(stories, tmp_path, on_meta_device, name):
    overrides = [f"data.path='{stories}'", f"run_dir='{tmp_path}/run'", "device=cpu"]
    config = compose_config(overrides, name=name)
    assert config.stage_lengths in ((32, 64, 128), (8, 16, 40))
    for number in range(1, len(config.stage_lengths) + 1):
        run = assemble_run(dataclasses.replace(config, stage=number))
        assert run.trainer.dataset.target_length == config.stage_lengths[number - 1]
    assert json.loads(json.dumps(run.config)) == run.config


def num_parameters(config: ScoreModelConfig) -> int:
    """By hand: embedding; noise level through two layers; blocks; output layer."""
    states, width, cond = config.num_states, config.hidden_size, config.cond_dim
    noise = (256 + 1) * cond + (cond + 1) * cond
    attention = 3 * width * width + width * width
    perceptron = (width + 1) * 4 * width + (4 * width + 1) * width
    block = attention + perceptron + 2 * width + (cond + 1) * 6 * width
    head = (width + 1) * states + width + (cond + 1) * 2 * width
    return states * width + noise + config.num_blocks * block + head


@pytest.mark.parametrize(
    ("model", "total", "without_tokens"), [("small", 169_627_218, 92_380_672), ("medium", 424_477_010, 321_498_368)]
)
def test_parameters_of_the_documented_models(model, total, without_tokens):
    """With the vocabulary of GPT-2: 50,257 tokens and MASK. `louaaron/sedd-small` is said to have 170 million."""
    settings = dataclasses.asdict(compose_config([f"model={model}"]).model)
    settings.pop("name")
    config = ScoreModelConfig(vocab_size=50_257, **settings)
    with torch.device("meta"):
        network = ScoreModel(config)
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == num_parameters(config) == total
    tokens = 2 * config.num_states * config.hidden_size + config.num_states
    assert found - tokens == without_tokens


def test_noise_and_graph_are_chosen_by_their_type(named, on_meta_device, tmp_path):
    choices = ["noise.type=geometric", "noise.sigma_max=9", "graph.type=uniform", "model.scale_by_sigma=false"]
    run = assemble_run(compose_config(["model=tiny", *named, *choices, f"run_dir='{tmp_path}/run'"]))
    assert run.trainer.objective.schedule == GeometricSchedule(1e-4, 9.0)
    assert isinstance(run.trainer.objective.process, UniformProcess)
    assert run.trainer.model.config.num_states == run.trainer.model.config.vocab_size


def test_groups_and_numbers_of_the_stage():
    """`stage` is a number, and a group of files; a file of the group is one whichever way it is named."""
    assert compose_config(["stage=2"]).stage == 2
    whole = compose_config(["stage@_global_=stage2-lr5e-4-16_32_128"])
    assert compose_config(["stage=stage2-lr5e-4-16_32_128"]) == whole
    assert compose_config(["optim.lr=1e-3", "stage@_global_=stage2", "stage=3"]).stage == 3
    assert compose_config(["stage_lengths=[2,3]", "stage@_global_=stage2-lr5e-4-16_32_128"]).stage_lengths == (2, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=huge", "^model is 'huge'; it must be one of medium, quick, small, tiny$"),
        (
            "stage@_global_=stage4",
            r"^stage@_global_ is 'stage4'; it must be one of stage1, stage1-lr1e-4-16_32_128, .*3",
        ),
        ("stage=first", r"^stage is 'first'; it must be one of stage1, stage1-lr1e-4-16_32_128"),
        ("stage@_global_=2", r"^stage@_global_ is '2'; it must be one of stage1"),
        ("optim.learning_rate=1", r"^the key optim\.learning_rate is unknown"),
        ("pretrained.use_pretraind=true", r"unknown; did you mean pretrained\.use_pretrained\?"),
        ("logging.wandb_mode=online", r"the key logging\.wandb_mode is unknown; did you mean logging\.wandb\?"),
        ("data.datalaoder=keybert", r"the key data\.datalaoder is unknown; did you mean data\.dataloader\?"),
        ("model@stage=tiny", "the configuration cannot be composed: "),
        ("data=3", "data is 3; it must be a group of keys"),
    ],
)
def test_choices_that_do_not_exist(override, message):
    with pytest.raises(ConfigError, match=message):
        compose_config([override])


def test_a_bare_command_composes_and_says_which_data_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compose_config([]).stage == 1
    message = failure("train")
    assert message.startswith("data/preprocessed/constituency/openwebtext_train is not there, the data of data.train=")
    assert "`cdllm preprocess constituency --dataset openwebtext --tokenizer gpt2 --out data/preprocessed`" in message
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = yaml.safe_load(success("train", "model=tiny", "stage@_global_=stage3", "--cfg", "job").stdout)
    assert (shown["model"]["name"], shown["stage"], shown["stage_lengths"]) == ("tiny", 3, [32, 64, 128])
    assert "--cfg is 'all'; it must be job" in failure("train", "--cfg", "all")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_entry_script_is_the_command(named, tmp_path):
    """Run from another folder, it writes where it is told to and nowhere else, and changes no folder."""
    place = tmp_path / "place"
    place.mkdir()
    script = str(CHECKOUT / "train.py")
    overrides = ["stage@_global_=stage2-lr3e-4-16_32_128", "model=tiny", *named, "training.num_steps=1"]
    overrides += ["training.batch_size=2", "model.hidden_size=16", "model.num_blocks=1", "data.valid=null"]
    overrides += ["sampling.num_samples=0", "optim.warmup=0"]
    done = subprocess.run(
        [sys.executable, script, *overrides], cwd=place, capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in place.iterdir()] == ["runs"]
    run = place / "runs" / "stories-tiny-stage2"
    assert f"run folder: runs/{run.name}" in done.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["stage"], config["optim"]["lr"], config["run_dir"]) == (2, 3e-4, "runs/stories-tiny-stage2")
    provenance = json.loads((run / "provenance.json").read_text())["starts"]
    assert provenance[0]["command"] == [script, *overrides]


def test_scripts_get_the_settings_of_the_quickstart():
    """All of them, in a form that `cdllm train` takes."""
    script = CHECKOUT / "scripts" / "reproduce" / "quickstart_settings.py"
    printed = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True).stdout
    assert compose_config(printed.splitlines()) == compose_config([], name="quickstart")
