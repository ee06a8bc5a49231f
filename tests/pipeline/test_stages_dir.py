"""Windows and stages beside the data, where the data itself is read-only."""

from tests.pipeline import tiny
from tests.pipeline.commands import failure, files, success


def test_stages_lie_where_they_are_wanted(stories, tmp_path):
    before = files(stories)
    out = tmp_path / "stages"
    flags = ["--data", stories, "--stages", out, "--device", "cpu"]
    success(
        "train",
        *flags,
        "--flat",
        "--out",
        tmp_path / "run",
        "--model",
        "tiny",
        *tiny.OVERRIDES[1:],
        "data.packing=stream",
    )
    [built] = out.iterdir()
    assert "stage3.npy" in files(built)
    success("evaluate", "likelihood", *flags, "--stage", tmp_path / "run", "--num-windows", 2, "--num-times", 1)
    # Evaluating a flat model takes windows without shorter stages.
    assert len(list(out.iterdir())) in (1, 2)
    assert files(stories) == before


def test_folder_that_cannot_be_written(stories, tmp_path):
    (tmp_path / "file").write_text("")
    message = failure(
        "train", "--data", stories, "--out", tmp_path / "run", "--stages", tmp_path / "file", *tiny.OVERRIDES
    )
    assert "file" in message
    assert "cannot be written" in message
