"""The folder of a study: locks and records of its parts."""

import pytest

from cascaded_dllm.errors import FolderInUseError, OutputExistsError, StoppedError
from cascaded_dllm.study.attendant import Attendant
from cascaded_dllm.study.place import Place


def test_a_part_belongs_to_one(tmp_path):
    place = Place(tmp_path)
    in_use = pytest.raises(FolderInUseError, match=r"locks/runs/a belongs to a run that is going on: process")
    with place.lock("runs/a"), place.lock("runs/b"), in_use:
        place.lock("runs/a").__enter__()
    with place.lock("runs/a"):
        pass


def test_who_waits_for_a_part_can_be_told_to_stop(tmp_path):
    place, asked = Place(tmp_path), []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) == 2

    stopped = pytest.raises(StoppedError, match=r"the study was told to stop; what is finished is kept")
    with place.lock("data"), stopped, Attendant(should_stop).waiting_for(place, "data"):
        raise AssertionError("it belongs to another")
    assert len(asked) == 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputExistsError, match=r"file/locks/data cannot be made \(Not a directory\); use --out to name"
    ):
        Place(tmp_path / "file").lock("data").__enter__()


def test_records(tmp_path):
    place = Place(tmp_path)
    assert place.record("bounds/flat/seed0") is None
    place.settle("bounds/flat/seed0", {"of": "x", "status": "done"})
    assert place.record("bounds/flat/seed0") == {"of": "x", "status": "done"}
