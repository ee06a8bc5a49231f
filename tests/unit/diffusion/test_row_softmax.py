"""The softmax of whole rows, as it is compiled for a GPU, is that of blocks; it needs neither here."""

import pytest
import torch

from cascaded_dllm.blocked_softmax import BlockedSoftmax, Memory, Tiles
from cascaded_dllm.diffusion import row_softmax
from cascaded_dllm.diffusion.row_softmax import RowSoftmax, logit_and_sum

ROWS, WIDTH, COLUMNS = 5, 3, 13


@pytest.mark.parametrize("kept", [torch.float64, torch.float32])
def test_whole_rows_are_blocks(kept: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a column that cannot be, a row of huge logits and clean tokens that are none."""
    monkeypatch.setattr(row_softmax, "_compiled", lambda function: function)
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((ROWS, WIDTH), (COLUMNS, WIDTH), (COLUMNS,))
    )
    bias[4], states[2] = -torch.inf, 900 * states[2]
    x0 = torch.tensor([0, 12, 3, -1, 13])
    tiles = Tiles.of(ROWS, COLUMNS, states.device, kept=kept)
    blocks = BlockedSoftmax(
        states, weight, bias, x0, [slice(0, 5), slice(5, 13)], tiles.memory(states, kept=kept), kept=kept
    )
    rows = RowSoftmax(states, weight, bias, x0, Memory(states.new_empty(ROWS * COLUMNS), None), kept=kept)
    assert rows.at_x0.isnan().tolist() == [False, False, False, True, True]
    torch.testing.assert_close(rows.at_x0, blocks.at_x0, equal_nan=True)
    torch.testing.assert_close(rows.log_sum, blocks.log_sum)
    ((columns, softmax, factor),) = rows.parts()
    assert (columns, softmax.dtype) == (slice(0, COLUMNS), kept)
    expected = torch.softmax(states @ weight.T + bias, -1)
    torch.testing.assert_close((factor[:, None] * softmax).double(), expected, rtol=1e-5, atol=1e-7)
    in_blocks = torch.cat([factor[:, None] * exps for _, exps, factor in blocks.parts()], dim=1)
    torch.testing.assert_close(in_blocks, expected, rtol=1e-5, atol=1e-7)


def test_a_row_that_cannot_be_anything() -> None:
    """As in blocks: no NaN that would hide which row it was."""
    logits = torch.full((1, 4), -torch.inf)
    _, log_sum = logit_and_sum(logits, torch.zeros(1, dtype=torch.long))
    assert log_sum.tolist() == [-torch.inf]
