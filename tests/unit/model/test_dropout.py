"""Dropout: on in training only, the same for a text in any batch and for any choice of rows, and random enough."""

import itertools
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.dropout import Dropout
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import ScoreModel
from tests.processes import run as run_process
from tests.unit.model.tiny import tiny_batch, tiny_model

EACH_ATTENTION = pytest.mark.parametrize("attention", ["joint", "one_way"])
RATE = 0.25


def words(*texts: int) -> Tensor:
    return Draws(0, "dropout").words(torch.tensor(texts), 0)


def training_model(attention: str = "joint") -> ScoreModel:
    return tiny_model(dropout=0.3, prefix_attention=attention).train()


@pytest.fixture
def batch() -> tuple[Tensor, ...]:
    return tiny_batch()


def test_missing_words(batch: tuple[Tensor, ...]) -> None:
    message = r"model\.dropout is 0\.3 and the network is in training mode; pass dropout_words, two random words a"
    with pytest.raises(ConfigError, match=message):
        training_model().hidden(*batch)
    with pytest.raises(ConfigError, match=message):
        training_model()(*batch)


def test_only_in_training(batch: tuple[Tensor, ...]) -> None:
    model = training_model()
    dropped = model.hidden(*batch, dropout_words=words(0, 1, 2))
    clean = model.eval().hidden(*batch)
    assert not torch.allclose(dropped, clean, atol=1e-3)
    assert torch.equal(model.hidden(*batch, dropout_words=words(0, 1, 2)), clean)
    without = tiny_model(dropout=0.0).train()
    assert torch.equal(without.hidden(*batch), without.eval().hidden(*batch))


@EACH_ATTENTION
def test_text_does_not_see_its_batch(attention: str, batch: tuple[Tensor, ...]) -> None:
    xt, sigma, prefix = batch
    model = training_model(attention)
    whole = model.hidden(xt, sigma, prefix, dropout_words=words(10, 11, 12))
    for row in range(3):
        part = slice(row, row + 1)
        alone = model.hidden(xt[part], sigma[part], prefix[part], dropout_words=words(10 + row))
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-5)
    again = model.hidden(xt, sigma, prefix, dropout_words=words(10, 11, 99))
    torch.testing.assert_close(again[:2], whole[:2], rtol=0, atol=1e-5)
    assert not torch.allclose(again[2], whole[2], atol=1e-3)


@EACH_ATTENTION
def test_rows_are_those_of_the_whole(attention: str, batch: tuple[Tensor, ...]) -> None:
    """Training computes masked rows only; their masks must be those of the whole network."""
    model = training_model(attention)
    rows = Rows(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 4, 2, 1, 3]))
    for prefix in (None, batch[2]):
        whole = model.hidden(batch[0], batch[1], prefix, dropout_words=words(3, 4, 5))
        some = model.hidden(batch[0], batch[1], prefix, rows=rows, dropout_words=words(3, 4, 5))
        torch.testing.assert_close(some, rows.of(whole), rtol=0, atol=1e-5)


def test_prefix_has_masks_of_its_own(monkeypatch: pytest.MonkeyPatch, batch: tuple[Tensor, ...]) -> None:
    """Each block has masks of its own, and so has the prefix that goes through the same blocks before the target."""
    used: list[bytes] = []
    call = Dropout.__call__

    def recorded(self: Dropout, x: Tensor, branch: int, rows: Rows | None) -> Tensor:
        used.append(self.words.numpy().tobytes() + bytes([branch]))
        return call(self, x, branch, rows)

    monkeypatch.setattr(Dropout, "__call__", recorded)
    model = training_model("one_way")
    model.hidden(*batch, dropout_words=words(0, 1, 2))
    # The last block of a prefix gives keys and values alone, which have no branch.
    assert len(set(used)) == len(used) == 2 * (2 * len(model.blocks) - 1)


def test_share_and_scale() -> None:
    """A share `rate` is zero and the others grow by 1 / (1 - rate)."""
    made = Dropout(RATE, words(0, 1)).of_block(0)(torch.ones(2, 200, 100), 0, None)
    assert set(made.unique().tolist()) == {0.0, torch.tensor(1 / (1 - RATE)).item()}
    # 40,000 draws: five standard deviations are 0.011.
    assert abs(float((made == 0).double().mean()) - RATE) < 0.011


