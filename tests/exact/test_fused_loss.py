"""The fused loss and its own backward pass against the plain (B, L, N) form through autograd, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascaded_dllm import blocked_softmax
from cascaded_dllm.blocked_softmax import column_blocks
from cascaded_dllm.diffusion import fused_loss, row_softmax
from cascaded_dllm.diffusion.fused_loss import PLAIN_EXECUTION, LossExecution, Mixture, fused_absorbing_score_entropy
from cascaded_dllm.diffusion.row_softmax import RowSoftmax
from cascaded_dllm.diffusion.score_entropy import uniform_score_entropy
from cascaded_dllm.numerics import log_expm1
from tests.reference.plain_loss import log_score_of_logits, plain_absorbing_loss

V, D, B, L = 11, 5, 3, 4
MASK = V
READINGS = [("score", True), ("score", False), ("normalized", True)]
# Gradients reach 20,000 at sigma = 0.02; found: 7e-12.
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


class Case:
    """Hidden states, an output layer and noised texts; `arguments` are those of the fused form."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(7)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

        self.hidden, self.weight, self.bias = draw(B, L, D), draw(V + 1, D), draw(V + 1)
        self.x0 = torch.randint(V, (B, L), generator=generator)
        self.xt = torch.where(torch.rand(B, L, generator=generator) < 0.6, MASK, self.x0)
        self.sigma = torch.tensor([0.02, 0.8, 6.0], dtype=dtype)
        self.sequence_weight = torch.tensor([0.3, 2.0, 0.0], dtype=dtype)
        self.is_masked = self.xt == MASK

    def fused(
        self, parameterization: str, scale_by_sigma: bool, execution: LossExecution = PLAIN_EXECUTION
    ) -> tuple[Tensor, Tensor]:
        batch = self.is_masked.nonzero()[:, 0]
        log_scale = log_expm1(self.sigma) + math.log(V) if scale_by_sigma else torch.zeros_like(self.sigma)
        return fused_absorbing_score_entropy(
            self.hidden[self.is_masked],
            self.weight,
            self.bias,
            self.x0[self.is_masked],
            self.sigma[batch],
            self.sequence_weight[batch],
            parameterization=parameterization,  # type: ignore[arg-type]
            log_scale=log_scale[batch],
            execution=execution,
        )

    def plain(self, parameterization: str, scale_by_sigma: bool) -> tuple[Tensor, Tensor]:
        logits = self.hidden @ self.weight.T + self.bias
        log_score = log_score_of_logits(
            logits, self.sigma, parameterization=parameterization, scale_by_sigma=scale_by_sigma
        )
        return plain_absorbing_loss(log_score, self.xt, self.x0, self.sigma, self.sequence_weight)

    def gradients(self, total: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(3.0 * total, (self.hidden, self.weight, self.bias))


def hold(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    """Chunks of so many rows, blocks of so many columns."""
    monkeypatch.setitem(blocked_softmax._CHUNK_BYTES, "cpu", 8 * rows * V)
    monkeypatch.setattr(blocked_softmax, "_CPU_COLUMNS", columns)
    # The one limit counts where blocks are kept, the other where they are not.
    monkeypatch.setattr(blocked_softmax, "_CPU_BLOCK_ELEMENTS", rows * column_blocks(V)[0].stop)


@pytest.mark.parametrize(("rows", "columns"), [(1, 100), (2, 1), (2, 4), (3, 10), (100, 3), (100, 100)])
@pytest.mark.parametrize("reading", READINGS)
def test_fused_is_plain(reading: tuple[str, bool], rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rows of a chunk and the columns of a block, which need not divide their number."""
    case = Case()
    hold(monkeypatch, rows, columns)
    assert case.is_masked.any(dim=1).all()
    assert not case.is_masked.all()
    total, entropies = case.fused(*reading)
    expected_total, expected_entropies = case.plain(*reading)
    torch.testing.assert_close(total, expected_total, **TOLERANCE)
    torch.testing.assert_close(entropies, expected_entropies[case.is_masked], **TOLERANCE)
    assert not entropies.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(case.fused(*reading), (total.detach(), entropies), rtol=1e-14, atol=1e-14)
    for found, expected in zip(case.gradients(total), case.gradients(expected_total), strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, **TOLERANCE)
    assert (case.gradients(case.fused(*reading)[0])[1][MASK] == 0).all()


@pytest.mark.parametrize("reading", READINGS)
def test_whole_rows_are_plain_too(reading: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which compiles what this does: chunks of rows over all columns, and columns that fill up."""
    case = Case()
    hold(monkeypatch, 2, 100)
    monkeypatch.setitem(fused_loss._COLUMN_MULTIPLE, "cpu", 8)
    monkeypatch.setattr(fused_loss, "BlockedSoftmax", RowSoftmax)
    monkeypatch.setattr(row_softmax, "_compiled", lambda function: function)
    total, entropies = case.fused(*reading)
    expected_total, expected_entropies = case.plain(*reading)
    torch.testing.assert_close(total, expected_total, **TOLERANCE)
    torch.testing.assert_close(entropies, expected_entropies[case.is_masked], **TOLERANCE)
    for found, expected in zip(case.gradients(total), case.gradients(expected_total), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize(("rows", "columns"), [(1, 100), (1, 4), (100, 3), (100, 100)])
@pytest.mark.parametrize("reading", READINGS)
def test_gradients_in_another_dtype(
    reading: tuple[str, bool],
    rows: int,
    columns: int,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss is the same; the gradients, in their own dtype, differ by what `dtype` rounds."""
    case = Case()
    hold(monkeypatch, rows, columns)
    total, entropies = case.fused(*reading)
    other, other_entropies = case.fused(*reading, LossExecution(gradient_dtype=dtype))
    torch.testing.assert_close((other, other_entropies), (total, entropies), rtol=1e-12, atol=1e-12)
    for found, expected in zip(case.gradients(other), case.gradients(total), strict=True):
        assert found.dtype == torch.float64
        assert 0 < relative_difference(found, expected) < tolerance


def relative_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["score", "normalized", "mixture"])
def test_a_sure_token_does_not_drown_the_others(kind: str) -> None:
    """What the softmax and the clean token give to gradients nearly cancels, and must not be rounded before it does.

    Logits of the clean tokens are 9, all others about 0, so that its probability is 0.9988; for unnormalised scores
    sigma is such that its score is the true one.
    """
    rows, sure = 6, 9.0
    generator = torch.Generator().manual_seed(3)
    weight = 0.1 * torch.randn(V + 1, rows, dtype=torch.float64, generator=generator)
    weight[range(rows), range(rows)] = sure
    hidden, bias = torch.eye(rows, dtype=torch.float64), torch.zeros(V + 1, dtype=torch.float64)
    sigma = torch.full((rows,), math.log1p(math.exp(-sure)), dtype=torch.float64)
    share = torch.full((rows,), 0.9, dtype=torch.float64).log()
    mixture = Mixture(share, torch.full_like(share, 0.05).log()) if kind == "mixture" else None
    x0, leaves = torch.arange(rows), [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    gradients = [
        torch.autograd.grad(
            fused_absorbing_score_entropy(
                *leaves, x0, sigma, torch.ones_like(sigma),
                parameterization="score" if kind == "score" else "normalized",
                log_scale=torch.zeros_like(sigma), mixture=mixture, execution=execution,
            )[0],
            leaves,
        )
        for execution in (PLAIN_EXECUTION, LossExecution(gradient_dtype=torch.bfloat16))
    ]  # fmt: skip
    for expected, found in zip(*gradients, strict=True):
        assert relative_difference(found, expected) < 0.01


@pytest.mark.parametrize("multiple", [V, V + 1, 64])
@pytest.mark.parametrize("reading", READINGS)
def test_columns_that_fill_up_change_nothing(
    reading: tuple[str, bool], multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which wants round numbers of them."""
    case = Case()
    total, rows = case.fused(*reading)
    expected = (total, rows, *case.gradients(total))
    monkeypatch.setitem(fused_loss._COLUMN_MULTIPLE, "cpu", multiple)
    hold(monkeypatch, 2, 1024)
    filled, filled_rows = case.fused(*reading)
    for found, plain in zip((filled, filled_rows, *case.gradients(filled)), expected, strict=True):
        assert found.shape == plain.shape
        torch.testing.assert_close(found, plain, **TOLERANCE)


@pytest.mark.parametrize("wrong", [V, V + 1, -1])
@pytest.mark.parametrize("columns", [4, 100])
def test_clean_token_that_is_none(wrong: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that stops a run, and no number that looks like one."""
    hold(monkeypatch, 2, columns)
    case = Case()
    case.x0 = torch.full_like(case.x0, wrong)
    for reading in READINGS:
        assert case.fused(*reading)[1].isnan().all()


@pytest.mark.parametrize("columns", [1, 4, 100])
@pytest.mark.parametrize("reading", READINGS)
def test_tokens_that_cannot_be(reading: tuple[str, bool], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias of -inf is as good as one that leaves nothing, also where it has a block for itself."""
    case = Case()
    case.x0.clamp_(min=8)
    found = []
    for bias in (-torch.inf, -2000.0):
        with torch.no_grad():
            case.bias[:8] = bias
        hold(monkeypatch, 2, columns)
        total, rows = case.fused(*reading)
        found.append((total, rows, *case.gradients(total)))
    for of_none, of_little in zip(*found, strict=True):
        assert of_none.isfinite().all()
        torch.testing.assert_close(of_none, of_little, **TOLERANCE)


@pytest.mark.parametrize("parameterization", ["score", "normalized"])
def test_gradcheck(parameterization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, 2, 4)
    sigma = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return fused_absorbing_score_entropy(
            hidden,
            weight,
            bias,
            torch.tensor([0, 4, 10]),
            sigma,
            torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64),
            parameterization=parameterization,  # type: ignore[arg-type]
            log_scale=log_expm1(sigma),
        )[0]

    generator = torch.Generator().manual_seed(1)
    shapes = ((3, D), (V + 1, D), (V + 1,))
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(loss, inputs)


def test_gradients_add_up() -> None:
    """A gradient that has been handed out is not the memory of the next one."""
    case = Case()
    leaves = (case.hidden, case.weight, case.bias)
    total, _ = case.fused("score", True)
    once = torch.autograd.grad(total, leaves, retain_graph=True)
    for _ in range(3):
        total.backward(retain_graph=True)
    for leaf, gradient in zip(leaves, once, strict=True):
        torch.testing.assert_close(leaf.grad, 3 * gradient, **TOLERANCE)


@pytest.mark.parametrize("parameterization", ["score", "normalized"])
def test_rows_of_weight_zero_leave_no_gradient(parameterization: str) -> None:
    case = Case()
    total, rows = case.fused(parameterization, True)
    assert (rows > 0).all()
    hidden_grad, _, _ = case.gradients(total)
    assert torch.isfinite(hidden_grad).all()
    assert (hidden_grad[2] == 0).all()
    assert (hidden_grad[~case.is_masked] == 0).all()
    assert hidden_grad[1].abs().max() > 0


def test_no_masked_position() -> None:
    """A batch at tiny noise may hold no MASK at all: the loss is zero and so is every gradient."""
    weight = torch.randn(V + 1, D).requires_grad_()
    bias = torch.randn(V + 1).requires_grad_()
    hidden = torch.zeros(0, D, requires_grad=True)
    empty = torch.zeros(0)
    for parameterization in ("score", "normalized"):
        total, rows = fused_absorbing_score_entropy(
            hidden,
            weight,
            bias,
            torch.zeros(0, dtype=torch.int64),
            empty,
            empty,
            parameterization=parameterization,  # type: ignore[arg-type]
            log_scale=empty,
        )
        assert float(total.detach()) == 0.0
        assert rows.shape == (0,)
        for gradient in torch.autograd.grad(total, (weight, bias)):
            assert (gradient == 0).all()


@pytest.mark.parametrize("reading", READINGS)
def test_float32_is_close_and_weights_may_have_another_dtype(reading: tuple[str, bool]) -> None:
    """Relative to float64: float32 keeps 6 digits; weights kept in bfloat16 get bfloat16 gradients."""
    single, double = Case(torch.float32), Case()
    total, _ = single.fused(*reading)
    torch.testing.assert_close(total.double(), double.fused(*reading)[0], rtol=1e-5, atol=0)
    for found, expected in zip(single.gradients(total), double.gradients(double.fused(*reading)[0]), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
    single.weight = single.weight.detach().bfloat16().requires_grad_()
    gradients = single.gradients(single.fused(*reading)[0])
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.bfloat16, torch.float32]


def test_without_gradients_nothing_is_kept() -> None:
    case = Case()
    with torch.inference_mode():
        total, rows = case.fused("normalized", True)
    expected, expected_rows = case.fused("normalized", True)
    torch.testing.assert_close(total.clone(), expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(rows.clone(), expected_rows, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_none_are_computed(mode: type[torch.no_grad] | type[torch.inference_mode]) -> None:
    """One product a masked position and token; its gradients would be two more."""
    case = Case()
    with mode(), FlopCounterMode(display=False) as count:
        _, rows = case.fused("score", True)
    assert count.get_total_flops() == 2 * len(rows) * V * D


def test_half_precision_is_refused() -> None:
    half = torch.zeros(1, 1, 3, dtype=torch.bfloat16)
    ids, one = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1)
    with pytest.raises(TypeError, match=r"log_score is torch\.bfloat16; it must be float32 or float64"):
        uniform_score_entropy(half, ids, ids, one)
    arguments = (torch.zeros(3, 2), torch.zeros(3), torch.zeros(1, dtype=torch.int64), one, one)
    with pytest.raises(TypeError, match=r"hidden is torch\.float16"):
        fused_absorbing_score_entropy(torch.zeros(1, 2, dtype=torch.half), *arguments, parameterization="normalized")
    with pytest.raises(TypeError, match=r"log_scale is None; the score parameterization needs it"):
        fused_absorbing_score_entropy(torch.zeros(1, 2), *arguments, parameterization="score")
