"""Parts that cover everything once, and a logsumexp that does not depend on them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm import blocked_softmax
from cascaded_dllm.blocked_softmax import Tiles, blocked_logsumexp, even_parts
from tests.unit.model.tiny import tiny_model

CPU = torch.device("cpu")


@given(length=st.integers(0, 300), most=st.integers(0, 310))
def test_parts_are_everything_once(length: int, most: int) -> None:
    parts = even_parts(length, most)
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(length))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes) <= max(1, most)
    assert len(parts) == max(1, -(-length // max(1, most)))


@pytest.mark.parametrize("keeps", [True, False])
def test_tiles_hold_what_they_should(keeps: bool) -> None:
    for rows, columns in ((1, 50_257), (334, 50_257), (5_000, 50_257), (5_000, 66), (0, 4_096)):
        tiles = Tiles.of(rows, columns, CPU, keeps=keeps)
        height, width = tiles.chunks[0].stop, tiles.blocks[0].stop
        assert width <= 1024
        assert height * width <= 1 << 19
        held = height * (columns if keeps else width)
        assert held <= 1 << 23
        assert len(tiles.memory(torch.zeros(1), keeps=keeps)) == held
        # Sums are added up in one order whatever the number of rows.
        assert tiles.blocks == Tiles.of(1, columns, CPU, keeps=keeps).blocks
    # A small vocabulary leaves room for all rows.
    assert Tiles.of(5_000, 66, CPU, keeps=keeps).chunks == [slice(0, 5_000)]
    # A GPU gains nothing by blocks of columns, and its products lose.
    assert Tiles.of(5_000, 50_257, torch.device("cuda"), keeps=keeps).blocks == [slice(0, 50_257)]


def test_rows_of_which_nothing_is_kept_go_together() -> None:
    """Each chunk goes through the output weights again."""
    assert len(Tiles.of(256, 50_257, CPU, keeps=False).chunks) == 1
    assert len(Tiles.of(256, 50_257, CPU, keeps=True).chunks) == 2


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 5), (3, 100), (100, 4), (100, 100)])
@pytest.mark.parametrize("raised", [[], [4], [0, 12]], ids=str)
def test_logsumexp(rows: int, columns: int, raised: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of logits so large that exp() of them overflows, in one block or in two."""
    generator = torch.Generator().manual_seed(0)
    states, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 3), (13, 3), (13,))
    )
    bias[raised] += 800
    monkeypatch.setattr(blocked_softmax, "_CPU_COLUMNS", columns)
    width = even_parts(len(bias), columns)[0].stop
    monkeypatch.setattr(blocked_softmax, "_CPU_BLOCK_ELEMENTS", rows * width)
    assert len(Tiles.of(7, len(bias), CPU, keeps=False).chunks) == -(-7 // rows)
    expected = torch.logsumexp(states @ weight.T + bias, -1)
    torch.testing.assert_close(blocked_logsumexp(states, weight, bias), expected, rtol=1e-14, atol=1e-14)
    single = blocked_logsumexp(states.float(), weight.float().requires_grad_(), bias.float())
    assert (single.dtype, single.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=1e-6)


def test_total_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tokens alone: MASK is none."""
    model = tiny_model()
    monkeypatch.setattr(blocked_softmax, "_CPU_COLUMNS", 3)
    hidden = torch.randn(4, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.logsumexp(model.logits(hidden)[:, : model.config.vocab_size], -1)
        assert (expected < torch.logsumexp(model.logits(hidden), -1)).all()
    torch.testing.assert_close(model.log_total(hidden), expected, rtol=0, atol=1e-5)
