"""The histogram that layouts are compared with is a law of layouts."""

import sys
from unittest import mock

import torch

from tests.reference import placed as reference
from tests.unit.benchmarks.test_benchmarks import CHECKOUT

with mock.patch.object(sys, "path", [str(CHECKOUT / "benchmarks"), *sys.path]):
    from benchmarks.layout_quality import histogram, histogram_nats


class Laid:
    """Two texts of two tokens, 1 and 2, among five: with gaps of 0, 1, 2 and of 0, 3, 0."""

    num_free, target_length = 3, 5

    def __len__(self):
        return 2

    def batch(self, indices):
        return torch.tensor([[1, 2], [1, 2]])[indices].numpy(), None

    def places(self, indices):
        return torch.tensor([[0, 2], [0, 4]])[indices].numpy()


def test_histogram_counts_gaps_of_tokens():
    law = histogram(Laid(), 4).exp()
    assert law.shape == (5, 4)
    torch.testing.assert_close(law.sum(-1), torch.ones(5, dtype=torch.float64))
    # Token 1 had two gaps, both empty; four more are those of all tokens, of which three of six are empty.
    torch.testing.assert_close(law[1, 0], torch.tensor((2 + 4 * 3 / 6) / 6, dtype=torch.float64), atol=1e-3, rtol=0)
    # A token that was never there has the gaps of all.
    torch.testing.assert_close(law[3, 0], torch.tensor(0.5, dtype=torch.float64), atol=1e-3, rtol=0)


def test_costs_are_those_of_a_normalised_law():
    law = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    layouts = torch.tensor(reference.layouts(3, 3))
    nats = histogram_nats(law, torch.tensor([[1, 3]]).expand(len(layouts), -1), layouts)
    alone = law[torch.tensor([1, 3, 4])][torch.arange(3), layouts].sum(-1)
    torch.testing.assert_close((-nats).exp(), alone.exp() / alone.exp().sum())
