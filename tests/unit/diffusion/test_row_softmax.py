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


def without_x0(softmax: BlockedSoftmax | RowSoftmax, tiles: Tiles, like: Tensor) -> Tensor:
    # One that is not kept is there until the next is made.
    kept = [
        block if tiles.apart else block._replace(exps=block.exps.clone())
        for block in softmax.blocks(tiles, tiles.memory(like))
    ]
    assert [block.columns for block in kept] == tiles.blocks
    assert {block.exps.dtype for block in kept} == {tiles.exps}
    return torch.cat([softmax.factor(block)[:, None] * block.exps.double() for block in kept], dim=1)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("exps", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_whole_rows_are_blocks(
    exps: torch.dtype, tolerance: float, apart: bool, shifted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a column that cannot be, a row of huge logits, clean tokens that are none, and a shift by which no exp()
    overflows."""
    monkeypatch.setattr(row_softmax, "_compiled", lambda function: function)
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, WIDTH), (COLUMNS, WIDTH), (COLUMNS,))
    )
    bias[4], states[2] = -torch.inf, 900 * states[2]
    x0 = torch.tensor([0, 12, 3, -1, 13])
    logits = states @ weight.T + bias
    shift = logits.amax(-1) + torch.tensor([1, -1, 5, 0, 3]) if shifted else None
    tiles = Tiles.of(ROWS, COLUMNS, states.device, states.dtype, exps=exps, apart=apart)
    blocks, rows = (kind(states, weight, bias, x0, shift) for kind in (BlockedSoftmax, RowSoftmax))
    found = [
        without_x0(rows, tiles, states),
        without_x0(blocks, tiles._replace(blocks=[slice(0, 8), slice(8, 13)]), states),
    ]
    assert rows.at_x0.isnan().tolist() == [False, False, False, True, True]
    for name in ("at_x0", "log_sum", "of_x0"):
        torch.testing.assert_close(getattr(rows, name), getattr(blocks, name), equal_nan=True)
    subtracted = torch.zeros(ROWS, dtype=torch.float64) if shift is None else shift
    torch.testing.assert_close(rows.log_sum, logits.logsumexp(-1) - subtracted)
    torch.testing.assert_close(rows.at_x0[:3], logits[range(3), x0[:3]] - subtracted[:3])
    expected = torch.softmax(logits, -1)
    torch.testing.assert_close(rows.of_x0[:3], expected[range(3), x0[:3]])
    expected[range(3), x0[:3]] = 0
    # Where there is no clean token, what is left out does not matter.
    for others in found:
        torch.testing.assert_close(others[:3], expected[:3], rtol=tolerance, atol=tolerance)


def test_a_row_that_cannot_be_anything() -> None:
    """As in blocks: no NaN that would hide which row it was."""
    logits = torch.full((1, 4), -torch.inf)
    _, log_sum = logit_and_sum(logits, torch.zeros(1, dtype=torch.long))
    assert log_sum.tolist() == [-torch.inf]


@pytest.mark.parametrize("kind", [BlockedSoftmax, RowSoftmax])
def test_a_shift_that_leaves_nothing(
    kind: type[BlockedSoftmax] | type[RowSoftmax], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All exps round to zero, as the scores do: the clean token's share of them is zero, and not NaN."""
    monkeypatch.setattr(row_softmax, "_compiled", lambda function: function)
    states, weight, bias, x0 = torch.ones(1, 2), torch.ones(3, 2), torch.zeros(3), torch.tensor([1])
    tiles = Tiles.of(1, 3, states.device, states.dtype, exps=torch.float32, apart=False)
    softmax = kind(states, weight, bias, x0, torch.tensor([500.0]))
    (block,) = softmax.blocks(tiles, tiles.memory(states))
    assert block.exps.tolist() == [[0, 0, 0]]
    assert (softmax.at_x0.tolist(), softmax.log_sum.tolist(), softmax.of_x0.tolist()) == ([-498], [-torch.inf], [0])


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
    for exps in (torch.float32, torch.bfloat16):
        for rows in (5, 9, 12):
            states, weight, bias = torch.randn(rows, WIDTH), torch.randn(COLUMNS, WIDTH), torch.randn(COLUMNS)
            x0 = torch.randint(COLUMNS, (rows,))
            tiles = Tiles.of(rows, COLUMNS, states.device, states.dtype, exps=exps, apart=True)
            expected = torch.softmax(states @ weight.T + bias, -1).double()
            expected[range(rows), x0] = 0
            for shift in (None, torch.full((rows,), 2.0)):
                compiled = RowSoftmax(states, weight, bias, x0, shift)
                difference = (without_x0(compiled, tiles, states) - expected).abs().max()
                found.setdefault(str(exps), []).append(float(difference))
    print(json.dumps(found))
