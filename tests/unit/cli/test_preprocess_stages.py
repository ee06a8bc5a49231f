import shutil

import pytest
import typer
from typer.testing import CliRunner

from cascaded_dllm.assemble.windows import windows_of_folder
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.cli import preprocess_stages as module
from cascaded_dllm.cli.compose import compose_config
from cascaded_dllm.cli.preprocess_stages import stages
from cascaded_dllm.data import stages as stages_module
from cascaded_dllm.data.stages import StageArrays
from tests.unit.preprocess.look import write_dataset

TEXTS = ["The fox found a key. " * 9, "x\x1b[31m" * 20, "y"]
LENGTHS = ("--lengths", "3,6,16")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("look") / "data", TEXTS)


@pytest.fixture
def folder(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "data")


def run(*arguments):
    app = typer.Typer()
    app.command()(stages)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def output(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.stdout


@pytest.mark.parametrize(
    ("flags", "overrides"),
    [
        (["--lengths", "3,6,16"], ["stage_lengths=[3,6,16]"]),
        (["--lengths", "16"], ["stage_lengths=[16]"]),
        (["--lengths", "3,16", "--packing", "document"], ["stage_lengths=[3,16]", "data.packing=document"]),
        (["--lengths", "3,16", "--no-unique"], ["stage_lengths=[3,16]", "data.unique=false"]),
        (["--no-unique"], ["data.unique=false"]),
    ],
)
def test_training_finds_what_was_built(folder, monkeypatch, flags, overrides):
    text = output(folder, *flags)
    monkeypatch.setattr(stages_module, "write_stages", None)
    config = compose_config(overrides)
    arrays = windows_of_folder(str(folder), CascadeSpec(config.stage_lengths), config.data)
    assert text.splitlines()[-1] == f"stages: {folder}/stages/{arrays.fingerprint}"
    assert f"stage lengths {', '.join(map(str, config.stage_lengths))}" in " ".join(text.split())


def test_counts_are_said(folder):
    text = " ".join(output(folder, *LENGTHS).split())
    arrays = StageArrays.build(folder, CascadeSpec((3, 6, 16)), packing="stream")
    dropped, tail = arrays.dropped["too_few_distinct_tokens"], arrays.dropped["tail_tokens"]
    assert dropped > 0 < tail
    assert f"windows {arrays.num_windows} windows dropped for too few distinct tokens {dropped} of 19" in text
    assert f"tokens at the end that fill no window {tail} on the disk" in text


def test_another_folder_for_read_only_data(folder, tmp_path):
    text = output(folder, *LENGTHS, "--stages", tmp_path / "out")
    assert not (folder / "stages").exists()
    [built] = (tmp_path / "out").iterdir()
    assert f"stages: {built}\n" in text
    assert output(folder, *LENGTHS, "--stages", tmp_path / "out").splitlines()[-1] == f"stages: {built}"


def test_number_of_processes(folder, monkeypatch):
    used = []
    real = stages_module.write_stages

    def write_stages(*arguments, workers, on_progress):
        used.append(workers)
        return real(*arguments, workers=workers, on_progress=on_progress)

    monkeypatch.setattr(stages_module, "write_stages", write_stages)
    monkeypatch.setattr(module, "useful_workers", lambda: 5)
    output(folder, "--lengths", "3,16", "--workers", 3)
    output(folder, "--lengths", "4,16")
    assert used == [3, 5]
    result = run(folder, "--lengths", "5,16", "--workers", 0)
    assert result.exit_code == 2
    assert "workers is 0; it must be at least 1" in result.stderr
