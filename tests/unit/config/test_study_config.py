"""Every key of a study file is known and has one type, and what contradicts itself is told."""

import copy
import re

import pytest

from cascaded_dllm.cli.study_file import read_study, shipped_studies
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.study_config import parse_study

STUDY = {
    "name": "mine",
    "corpus": {"dataset": "stories"},
    "lengths": [4, 8, 40],
    "budget": {"token_forwards": 1000},
    "arms": [{"name": "flat", "kind": "flat"}, {"name": "placed", "kind": "placed"}],
    "sampling": [{"name": "first", "num_samples": 4}],
}


def changed(path, value):
    settings = copy.deepcopy(STUDY)
    *groups, last = path
    inner = settings
    for group in groups:
        inner = inner.setdefault(group, {}) if isinstance(inner, dict) else inner[group]
    inner[last] = value
    return settings


def test_a_study_becomes_typed_and_comes_back():
    study = parse_study(STUDY)
    assert (study.seeds, study.evaluate.num_windows, study.arms[1].method) == ((0,), 512, "constituency")
    assert study.methods == ("constituency",)
    assert parse_study(study.to_dict()) == study


def test_a_drawing_for_each_stage():
    stages = {"predictor": ["analytic", "first_hitting", "entropy"], "steps": [3, None, None], "tokens_per_call": 2}
    study = parse_study(changed(["sampling", 0], {"name": "first", **stages}))
    [drawing] = study.sampling
    assert (drawing.predictor, drawing.steps) == (("analytic", "first_hitting", "entropy"), (3, None, None))
    assert drawing.tokens_per_call == 2
    assert parse_study(study.to_dict()) == study


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["budgett"], {}, "the key budgett is unknown; did you mean budget?"),
        (["arms", 1, "methods"], "random", "the key arms[1].methods is unknown; did you mean arms[1].method?"),
        (["evaluate", "num_window"], 3, "the key evaluate.num_window is unknown; did you mean evaluate.num_windows?"),
        (["corpus"], "stories", "corpus is 'stories'; it must be a group of keys"),
        (["base"], "model=tiny", "base is 'model=tiny'; it must be a list, for example [model=tiny]"),
        (["arms"], "flat", "arms is 'flat'; it must be a list, groups of keys, each after a dash"),
        (["arms"], [], "arms is empty; a study needs at least 1"),
        (["seeds"], [], "seeds is empty"),
        (["seeds"], [0, 0], "seeds has the seed 0 2 times; each may be there once"),
        (["seeds"], [0, -1], "the smallest of seeds is -1; it must be at least 0"),
        (["arms", 1, "name"], "flat", "arms has the name flat 2 times"),
        (["arms", 1, "name"], "a/b", "an arm is called 'a/b'; give it a name of letters"),
        (["arms", 1, "kind"], "cascade", "the kind of arm placed is 'cascade'; it must be one of flat, prefix, placed"),
        (
            ["arms", 1, "overrides"],
            ["training.seed=3"],
            "arm placed has the override training.seed, which a study",
        ),
        (
            ["base"],
            ["pretrained.use_pretrained=true"],
            "base has the override pretrained.use_pretrained, which",
        ),
        (
            ["base"],
            ["training={seed: 5}"],
            r"base has the override training.num_steps (in training={...}), which",
        ),
        (["name"], "", "name is ''; give the study a name like tiny-stories"),
        (["budget", "flops"], 1.0, "budget.token_forwards is 1000 and budget.flops 1.0; give one of them"),
        (["budget"], {}, "budget.token_forwards is null and budget.flops null; give one of them"),
        (["budget", "token_forwards"], -5, "budget.token_forwards is -5; it must be greater than 0"),
        (["budget"], {"flops": float("nan")}, "budget.flops is nan; it must be greater than 0, and finite"),
        (["budget"], {"flops": float("inf")}, "budget.flops is inf; it must be greater than 0, and finite"),
        (["budget", "split"], "even", "budget.split is 'even'; it must be one of windows, equal"),
        (["evaluate", "points"], 0, "evaluate.points is 0; it must be at least 1"),
        (["evaluate", "t_min"], 1.0, "evaluate.t_min is 1.0; it must lie between 0 and 1"),
        (["sampling", 0, "name"], "x y", "a drawing is called 'x y'; give it a name like first_hitting"),
        (["sampling", 0, "num_samples"], 0, "num_samples of the drawing first is 0; it must be at least 1"),
        (
            ["sampling", 0, "predictor"],
            "analytic,euler",
            "the predictor of the drawing first is 'analytic,euler'; for one a stage give a list, [analytic,euler]",
        ),
        (["sampling", 0, "predictor"], 3, "sampling[0].predictor is 3; it must be of type str"),
        (["sampling", 0, "predictor"], None, "sampling[0].predictor is null; it must be of type str"),
        (["sampling", 0, "steps"], [3, "x"], "sampling[0].steps is 'x'; it must be of type int"),
        (["corpus", "dataset"], None, "corpus.dataset is null and corpus.folders has 0 entries; give one of them"),
        (
            ["corpus"],
            {"folders": [{"method": "random", "train": "a", "valid": "b"}]},
            "the method constituency is not in the study; it has random",
        ),
    ],
)
def test_what_is_wrong_is_told(path, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_study(changed(path, value))


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("arms: [", [], "cannot be read (while parsing"),
        ("- a\n- b\n", [], "contains a list; a study is a group of keys"),
        ("name: x\n", ["seeds"], "the override 'seeds' has no '='; write key=value"),
        ("name: x\n", ["seeds=[0"], "the override 'seeds=[0' cannot be read (no viable"),
        ("name: x\n", ["name.first=x"], "the override name.first=x sets a key in name, which is not a group but 'x'"),
        ("name: x\n", ["corpus.dataset=stories"], "the key lengths is missing; set lengths=..."),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, overrides, message):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_study(str(path), overrides)


def test_a_study_that_is_not_there():
    with pytest.raises(ConfigError, match=r"the study is 'tiny', which is not a file; .*: prose-small, tiny-stories"):
        read_study("tiny")


def test_shipped_studies_and_overrides(tmp_path):
    assert set(shipped_studies()) == {"tiny-stories", "prose-small"}
    study = read_study("tiny-stories", ["budget.token_forwards=7", "seeds=[3]", "evaluate.num_times=2"])
    assert (study.budget.amount, study.seeds, study.evaluate.num_times) == (7, (3,), 2)
    path = tmp_path / "flops.yaml"
    path.write_text(shipped_studies()["tiny-stories"].read_text().replace("token_forwards: 12000000", "flops: 1e15"))
    assert read_study(str(path)).budget.flops == 1e15
