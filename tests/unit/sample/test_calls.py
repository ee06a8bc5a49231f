"""The calls of a batch: every masked position once, in groups, and nothing else. tests/statistical has their laws."""

import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.sample.calls import CallOrder, first_hitting_calls, grid_calls

MASK, LENGTH, COUNT = 9, 7, 5
XT = torch.full((COUNT, LENGTH), MASK)
XT[1, 2:5] = 1
XT[2] = 3
XT[4, 0] = 0
INDEX = torch.tensor([3, 0, 8, 2, 5])


def hitting(xt: Tensor = XT, index: Tensor = INDEX, tokens_per_call: int = 3) -> CallOrder:
    return first_hitting_calls(
        xt, torch.ones(len(xt)), mask_id=MASK, tokens_per_call=tokens_per_call, schedule=LogLinearSchedule(),
        draws=Draws(0, "calls"), sample_index=index,
    )  # fmt: skip


def on_grid(xt: Tensor = XT, index: Tensor = INDEX) -> CallOrder:
    times = torch.linspace(1, 0, 5)[:, None].expand(-1, len(xt))
    leave = torch.tensor([0.0, 0.5, 0.1, 0.6])[:, None].expand(-1, len(xt))
    return grid_calls(xt, times, leave, mask_id=MASK, draws=Draws(0, "calls"), sample_index=index)


def test_every_masked_position_is_written_once() -> None:
    for order in (hitting(), on_grid()):
        written = XT.clone()
        for number, call in enumerate(order.calls()):
            assert len(call.texts.unique()) == len(call.texts) == len(call.t) == len(call.step)
            assert sorted(call.rows.batch.unique().tolist()) == list(range(len(call.texts)))
            batch = call.texts[call.rows.batch]
            assert (written[batch, call.rows.position] == MASK).all()
            written[batch, call.rows.position] = number
            torch.testing.assert_close(order.call[batch, call.rows.position], torch.full_like(batch, number))
        assert (written != MASK).all()
        assert torch.equal(written[XT != MASK], XT[XT != MASK])


def test_a_text_waits_for_no_other() -> None:
    """The calls of a text are numbered from 0 without a gap, and its times fall."""
    for order in (hitting(), on_grid()):
        for row in range(COUNT):
            of_text = sorted(set(order.call[row][order.call[row] >= 0].tolist()))
            assert of_text == list(range(len(of_text)))
            times = [float(order.t[row][order.call[row] == call][0]) for call in of_text]
            assert times == sorted(times, reverse=True)
            assert all(len(order.t[row][order.call[row] == call].unique()) == 1 for call in of_text)


def test_sizes_of_groups() -> None:
    counts = [torch.bincount(row[row >= 0]).tolist() for row in hitting().call]
    assert counts == [[3, 3, 1], [3, 1], [], [3, 3, 1], [3, 3]]
    assert [len(call.texts) for call in hitting().calls()] == [4, 4, 2]
    assert len(hitting(tokens_per_call=100).calls()) == 1
    # Nothing leaves in the first step, as its probability is 0.
    assert (on_grid().t[on_grid().call >= 0] < 1).all()


def test_nothing_to_write() -> None:
    assert hitting(XT[2:3], INDEX[2:3]).calls() == []
    assert on_grid(XT[2:3], INDEX[2:3]).calls() == []


def test_calls_of_a_text_do_not_see_its_batch() -> None:
    for make in (hitting, on_grid):
        together = make()
        for row in range(COUNT):
            alone = make(XT[row : row + 1], INDEX[row : row + 1])
            assert torch.equal(alone.call[0], together.call[row])
            masked = alone.call[0] >= 0
            assert torch.equal(alone.t[0][masked], together.t[row][masked])
            assert torch.equal(alone.step[0][masked], together.step[row][masked])
