"""Every key of a configuration is known and has one type; tests/pipeline/test_every_key.py shows that each is read."""

import copy
import re

import pytest
import yaml

from cascaded_dllm.config import TrainConfig, parse_config
from cascaded_dllm.config_groups import DataSettings
from cascaded_dllm.errors import ConfigError
from tests.repo.source_tree import CHECKOUT

SETTINGS = {
    "run_dir": "runs/x",
    "device": "cpu",
    "ngpus": 2,
    "dtype": "float32",
    "stage": 2,
    "baseline": False,
    "stage_lengths": [4, 8, 40],
    "conditioning": "prefix",
    "earlier_stages": ["runs/stage1"],
    "stage1_root_dir": None,
    "stage2_root_dir": None,
    "data": {
        "root": "data/preprocessed",
        "dataloader": "constituency",
        "train": "stories",
        "path": "data",
        "valid": None,
        "packing": "stream",
        "unique": True,
        "stages_dir": None,
    },
    "model": {
        "name": "tiny",
        "hidden_size": 16,
        "num_heads": 2,
        "num_blocks": 1,
        "cond_dim": 8,
        "dropout": 0.1,
        "scale_by_sigma": True,
        "parameterization": "score",
        "time_conditioning": True,
        "prefix_attention": "joint",
        "absolute_positions": False,
        "copy_head": False,
    },
    "layout": {"num_blocks": 3},
    "graph": {"type": "absorbing"},
    "noise": {"type": "loglinear", "eps": 0.001, "sigma_min": 0.0001, "sigma_max": 20.0},
    "pretrained": {"use_pretrained": False, "model_path": "louaaron/sedd-small", "weights": "ema"},
    "logging": {"wandb": "disabled", "project": "cascades", "name": None, "tensorboard": False},
    "training": {
        "batch_size": 8,
        "accum": 1,
        "num_steps": 10,
        "ema": 0.99,
        "t_min": 0.001,
        "seed": 0,
        "log_every": 1,
        "eval_every": 2,
        "eval_windows": 3,
        "eval_times": 4,
        "snapshot_every": 5,
        "keep": 6,
        "keep_every": 10,
        "strategy": "ddp",
        "halves": "both",
        "fills": False,
        "compile": False,
        "deterministic": False,
        "peak_flops": None,
        "prefix_noise": {"prob": 0.1, "kind": "random"},
        "prefix_dropout": 0.1,
        "generated_prefix": {
            "prob": 0.1,
            "stage_paths": ["runs/stage1"],
            "level": 0.5,
            "predictor": "analytic",
            "num_steps": 4,
        },
    },
    "optim": {
        "lr": 0.001,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "warmup": 0,
        "decay": "constant",
        "grad_clip": 1.0,
    },
    "sampling": {"predictor": "euler", "num_steps": 8, "num_samples": 1},
    "evaluation": {"judge": None},
}


