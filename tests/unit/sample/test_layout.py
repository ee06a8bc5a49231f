"""Layouts of a batch in which more is known of some texts than of others."""

import pytest
import torch

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import NonFiniteScoresError
from cascaded_dllm.sample.layout import draw_gaps, known_gaps
from tests.unit.model.tiny import tiny_placed


def test_a_text_of_which_more_is_known_is_drawn_as_it_is_alone() -> None:
    """What is known stays, all gaps sum to what is new, and the batch decides nothing."""
    layout, draws = tiny_placed(5, 6).layout, Draws(3, "gaps")
    words = [[(1, 2, 3), (4,), (5,)], [(1,), (2,), (3,), (4,), (5,)], [(1, 2, 3, 4, 5)]]
    known = known_gaps(layout, words, torch.device("cpu"))
    assert (known == 0).tolist() == [
        [False, True, True, False, False, False],
        [False] * 6,
        [False, True, True, True, True, False],
    ]
    z, index = torch.tensor([[1, 2, 3, 4, 5]] * 3), torch.arange(3)
    gaps = draw_gaps(layout, z, known, draws=draws, sample_index=index)
    assert gaps.sum(-1).tolist() == [6, 6, 6]
    assert (gaps[known == 0] == 0).all()
    for row in range(3):
        alone = slice(row, row + 1)
        found = draw_gaps(layout, z[alone], known[alone], draws=draws, sample_index=index[alone])
        assert torch.equal(found, gaps[alone])


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_network_that_gives_no_law(broken: float) -> None:
    layout = tiny_placed(5, 6).layout
    with torch.no_grad():
        list(layout.parameters())[-1][1:3] = broken
    z, index = torch.tensor([[1, 2, 3, 4, 5]] * 2), torch.arange(2)
    # All is known of the second text, so that nothing is drawn.
    known = torch.full((2, 6), layout.hidden_label)
    known[1] = torch.tensor([1, 1, 1, 1, 1, 1])
    with pytest.raises(NonFiniteScoresError, match="at 1 of 12 positions"):
        draw_gaps(layout, z, known, draws=Draws(3, "gaps"), sample_index=index)
