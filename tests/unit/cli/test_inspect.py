import shutil
import sys

import pytest
import typer
from typer.testing import CliRunner

from cascaded_dllm.cli.inspect import inspect
from tests.unit.preprocess.look import write_dataset

TEXTS = ["The fox found a key. " * 9, "x\x1b[31m" * 20, "y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("look") / "data", TEXTS)


def run(*arguments):
    app = typer.Typer()
    app.command()(inspect)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def output(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception!r}"
    return result.stdout


def error(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_terminal_shows_windows_stages_and_counts(folder):
    text = output(folder, "--lengths", "3,6,16")
    assert "look, train" in text
    assert "stage 1: 3 tokens" in text
    assert "of 19 windows, drawn with seed 0" in text
    assert "window " in text
    assert "head proper noun" in text
    assert "tokens of all 19 windows" in text
    assert "tokens at the end that fill no window" in text


def test_lengths_and_packing_are_by_default_those_of_the_configuration(folder):
    text = output(folder)
    assert "32, 64, 128" in text
    assert "stream" in text
    assert "one window each of 3 of 3 documents" in output(folder, "--packing", "document")


def test_window_of_a_document(folder):
    text = output(folder, "--lengths", "3,16", "--document", "d2", "--num-windows", 1)
    assert "0 of the 0 windows that hold tokens of the document d2" in text


def test_page_is_written(folder, tmp_path):
    path = tmp_path / "deep" / "look.html"
    assert f"written to {path}" in output(folder, "--lengths", "3,16", "--html", path).replace("\n", "")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [item.name for item in path.parent.iterdir()] == ["look.html"]


def test_page_is_there_if_nobody_reads_to_the_end(folder, tmp_path, monkeypatch):
    def closed(_):
        raise BrokenPipeError

    monkeypatch.setattr(sys.modules[inspect.__module__], "_show", closed)
    assert run(folder, "--lengths", "3,16", "--html", tmp_path / "look.html").exit_code == 1
    assert (tmp_path / "look.html").is_file()


def test_control_characters_are_shown_and_not_done(folder):
    text = output(folder, "--lengths", "3,16", "--document", "d1")
    assert "\x1b" not in text
    assert "\N{SYMBOL FOR ESCAPE}[31m" in text.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "32,x"], "--lengths is '32,x'; it must be whole numbers with commas, for example"),
        (["--lengths", "64,32"], "must strictly increase"),
        (["--packing", "sorted"], "packing is 'sorted'; it must be one of stream, document"),
        (["--num-windows", "0"], "the number of windows is 0"),
        (["--document", "d9"], "has the id 'd9'; the first ids there are 'd0', 'd1', 'd2'"),
        (["--document", "d1", "--seed", "3"], "--document 'd1' and --seed 3 both say what to show"),
    ],
)
def test_bad_options(folder, arguments, message):
    assert message in error(folder, *arguments)


def test_part_of_a_dataset(tmp_path):
    folder = write_dataset(tmp_path / "data", TEXTS, num_shards=3)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "shard_2")
    told = " ".join(output(folder, "--lengths", "3,6,16").split())
    assert "note: the dataset is not complete: 2 of its 3 shards are there, and only they are shown" in told


def test_shard_in_place_of_its_dataset(folder):
    assert f"describes 'shard', not 'preprocessed dataset'; name {folder}, of which it is a part" in error(
        folder / "shard_0"
    )


def test_folder_that_is_none(tmp_path):
    assert "is not a complete preprocessed dataset" in error(tmp_path)


def test_page_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in error(folder, "--html", tmp_path / "file" / "look.html")
