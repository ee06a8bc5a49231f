"""Reading the parts that several processes have written, in one."""

import warnings
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from cascaded_dllm.errors import CheckpointError
from cascaded_dllm.train.sharded import read_parts


def stored(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        save({"exp_avg.weight": torch.arange(6.0).view(2, 3)}, storage_writer=FileSystemWriter(folder), no_dist=True)
    return folder


def test_parts_come_back(tmp_path: Path) -> None:
    parts = {"exp_avg.weight": torch.zeros(2, 3)}

    read_parts(parts, stored(tmp_path))

    assert torch.equal(parts["exp_avg.weight"], torch.arange(6.0).view(2, 3))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"exp_avg.bias": torch.zeros(3)}, "exp_avg.bias"),
        ({"exp_avg.weight": torch.zeros(3, 3)}, "exp_avg.weight"),
    ],
    ids=["missing", "another shape"],
)
def test_parts_of_another_network(tmp_path: Path, parts: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{tmp_path}.*optimizer \(.*{reason}.*\); resume from another"):
        read_parts(parts, stored(tmp_path))
