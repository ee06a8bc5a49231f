"""The bounds of a study on the disk."""

from pathlib import Path

import numpy as np
import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study.measuring import read_nats


def test_a_bound_that_is_gone_or_damaged(tmp_path: Path) -> None:
    """A record that is done promises the file, which somebody may have removed, or copied in part."""
    folder = StudyFolder(tmp_path)
    message = r"seed1/bound.npz cannot be read \((\w+)\), .*remove \S+/records/bounds/flat/seed1.json and give"
    with pytest.raises(DataError, match=message):
        read_nats(folder, "flat", 1)
    file = folder.arm("flat", 1) / "bound.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, nll_nats=np.arange(50.0))
    assert read_nats(folder, "flat", 1).tolist() == list(range(50))
    whole = file.read_bytes()
    for content in (b"", b"\0" * 20, whole[:100], whole[:-30], whole[:200] + b"\xff" + whole[201:]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_nats(folder, "flat", 1)
    np.savez(file, others=np.arange(3.0))
    with pytest.raises(DataError, match=message):
        read_nats(folder, "flat", 1)