def leaves(settings, path=""):
    """Every key that holds no group, as "training.seed", with its value."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def changed(path, value):
    """The settings with one key set, or removed if `value` is Ellipsis."""
    settings = copy.deepcopy(SETTINGS)
    *parents, last = path.split(".")
    group = settings
    for parent in parents:
        group = group[parent]
    if value is ...:
        del group[last]
    else:
        group[last] = value
    return settings


def groups(settings, path=""):
    """Every group of keys with its final dot, "training." for example, and "" for all of them."""
    yield path
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from groups(value, f"{path}{key}.")


def as_lists(value):
    """Tuples as lists, at any depth."""
    if isinstance(value, dict):
        return {key: as_lists(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


LEAVES = dict(leaves(SETTINGS))
# May hold nothing, and what else they hold.
OPTIONAL = dict.fromkeys(("run_dir", "data.dataloader", "data.train", "data.path", "data.valid"), str)
OPTIONAL |= dict.fromkeys(("stage1_root_dir", "stage2_root_dir", "evaluation.judge"), str)
OPTIONAL |= {"data.stages_dir": str, "logging.name": str, "training.eval_windows": int, "training.peak_flops": float}
OPTIONAL["model.copy_head"] = bool
GROUPS = list(groups(SETTINGS))


def test_settings_become_typed_and_come_back():
    config = parse_config(SETTINGS)
    assert isinstance(config, TrainConfig)
    assert config.stage_lengths == (4, 8, 40)
    assert config.training.keep == 6
    assert config.data.valid is None
    assert (config.earlier_stages, config.training.generated_prefix.stage_paths) == (("runs/stage1",),) * 2
    assert as_lists(config.to_dict()) == SETTINGS
    assert parse_config(config.to_dict()) == config


def test_whole_numbers_are_accepted_as_floats():
    config = parse_config(changed("optim.lr", 1))
    assert config.optim.lr == 1.0
    assert type(config.optim.lr) is float


def test_a_text_is_accepted_where_nothing_may_stand():
    assert parse_config(changed("data.valid", "other")).data.valid == "other"


def with_settings(**settings):
    """A stage with a prefix and a normalized reading, with some settings changed; "__" stands for a dot."""
    config = copy.deepcopy(SETTINGS)
    given = {"model__parameterization": "normalized", "model__copy_head": None, "earlier_stages": [], **settings}
    given["training__generated_prefix"] = SETTINGS["training"]["generated_prefix"] | {"prob": 0.0, "stage_paths": []}
    for path, value in given.items():
        *parents, last = path.split("__")
        group = config
        for parent in parents:
            group = group[parent]
        group[last] = value
    return parse_config(config)


def test_copy_head_wherever_it_can_be_unless_it_is_told():
    assert with_settings().has_copy_head
    assert not with_settings(model__parameterization="score").has_copy_head
    assert not with_settings(graph__type="uniform").has_copy_head
    assert not with_settings(stage=1).has_copy_head
    assert not with_settings(baseline=True).has_copy_head
    assert not with_settings(model__copy_head=False).has_copy_head
    # What cannot be is refused later, and not overruled.
    assert with_settings(model__copy_head=True, stage=1).has_copy_head
    unaugmented = {"training__prefix_noise": {"prob": 0.0, "kind": "random"}, "training__prefix_dropout": 0.0}
    placed = with_settings(conditioning="placed", **unaugmented)
    assert placed.is_placed
    assert not placed.has_copy_head


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": 2}, r"training\.fills is true and stage 2 is trained"),
        ({"baseline": True, "stage_lengths": [40]}, r"fills is true and stage_lengths is \[40\], which is the window"),
        ({"baseline": True, "graph__type": "uniform"}, r"training\.fills is true and graph\.type is uniform"),
    ],
)
def test_what_cannot_fill_in(settings, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(training__fills=True, **settings)


@pytest.mark.parametrize("group", GROUPS)
def test_unknown_key_names_the_nearest(group):
    known = next(path for path in LEAVES if path.startswith(group) and "." not in path.removeprefix(group))
    message = rf"the key {re.escape(known)}s is unknown; did you mean {re.escape(known)}\?"
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(f"{known}s", 1))


@pytest.mark.parametrize("group", GROUPS)
def test_unknown_key_far_from_all_lists_them(group):
    with pytest.raises(ConfigError, match=rf"the key {re.escape(group)}qqqq is unknown; the keys are [a-z_, 1-2]+$"):
        parse_config(changed(f"{group}qqqq", 1))


@pytest.mark.parametrize("path", [*LEAVES, *(group[:-1] for group in GROUPS[1:])])
def test_missing_key(path):
    with pytest.raises(ConfigError, match=rf"the key {re.escape(path)} is missing; set {re.escape(path)}=\.\.\."):
        parse_config(changed(path, ...))


@pytest.mark.parametrize(("path", "value"), LEAVES.items(), ids=LEAVES)
def test_wrong_type(path, value):
    """A value of every other kind; a whole number passes for a float, and nothing for a text or a truth value."""
    for wrong in ("text", 3, 2.5, True, None, [1], {"a": 1}):
        kind = OPTIONAL.get(path, type(value))
        if type(wrong) is kind or (kind is float and type(wrong) is int) or (wrong is None and path in OPTIONAL):
            continue
        if path in {"ngpus", "training.keep_every"} and wrong is None:
            continue
        pattern = rf"^{re.escape(path)} is .*; it must be (of type \w+|a list, for example \[.*\])$"
        with pytest.raises(ConfigError, match=pattern):
            parse_config(changed(path, wrong))


@pytest.mark.parametrize("group", [group[:-1] for group in GROUPS[1:]])
@pytest.mark.parametrize("value", ["tiny", 3, [1, 2], None])
def test_value_in_place_of_a_group(group, value):
    with pytest.raises(ConfigError, match=rf"{group} is .*; it must be a group of keys"):
        parse_config(changed(group, value))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (32, r"stage_lengths is 32; it must be a list, for example \[32, 64, 128\]"),
        ("8,16", "stage_lengths is '8,16'; it must be a list"),
        ([8, "16"], "stage_lengths is '16'; it must be of type int"),
        ([8, 16.0], r"stage_lengths is 16\.0; it must be of type int"),
        ([8, None], "stage_lengths is null; it must be of type int"),
    ],
)
def test_stage_lengths_that_are_no_list_of_whole_numbers(lengths, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(changed("stage_lengths", lengths))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.eval_times", 10**23, r"training\.eval_times has 24 digits; it must be at most 9\.22e\+18"),
        ("optim.lr", 10**400, r"optim\.lr has 401 digits; it must be at most 1\.8e\+308"),
        ("training.log_every", 0, r"training\.log_every is 0; it must be at least 1"),
        ("training.eval_every", 0, r"training\.eval_every is 0; it must be at least 1"),
        ("training.eval_windows", -1, r"training\.eval_windows is -1; it must be at least 1"),
        ("training.eval_times", 0, r"training\.eval_times is 0; it must be at least 1"),
        ("training.snapshot_every", 0, r"training\.snapshot_every is 0; it must be at least 1"),
        ("training.keep", 0, r"training\.keep is 0; it must be at least 1"),
        (
            "training.keep_every",
            0,
            r"training\.keep_every is 0; it must be null or a multiple of training\.snapshot_every, 5,",
        ),
        (
            "training.keep_every",
            12,
            r"training\.keep_every is 12; it must be null or a multiple of training\.snapshot_every, 5",
        ),
        ("training.strategy", "zero", r"training\.strategy is 'zero'; it must be one of ddp, fsdp"),
        ("ngpus", 0, r"ngpus is 0; it must be at least 1, or null for the processes that are there"),
        ("training.t_min", 0.0, r"training\.t_min is 0\.0; it must lie between 0 and 1, 0\.001 is usual"),
        ("training.t_min", 1.0, r"training\.t_min is 1\.0; it must lie between 0 and 1"),
        ("training.peak_flops", 0.0, r"training\.peak_flops is 0\.0; it must be at least 1"),
        ("logging.wandb", "on", r"logging\.wandb is 'on'; it must be one of disabled, offline, online"),
        ("pretrained.weights", "best", r"pretrained\.weights is 'best'; it must be one of ema, raw"),
        ("sampling.num_samples", -1, r"sampling\.num_samples is -1; it must be at least 0"),
        (
            "training.generated_prefix.num_steps",
            0,
            r"training\.generated_prefix\.num_steps is 0; it must be at least 1",
        ),
        ("dtype", "float16", "dtype is 'float16'; it must be one of float32, bfloat16"),
    ],
)
def test_values_out_of_range(path, value, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(path, value))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "stories-tiny-stage2"),
        ({"baseline": True, "earlier_stages": []}, "stories-tiny-flat"),
        ({"pretrained.use_pretrained": True}, "stories-tiny-stage2-finetuning"),
        ({"model.name": "small", "stage": 1, "earlier_stages": []}, "stories-small-stage1"),
    ],
)
def test_names_of_runs(changes, name):
    settings = SETTINGS
    for path, value in changes.items():
        *parents, last = path.split(".")
        settings = settings | ({parents[0]: settings[parents[0]] | {last: value}} if parents else {last: value})
    assert parse_config(settings).run_name("stories") == name


def test_settings_of_one_folder():
    data = DataSettings.of_folder("here", packing="document", stages_dir="there")
    assert (data.path, data.packing, data.stages_dir) == ("here", "document", "there")
    assert (data.dataloader, data.train, data.valid) == (None, None, None)


def test_the_file_has_exactly_these_keys():
    """`cascade_config.yaml` with a model says everything, and nothing else but which run is to go on."""
    folder = CHECKOUT / "configs"
    files = {path: yaml.safe_load(path.read_text()) for path in sorted(folder.rglob("*.yaml"))}
    base = {key: value for key, value in files[folder / "cascade_config.yaml"].items() if key != "defaults"}
    assert base.pop("load_dir", "missing") is None
    for path in sorted((folder / "model").iterdir()):
        assert {name for name, _ in leaves(base | {"model": files[path]})} == LEAVES.keys(), path.name
        assert list(files[path]) == list(SETTINGS["model"])


def test_every_key_is_documented():
    """With its default, in docs/training.md."""
    table = (CHECKOUT / "docs" / "training.md").read_text()
    assert [key for key in ["load_dir", *LEAVES] if f"`{key}`" not in table] == []


def test_uniform_process_without_the_scale_of_the_absorbing_one():
    uniform = SETTINGS | {"graph": {"type": "uniform"}}
    assert SETTINGS["model"]["scale_by_sigma"]
    with pytest.raises(ConfigError, match=r"is true and graph.type is uniform; .*: set model.scale_by_sigma=false"):
        parse_config(uniform)
    parse_config(uniform | {"model": SETTINGS["model"] | {"scale_by_sigma": False}})


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"lr": 1.0}, "lr is unknown; did you mean optim.lr?"),
        ({"steps": 4}, "did you mean training.num_steps or training.generated_prefix.num_steps or sampling.num_steps?"),
        ({"optim": {"num_steps": 4}}, r"optim.num_steps is unknown; did you mean training.num_steps or"),
        ({"optim": {"lrr": 1.0}}, "optim.lrr is unknown; did you mean optim.lr?"),
        ({"trainings": {}}, "trainings is unknown; did you mean training?"),
        ({"warmups": 3}, "warmups is unknown; did you mean optim.warmup?"),
        ({"qqq": 3}, "qqq is unknown; the keys are run_dir, device"),
    ],
)
def test_unknown_key_is_sought_everywhere(changes, meant):
    with pytest.raises(ConfigError, match=re.escape(meant)):
        parse_config(SETTINGS | changes)


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"earlier_stages": []}, ()),
        ({}, ("runs/stage1",)),
        ({"stage1_root_dir": "a", "earlier_stages": []}, ("a",)),
        ({"stage1_root_dir": "a", "stage2_root_dir": "b", "earlier_stages": [], "stage": 3}, ("a", "b")),
        ({"earlier_stages": ["a", "b", "c"], "stage": 4, "stage_lengths": [2, 4, 8, 40]}, ("a", "b", "c")),
    ],
)
def test_earlier_stages_have_two_names(changes, paths):
    assert parse_config(SETTINGS | changes).earlier_paths == paths


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 1}, r"1 earlier stages are named \(runs/stage1\) and stage 1 has 0; name all of them"),
        ({"stage": 3}, r"1 earlier stages are named \(runs/stage1\) and stage 3 has 2; name all of them"),
        ({"baseline": True}, "1 earlier stages are named .* and a flat model has 0"),
        (
            {"stage2_root_dir": "b", "stage": 3, "earlier_stages": []},
            "stage2_root_dir is b and stage1_root_dir is not given; name stage 1 as well",
        ),
        (
            {"stage1_root_dir": "a"},
            r"earlier_stages is \['runs/stage1'\], and stage1_root_dir or stage2_root_dir names .*; leave one",
        ),
    ],
)
def test_earlier_stages_that_do_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(SETTINGS | changes)
