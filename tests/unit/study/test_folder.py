"""The folder of a study: locks and records of its parts."""

import pytest

from cascaded_dllm.errors import FolderInUseError, OutputError, StoppedError
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.folder import StudyFolder


def test_a_part_belongs_to_one(tmp_path):
    folder = StudyFolder(tmp_path)
    in_use = pytest.raises(FolderInUseError, match=r"locks/runs/a belongs to a run that is going on: process")
    with folder.lock("runs/a"), folder.lock("runs/b"), in_use:
        folder.lock("runs/a").__enter__()
    with folder.lock("runs/a"):
        pass


def test_who_waits_for_a_part_can_be_told_to_stop(tmp_path):
    folder, asked = StudyFolder(tmp_path), []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) == 2

    stopped = pytest.raises(StoppedError, match=r"the study was told to stop; what is finished is kept")
    with folder.lock("data"), stopped, StudyCallbacks(should_stop).waiting_for(folder, "data"):
        raise AssertionError("it belongs to another")
    assert len(asked) == 2


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/locks/data cannot be made \(Not a directory\); use --out to name"):
        StudyFolder(tmp_path / "file").lock("data").__enter__()


def test_records(tmp_path):
    folder = StudyFolder(tmp_path)
    assert folder.record("bounds/flat/seed0") is None
    folder.settle("bounds/flat/seed0", {"of": "x", "status": "done"})
    assert folder.record("bounds/flat/seed0") == {"of": "x", "status": "done"}
