import json
import shutil

import pytest
import typer
from typer.testing import CliRunner

from cascaded_dllm.cli.study_report import report
from tests.unit.report import made_up


def run(*arguments):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def folder(tmp_path):
    made_up.write(tmp_path, made_up.study())
    return tmp_path


def test_page_and_json_lie_beside_the_results(folder):
    before = (folder / "results.json").read_bytes()
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert '"placed" wins: its bound is' in result.stdout
    assert '- "placed, learning rate 3e-3": seed 1 diverged' in result.stdout
    assert f"written to {folder / 'report.html'} and {folder / 'report.json'}" in result.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert "<h1>tiny-stories (made up)</h1>" in page
    assert values["verdict"] in result.stdout
    assert {path.name for path in folder.iterdir()} == {"results.json", "report.html", "report.json"}
    assert (folder / "results.json").read_bytes() == before
    # Once more, from the file, replaces both.
    assert run(folder / "results.json").exit_code == 0
    assert (folder / "report.html").read_text(encoding="utf-8") == page


def test_out_says_where(folder, tmp_path):
    shutil.move(folder / "results.json", folder / "other.json")
    out = tmp_path / "new" / "tiny.html"
    result = run(folder / "other.json", "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.parent.iterdir()) == ["tiny.html", "tiny.json"]


@pytest.mark.parametrize("name", ["report.json", "report", "folder.html"])
def test_out_must_be_a_page(folder, name):
    (folder / "folder.html").mkdir()
    message = error(folder, "--out", folder / name)
    assert f"{name}; it must be a file that ends in .html, for example report.html" in message
    assert not (folder / "report.html").exists()


def test_out_must_not_replace_results(folder):
    message = error(folder, "--out", folder / "results.html")
    assert "the JSON beside it would replace" in message
    made_up.write(folder, made_up.study()).rename(folder / "mine.json")
    assert "choose another name" in error(folder / "mine.json", "--out", folder / "mine.html")
    assert json.loads((folder / "mine.json").read_text())["format"] == "cascaded-dllm-study/1"


def test_damaged_results_are_an_error_of_one_line(folder):
    (folder / "results.json").write_text("{}")
    assert "format is missing; it must be one of cascaded-dllm-study/1" in error(folder)
    assert "cannot be read" in error(folder / "nothing")
    with pytest.raises(Exception, match="format is missing"):
        raise run(folder, "--debug").exception or AssertionError
