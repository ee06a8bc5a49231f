"""Parts that cover everything once, and a logsumexp that does not depend on them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm import blocked_softmax
from cascaded_dllm.blocked_softmax import Tiles, blocked_logsumexp, column_blocks, even_parts
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


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("exps", [torch.float32, torch.bfloat16])
def test_tiles_hold_what_they_should(exps: torch.dtype, apart: bool) -> None:
    for rows, columns in ((1, 50_257), (334, 50_257), (5_000, 50_257), (5_000, 66), (0, 4_096)):
        tiles = Tiles.of(rows, columns, CPU, torch.float32, exps=exps, apart=apart)
        height, width = tiles.chunks[0].stop, tiles.blocks[0].stop
        assert width <= 1024
        assert height * width <= 1 << 21
        logits, others = tiles.memory(torch.zeros(1))
        held, in_a_block = height * (columns if apart else width), height * width
        if exps == torch.float32:
            assert (len(logits), others) == (held, None)
        else:
            assert others is not None
            assert (len(logits), others.dtype, len(others)) == (in_a_block, exps, held)
        assert (logits if others is None else others).nbytes <= 48 << 20
        # Sums are added up in one order whatever the number of rows.
        assert tiles.blocks == Tiles.of(1, columns, CPU, torch.float32, exps=exps, apart=apart).blocks
    # A small vocabulary leaves room for all rows.
    assert Tiles.of(5_000, 66, CPU, torch.float32, exps=exps, apart=apart).chunks == [slice(0, 5_000)]
    # A GPU gains nothing by blocks of columns, and its products lose.
    on_gpu = Tiles.of(5_000, 50_257, torch.device("cuda"), torch.float32, exps=exps, apart=apart)
    assert on_gpu.blocks == [slice(0, 50_257)]
    logits, others = on_gpu.memory(torch.zeros(1))
    assert 256 << 20 < logits.nbytes + (0 if others is None else others.nbytes) <= 768 << 20


def test_the_less_is_held_the_more_rows_go_together() -> None:
    """Each chunk goes through the output weights again."""
    for apart, exps, num_chunks in ((False, torch.float32, 1), (True, torch.bfloat16, 1), (True, torch.float32, 2)):
        assert len(Tiles.of(500, 50_257, CPU, torch.float32, exps=exps, apart=apart).chunks) == num_chunks


@given(length=st.integers(1, 5_000), most=st.integers(1, 1_100))
def test_blocks_are_all_columns_in_one_round_width(length: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked_softmax, "_CPU_COLUMNS", most)
        blocks = column_blocks(length)
    assert [place for block in blocks for place in range(block.start, block.stop)] == list(range(length))
    *others, last = [block.stop - block.start for block in blocks]
    assert all(width % 16 == 0 or width == most for width in others)
    assert len(set(others)) <= 1
    assert last <= max([*others, min(length, most)])


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
    monkeypatch.setattr(blocked_softmax, "_CPU_BLOCK_ELEMENTS", rows * column_blocks(len(bias))[0].stop)
    tiles = Tiles.of(7, len(bias), CPU, torch.float64, exps=torch.float64, apart=False)
    assert len(tiles.chunks) == -(-7 // rows)
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