@pytest.mark.parametrize("rate", [1e-4, 0.1, 0.5, 0.9])
def test_share_at_any_rate(rate: float) -> None:
    draws = 32 * 64 * 512
    zero = Dropout(rate, words(*range(32))).of_block(3)(torch.ones(32, 64, 512), 1, None) == 0
    assert abs(int(zero.sum()) - draws * rate) < 5 * (draws * rate * (1 - rate)) ** 0.5


def _masks() -> Tensor:
    """Centred masks of 8 texts, 2 blocks and 2 branches, 48 positions, 96 columns, in units of their deviation."""
    dropout = Dropout(RATE, words(*range(8)))
    masks = [
        torch.stack([dropout.of_block(block)(torch.ones(8, 48, 96), branch, None) == 0 for branch in range(2)])
        for block in range(2)
    ]
    return (torch.stack(masks).double() - RATE) / (RATE * (1 - RATE)) ** 0.5


def _largest_correlation(masks: Tensor, axis: int) -> float:
    """Of any two slices along an axis, in standard deviations of what chance makes of it."""
    rows = masks.movedim(axis, 0).flatten(1)
    products = rows @ rows.T / rows.shape[1] ** 0.5
    return float(products.fill_diagonal_(0).abs().max())


@pytest.mark.parametrize("axis", range(5), ids=["block", "branch", "text", "position", "column"])
def test_no_two_slices_are_alike(axis: int) -> None:
    """Masks of any two blocks, branches, texts, positions or columns are uncorrelated."""
    # Of the 4,560 pairs of columns the largest of as many normal numbers is below 5 but for 3 in 1,000.
    assert _largest_correlation(_masks(), axis) < 5


def test_power_of_the_correlation() -> None:
    """Texts of which one has a twelfth of another's mask are found."""
    masks = _masks()
    masks[:, :, 1, :, :8] = masks[:, :, 0, :, :8]
    assert _largest_correlation(masks, 2) > 5


def _largest_product_of_four(signs: Tensor) -> float:
    """Over texts, of masks (text, position, column) as signs, in standard deviations."""
    of_columns = torch.stack([signs[..., a] * signs[..., b] for a, b in itertools.combinations(range(24), 2)], dim=-1)
    sums = [(of_columns[:, a] * of_columns[:, b]).sum(0) for a, b in itertools.combinations(range(4), 2)]
    return float(torch.stack(sums).abs().max()) / len(signs) ** 0.5


def test_products_of_four() -> None:
    """Two positions by two columns: their bits are independent, which a sum of a row's and a column's are not."""
    ones = torch.ones(4096, 4, 24)
    signs = Dropout(0.5, words(*range(4096))).of_block(0)(ones, 0, None) - 1
    assert _largest_product_of_four(signs) < 5
    of_rows, of_columns = (signs[:, :, :1], signs[:, :1, :])
    assert _largest_product_of_four(of_rows * of_columns) == 64


def test_words_of_a_text() -> None:
    """They depend on the text and the step, and nothing else; their bits are balanced."""
    texts = torch.arange(4096)
    drawn = Draws(0, "dropout").words(texts, 7)
    assert drawn.dtype == torch.int32
    assert torch.equal(drawn[100:120], Draws(0, "dropout").words(texts[100:120], 7))
    assert not (drawn == Draws(0, "dropout").words(texts, 8)).any(dim=1).any()
    assert len(drawn.unique(dim=0)) == 4096
    ones = torch.stack([(drawn >> place) & 1 for place in range(32)]).double().mean(dim=1)
    assert float((ones - 0.5).abs().max()) < 5 * 0.5 / 4096**0.5


def compiled_in_one_graph(cache: str) -> None:
    """In a process, since torch cannot look through the run-time type checks of the tests."""
    from torch._inductor import config as inductor

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    inductor.compile_threads = 1
    for rows in (None, Rows(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 4, 2, 1, 3]))):
        found = []
        for compiles in (False, True):
            model = training_model()
            if compiles:
                for block in model.blocks:
                    block.compile(fullgraph=True)
            hidden = model.hidden(*tiny_batch(), rows=rows, dropout_words=words(3, 4, 5))
            hidden.square().sum().backward()
            gradient = model.vocab_embed.embedding.grad
            assert gradient is not None
            found.append((hidden.detach(), gradient))
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert list(Path(cache).rglob("*.so")), "nothing was compiled"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_in_one_graph(tmp_path: Path) -> None:
    """Masks are part of the compiled graph, forwards and backwards, and are the same."""
    finished = run_process(compiled_in_one_graph, str(tmp_path))
    assert finished.returncode == 0, finished.stderr
