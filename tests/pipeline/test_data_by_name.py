"""Which folders of data are read, and what is said where they are not there or hold something else."""

import pytest
import yaml

from cascaded_dllm.assemble.data import LocatedData, locate
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.errors import ConfigError, DataError
from tests.pipeline import tiny
from tests.pipeline.commands import success


def located(*overrides: str) -> LocatedData:
    return locate(compose_config(overrides).data)


@pytest.fixture
def root(stories, valid_stories, tmp_path):
    for method in ("constituency", "keybert"):
        (tmp_path / method).mkdir()
    for folder in (stories, valid_stories):
        (tmp_path / "constituency" / folder.name).symlink_to(folder)
    (tmp_path / "keybert" / stories.name).symlink_to(stories)
    return tmp_path


def test_names_lead_to_folders(root):
    found = located(f"data.root='{root}'", "data.train=stories", "data.valid=stories")
    assert found.settings.path == f"{root}/constituency/stories_train"
    assert found.settings.valid == f"{root}/constituency/stories_valid"
    assert found.held.dataset == "stories"


def test_the_hub_calls_it_validation(root, valid_stories):
    (root / "constituency" / "other_validation").symlink_to(valid_stories)
    found = located(f"data.root='{root}'", "data.train=stories", "data.valid=other")
    assert found.settings.valid == f"{root}/constituency/other_validation"
    (root / "constituency" / "other_valid").symlink_to(valid_stories)
    with pytest.raises(DataError, match=r"data\.valid is other, and both .*other_validation and .*other_valid are th"):
        located(f"data.root='{root}'", "data.train=stories", "data.valid=other")


def test_a_path_wins_over_the_names_of_the_files(root, stories, valid_stories):
    """And validation data by name lies beside that of its method."""
    found = located(f"data.path='{stories}'")
    assert (found.settings.path, found.settings.valid) == (str(stories), None)
    found = located(f"data.path='{stories}'", "data.valid=stories", f"data.root='{root}'")
    assert found.settings.valid == f"{root}/constituency/stories_valid"
    found = located(f"data.path='{stories}'", f"data.valid='{valid_stories}'")
    assert found.settings.valid == str(valid_stories)


def test_a_run_that_is_there_and_no_data(root, tmp_path):
    """Who names the folder of a run alone wants to go on with it."""
    data = compose_config([f"data.root='{root}'", "data.train=other"]).data
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"name a folder with --data \(data\.path\)$"):
        locate(data, str(tmp_path / "run"))
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(DataError, match=r"go on with the run that is in .*run, and its data: load_dir=.*run$"):
        locate(data, str(tmp_path / "run"))


def test_a_run_goes_on_from_another_folder(stories, valid_stories, runs, tmp_path, monkeypatch):
    """`load_dir` is all that has to be said there, however data and models were named at first."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    for name, target in (("train", stories), ("valid", valid_stories), ("stage1", runs / "stage1")):
        (here / name).symlink_to(target)
    generated = "training.generated_prefix"
    models = ["earlier_stages=[stage1]", f"{generated}.prob=0.5", f"{generated}.stage_paths=[stage1]"]
    flags = ["--data", "train", "--valid", "valid", "--stages", "stages", "--stage", "2", "--out", "run"]
    success("train", *flags, *tiny.OVERRIDES, *models, "training.num_steps=2", "sampling.num_samples=1")
    stored = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert [stored["data"][key] for key in ("path", "valid", "stages_dir")] == [
        str(here / name) for name in ("train", "valid", "stages")
    ]
    assert stored["earlier_stages"] == stored["training"]["generated_prefix"]["stage_paths"] == [str(here / "stage1")]
    monkeypatch.chdir(there)
    assert "resumed at step 2" in success("train", "load_dir=../here/run", "training.num_steps=3").stdout
    assert list(there.iterdir()) == []
    # The folder that one stands in, and the same command, still do.
    monkeypatch.chdir(here)
    again = success("train", *flags, *tiny.OVERRIDES, *models, "training.num_steps=4", "sampling.num_samples=1")
    assert "resumed at step 3" in again.stdout


def test_names_that_say_the_same_as_the_path(stories):
    named = ["data.dataloader=constituency", "data.train=stories"]
    assert located(f"data.path='{stories}'", *named).settings.path == str(stories)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.dataloader=keybert",
            "data.dataloader is keybert, and .*stories_train was made of constituency; leave",
        ),
        ("data.train=wikitext2", "data.train is wikitext2, and .*_train was made of stories; leave one of"),
    ],
)
def test_names_that_contradict_the_path(stories, override, message):
    with pytest.raises(DataError, match=message):
        located(f"data.path='{stories}'", override)


def test_folder_that_holds_the_data_of_another_method(root):
    with pytest.raises(DataError, match=r"data\.dataloader is keybert, and .* was made of constituency"):
        located(f"data.root='{root}'", "data.train=stories", "data.dataloader=keybert", "data.valid=null")


@pytest.mark.parametrize("method", ["constituency", "keybert", "keybert_no_stopword"])
def test_data_that_is_not_there(tmp_path, method):
    expected = rf"{tmp_path}/{method}/wikitext2_train is not there, .*`cdllm preprocess {method} --dataset wikitext2"
    with pytest.raises(DataError, match=expected):
        located(f"data.root='{tmp_path}'", "data.train=wikitext2", f"data.dataloader={method}")


def test_validation_data_that_is_not_there(root):
    expected = r"constituency/ptb_validation is not there, .*--split validation --tokenizer .*stories_train --out .* or"
    with pytest.raises(DataError, match=expected):
        located(f"data.root='{root}'", "data.train=stories", "data.valid=ptb")


def test_the_flag_names_a_folder(stories, tmp_path, monkeypatch):
    """Even one without a slash, which in an override would be the name of a corpus."""
    monkeypatch.chdir(tmp_path)
    shown = success("train", "--data", stories, "--valid", "mine", "--cfg", "job").stdout
    assert yaml.safe_load(shown)["data"]["valid"] == "./mine"


@pytest.mark.parametrize("names", [("null", "null"), ("null", "keybert"), ("stories", "null")])
def test_no_data_is_named(names):
    train, method = names
    with pytest.raises(ConfigError, match=rf"data\.path is null, data\.train {train} and data\.dataloader {method};"):
        located(f"data.train={train}", f"data.dataloader={method}")


def test_unknown_method():
    with pytest.raises(ConfigError, match=r"data\.dataloader is 'bert'; it must be one of constituency, "):
        located("data.dataloader=bert")
