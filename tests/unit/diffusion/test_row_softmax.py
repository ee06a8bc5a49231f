"""The softmax of whole rows, as it is compiled for a GPU, is that of blocks; it needs neither here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cascaded_dllm.blocked_softmax import BlockedSoftmax, Tiles
from cascaded_dllm.diffusion import row_softmax
from cascaded_dllm.diffusion.row_softmax import RowSoftmax, logit_and_sum
from tests.repo.source_tree import CHECKOUT

ROWS, WIDTH, COLUMNS = 5, 3, 13


def without_x0(softmax: BlockedSoftmax | RowSoftmax, kept: torch.dtype) -> Tensor:
    parts = list(softmax.others())
    assert [columns.start for columns, *_ in parts] == [0, *(columns.stop for columns, *_ in parts[:-1])]
    assert {exps.dtype for _, exps, _ in parts} == {kept}
    return torch.cat([factor[:, None] * exps.double() for _, exps, factor in parts], dim=1)


@pytest.mark.parametrize(("kept", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_whole_rows_are_blocks(kept: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a column that cannot be, a row of huge logits and clean tokens that are none."""
    monkeypatch.setattr(row_softmax, "_compiled", lambda function: function)
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, WIDTH), (COLUMNS, WIDTH), (COLUMNS,))
    )
    bias[4], states[2] = -torch.inf, 900 * states[2]
    x0 = torch.tensor([0, 12, 3, -1, 13])
    tiles = Tiles.of(ROWS, COLUMNS, states.device, states.dtype, kept=kept)
    in_blocks = [slice(0, 5), slice(5, 13)]
    blocks = BlockedSoftmax(states, weight, bias, x0, in_blocks, tiles.memory(states, kept=kept), kept=kept)
    rows = RowSoftmax(states, weight, bias, x0, tiles.memory(states, kept=kept))
    assert rows.at_x0.isnan().tolist() == [False, False, False, True, True]
    for name in ("at_x0", "log_sum", "of_x0"):
        torch.testing.assert_close(getattr(rows, name), getattr(blocks, name), equal_nan=True)
    expected = torch.softmax(states @ weight.T + bias, -1)
    torch.testing.assert_close(rows.of_x0[:3], expected[range(3), x0[:3]])
    expected[range(3), x0[:3]] = 0
    # Where there is no clean token, what is left out does not matter.
    for found in (without_x0(rows, kept), without_x0(blocks, kept)):
        torch.testing.assert_close(found[:3], expected[:3], rtol=tolerance, atol=tolerance)


def test_a_row_that_cannot_be_anything() -> None:
    """As in blocks: no NaN that would hide which row it was."""
    logits = torch.full((1, 4), -torch.inf)
    _, log_sum = logit_and_sum(logits, torch.zeros(1, dtype=torch.long))
    assert log_sum.tolist() == [-torch.inf]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_rows_are_rows(tmp_path: Path) -> None:
    """For several numbers of rows, in place and in another dtype; in a process without run-time type checks."""
    script = "from tests.unit.diffusion import test_row_softmax as tests; tests.print_differences()"
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    differences = json.loads(answer.stdout)
    assert max(differences["torch.float32"]) < 1e-6
    assert max(differences["torch.bfloat16"]) < 4e-3
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"


def print_differences() -> None:
    torch.manual_seed(0)
    found: dict[str, list[float]] = {}
    for kept in (torch.float32, torch.bfloat16):
        for rows in (5, 9, 12):
            states, weight, bias = torch.randn(rows, WIDTH), torch.randn(COLUMNS, WIDTH), torch.randn(COLUMNS)
            x0 = torch.randint(COLUMNS, (rows,))
            tiles = Tiles.of(rows, COLUMNS, states.device, states.dtype, kept=kept)
            compiled = RowSoftmax(states, weight, bias, x0, tiles.memory(states, kept=kept))
            expected = torch.softmax(states @ weight.T + bias, -1).double()
            expected[range(rows), x0] = 0
            found.setdefault(str(kept), []).append(float((without_x0(compiled, kept) - expected).abs().max()))
    print(json.dumps(found))
