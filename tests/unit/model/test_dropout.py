"""Dropout: on in training only, the same for a sequence in any batch and for any choice of rows."""

import pytest
import torch
from torch import Tensor

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.ddit import Dropout, Rows
from cascaded_dllm.model.score_model import ScoreModel
from tests.unit.model.tiny import tiny_batch, tiny_model

EACH_ATTENTION = pytest.mark.parametrize("attention", ["joint", "one_way"])


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def training_model(attention: str = "joint") -> ScoreModel:
    return tiny_model(dropout=0.3, prefix_attention=attention).train()


@pytest.fixture
def batch() -> tuple[Tensor, ...]:
    return tiny_batch()


def test_missing_generators(batch: tuple[Tensor, ...]) -> None:
    message = r"model\.dropout is 0\.3 and the network is in training mode; pass one generator a sequence, or call"
    with pytest.raises(ConfigError, match=message):
        training_model().hidden(*batch)
    with pytest.raises(ConfigError, match=message):
        training_model()(*batch)


def test_only_in_training(batch: tuple[Tensor, ...]) -> None:
    model = training_model()
    dropped = model.hidden(*batch, generators=generators(0, 1, 2))
    clean = model.eval().hidden(*batch)
    assert not torch.allclose(dropped, clean, atol=1e-3)
    assert torch.equal(model.hidden(*batch, generators=generators(0, 1, 2)), clean)
    without = tiny_model(dropout=0.0).train()
    assert torch.equal(without.hidden(*batch), without.eval().hidden(*batch))


@EACH_ATTENTION
def test_sequence_does_not_see_its_batch(attention: str, batch: tuple[Tensor, ...]) -> None:
    xt, sigma, prefix = batch
    model = training_model(attention)
    whole = model.hidden(xt, sigma, prefix, generators=generators(10, 11, 12))
    for row in range(3):
        part = slice(row, row + 1)
        alone = model.hidden(xt[part], sigma[part], prefix[part], generators=generators(10 + row))
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-5)
    again = model.hidden(xt, sigma, prefix, generators=generators(10, 11, 99))
    torch.testing.assert_close(again[:2], whole[:2], rtol=0, atol=1e-5)
    assert not torch.allclose(again[2], whole[2], atol=1e-3)


@EACH_ATTENTION
def test_rows_are_those_of_the_whole(attention: str, batch: tuple[Tensor, ...]) -> None:
    """Training computes masked rows only; their masks must be those of the whole network."""
    model = training_model(attention)
    rows = Rows(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 4, 2, 1, 3]))
    for prefix in (None, batch[2]):
        whole = model.hidden(batch[0], batch[1], prefix, generators=generators(3, 4, 5))
        some = model.hidden(batch[0], batch[1], prefix, rows=rows, generators=generators(3, 4, 5))
        torch.testing.assert_close(some, rows.of(whole), rtol=0, atol=1e-5)


def test_share_and_scale() -> None:
    """A share `rate` is zero, the others grow by 1 / (1 - rate), and no two calls share a mask."""
    dropout = Dropout(0.25, generators(0, 1))
    ones = torch.ones(2, 200, 100)
    first, second = (dropout(ones, 200, None) for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    share = (first == 0).double().mean()
    # 40,000 draws: five standard deviations are 0.011.
    assert abs(float(share) - 0.25) < 0.011
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
