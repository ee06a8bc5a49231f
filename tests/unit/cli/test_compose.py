"""Overrides on the settings of a run that is to go on; other overrides are tested in test_train.py."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cascaded_dllm.cli import compose as compose_module
from cascaded_dllm.cli.compose import compose_config, config_folder
from cascaded_dllm.errors import ConfigError

PLACES = ["run_dir=run", "data.path=a_train", "data.valid=a_valid"]
OWN = ["model=tiny", "stage=1", *PLACES]


@pytest.fixture
def stored(tmp_path):
    """A run folder with the settings of a run, which differ from those of the files."""

    def store(*overrides: str, **paths: Path) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        own = ["model=tiny", "stage@_global_=stage2-lr5e-4-16_32_128", "training.seed=7"]
        given = {"run_dir": folder, "data.path": Path("data/a_train"), "data.valid": Path("data/a_valid")} | paths
        config = compose_config([*own, *overrides], paths=given)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config.to_dict()))
        return folder

    return store


def test_the_settings_of_the_run(stored):
    folder = stored()
    config = compose_config([f"load_dir='{folder}'"])
    assert (config.stage, config.stage_lengths, config.optim.lr) == (2, (16, 32, 128), 5e-4)
    assert (config.model.name, config.training.seed, config.run_dir) == ("tiny", 7, str(folder))
    assert (config.data.path, config.data.valid) == ("data/a_train", "data/a_valid")


@pytest.mark.parametrize("overrides", [["optim.lr=1e-3", "load_dir={}"], ["load_dir={}", "optim.lr=1e-3"]])
def test_other_overrides_change_them(stored, overrides):
    folder = stored()
    config = compose_config([override.format(f"'{folder}'") for override in overrides])
    assert (config.optim.lr, config.training.seed, config.stage) == (1e-3, 7, 2)


def test_groups_change_them(stored):
    folder = stored()
    overrides = [f"load_dir='{folder}'", "model=small", "stage@_global_=stage3-lr1e-4-32_64_128", "model.dropout=0.25"]
    config = compose_config(overrides)
    assert (config.model.name, config.model.num_blocks, config.model.dropout) == ("small", 12, 0.25)
    assert (config.stage, config.stage_lengths, config.optim.lr) == (3, (32, 64, 128), 1e-4)
    assert (config.training.seed, config.data.path) == (7, "data/a_train")


def test_keys_that_came_later_have_their_defaults(stored):
    folder = stored()
    path = folder / "config.yaml"
    settings = OmegaConf.load(path)
    del settings["logging"]
    del settings["data"]["root"]
    OmegaConf.save(settings, path)
    config = compose_config([f"load_dir='{folder}'"])
    assert (config.logging.wandb, config.data.root) == ("disabled", "data/preprocessed")


def test_other_data(stored):
    folder = stored()
    config = compose_config([f"load_dir='{folder}'"], paths={"data.path": Path("moved/a_train")})
    assert (config.data.path, config.data.valid) == ("moved/a_train", "data/a_valid")


@pytest.mark.parametrize("name", ["${nowhere}", "a ${oc.env:HOME} b", "???", "it's", "a\\"])
def test_stored_paths_of_any_name(stored, name):
    folder = stored(**{"data.path": Path(name)})
    assert compose_config([f"load_dir='{folder}'"]).data.path == name
    assert compose_config([f"load_dir='{folder}'", "data.path=b"]).data.path == "b"


def test_the_folder_of_the_run_is_the_only_one(stored, tmp_path):
    folder = stored()
    same = compose_config([f"load_dir='{folder}'"], paths={"run_dir": tmp_path / "x" / ".." / "run"})
    assert same.run_dir == str(folder)
    with pytest.raises(ConfigError, match=r"run_dir \(--out\) is other and load_dir is .*run: a run is resumed in"):
        compose_config([f"load_dir='{folder}'", "run_dir=other"])


@pytest.mark.parametrize("value", ["nowhere", "3"])
def test_no_folder(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"load_dir is {value}, which does not exist; name the folder that a run was"):
        compose_config([f"load_dir={value}"])


@pytest.mark.parametrize("value", [".", "''"])
def test_no_run(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = r"load_dir is .*, which is not a run folder: it has no config\.yaml; .*pretrained\.use_pretrained=true"
    with pytest.raises(ConfigError, match=expected):
        compose_config([f"load_dir={value}"])


@pytest.mark.parametrize("text", ["stage: [1", "stage: 1\n\tx: 2", "- 1", "3", "b\xe9".encode("latin-1")])
def test_settings_that_are_damaged(stored, text):
    folder = stored()
    (folder / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config\.yaml .*; put the file back"):
        compose_config([f"load_dir='{folder}'"])


def test_unknown_key_of_the_run(stored):
    folder = stored()
    with (folder / "config.yaml").open("a") as file:
        file.write("former: 1\n")
    with pytest.raises(ConfigError, match="the key former is unknown"):
        compose_config([f"load_dir='{folder}'"])


def test_null_is_no_run():
    assert compose_config(["load_dir=null"]) == compose_config([])


def test_overrides_may_speak_of_other_keys():
    config = compose_config(["run_dir=runs/lr-${optim.lr}-${model.name}", "optim.lr=0.5", "model=tiny"])
    assert config.run_dir == "runs/lr-0.5-tiny"


def test_the_last_override_of_a_key_wins():
    assert compose_config(["optim.lr=0.5", "+optim.lr=0.25", "++optim.lr=0.125"]).optim.lr == 0.125


def test_the_last_choice_of_a_group_wins():
    config = compose_config(["model=small", "stage=stage2", "model=tiny", "stage@_global_=stage3"])
    assert (config.model.name, config.stage) == ("tiny", 3)


def test_a_group_as_a_whole():
    noise = compose_config(["noise.eps=0.5", "noise={type:geometric,sigma_max:9,eps:0.25}", "noise.sigma_min=1"]).noise
    assert (noise.type, noise.eps, noise.sigma_min, noise.sigma_max) == ("geometric", 0.25, 1.0, 9.0)


def test_a_file_that_has_changed_is_read_anew(tmp_path, monkeypatch):
    """And what a caller does to its settings stays with it."""
    folder = tmp_path / "configs"
    shutil.copytree(config_folder(), folder)
    monkeypatch.setattr(compose_module, "config_folder", lambda: folder)
    first = compose_config(OWN)
    assert compose_config(OWN) == first
    assert compose_config([*OWN, "optim.beta2=0.5"]) != first
    assert compose_config(OWN) == first
    path = folder / "model" / "tiny.yaml"
    text = path.read_text()
    assert text.count("num_blocks: 3") == 1
    path.write_text(text.replace("num_blocks: 3", "num_blocks: 5"))
    assert (first.model.num_blocks, compose_config(OWN).model.num_blocks) == (3, 5)


@pytest.mark.parametrize(("key", "flag"), [("data.path", "--data"), ("data.valid", "--valid"), ("run_dir", "--out")])
def test_path_as_a_flag_and_as_a_key(key, flag):
    """Neither is passed over; the same twice is one."""
    needed = ["model=tiny", *(f"{other}=x" for other in ("data.path", "run_dir") if other != key)]
    with pytest.raises(ConfigError, match=rf"{key} is b and {flag} is (\./)?a; give only one of them"):
        compose_config([*needed, f"{key}=b"], paths={key: Path("a")})
    with pytest.raises(ConfigError, match=r"data\.path is b and --data is (\./)?a; give only one of them"):
        compose_config(["model=tiny", "run_dir=x", "data={path: b}"], paths={"data.path": Path("a")})
    # A name alone, without a slash, is that of a corpus to `data.valid`.
    same = "./a" if key == "data.valid" else "./a/"
    compose_config([*needed, f"{key}={same}"], paths={key: Path("a")})


@pytest.mark.parametrize(
    ("flag", "says", "others", "message"),
    [
        ("--stage", "stage=2", ["stage=3"], "stage is 3, and --stage says stage=2; give only one of them"),
        (
            "--stage",
            "stage=2",
            ["stage=stage3-lr1e-4-32_64_128"],
            "stage is 3 through stage@_global_=stage3-lr1e-4-32_64_128, and --stage says stage=2; give only one",
        ),
        (
            "--lengths",
            "stage_lengths=[4, 8]",
            ["stage@_global_=stage1-lr3e-4-16_32_128"],
            r"stage_lengths is \[16, 32, 128\] through stage@_global_=\S+, and --lengths says stage_lengths=\[4, 8\];",
        ),
        ("--model", "model=tiny", ["model=small"], "model is small, and --model says model=tiny; give only one"),
        ("--flat", "baseline=true", ["baseline=false"], "baseline is false, and --flat says baseline=true; give"),
        ("--device", "device=cpu", ["device=cuda", "device=cuda:1"], "device is cuda:1, and --device says device=cpu"),
    ],
)
def test_flag_and_key_that_contradict_each_other(flag, says, others, message):
    """Neither is passed over, and the same twice is one."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        compose_config([*PLACES, *others], flags={flag: says})
    assert compose_config([*PLACES, says], flags={flag: says}) == compose_config([*PLACES, says])


def test_flag_beside_the_file_of_its_stage():
    """What the file says besides is taken from it, and what an override says of it wins over the file."""
    config = compose_config([*PLACES, "stage=stage2-lr1e-4-16_32_128"], flags={"--stage": "stage=2"})
    assert (config.stage, config.optim.lr, config.stage_lengths) == (2, 1e-4, (16, 32, 128))
    config = compose_config([*PLACES, "stage=stage2-lr1e-4-16_32_128", "stage=3"], flags={"--stage": "stage=3"})
    assert config.stage == 3


def test_flags_change_the_settings_of_a_run_that_goes_on(stored):
    """They stand above what was stored, as overrides do."""
    config = compose_config([f"load_dir='{stored()}'"], flags={"--stage": "stage=3", "--model": "model=small"})
    assert (config.stage, config.model.name, config.optim.lr) == (3, "small", 5e-4)
