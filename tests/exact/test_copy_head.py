"""The copy head against the mixture as it is written down: its law, the fused loss and all gradients, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascaded_dllm import blocked_softmax
from cascaded_dllm.diffusion.fused_loss import Mixture, fused_absorbing_score_entropy
from cascaded_dllm.model.copy_head import Copies, CopyHead
from cascaded_dllm.model.rows import Rows
from tests.reference.plain_loss import plain_mixture_loss
from tests.reference.plain_network import mixed_probs

V, D, L, P = 7, 4, 5, 4
MASK = V
PREFIXES = {
    "distinct": [4, 1, 6, 0],
    "repeated": [2, 5, 2, 2],
    "with MASK": [MASK, 3, MASK, 3],
    "nothing but MASK": [MASK, MASK, MASK, MASK],
    "one token": [0, MASK, MASK, MASK],
}
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


class Case:
    """A copy head with an output layer, and the prefix of every sequence; all weights are random."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(11)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

        self.head = CopyHead(D, MASK).double()
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.prefix = torch.tensor(list(PREFIXES.values()))
        batch = len(self.prefix)
        self.weight, self.bias, self.states = draw(V + 1, D), draw(V + 1), draw(batch, P, D)
        self.rows = Rows(*torch.nonzero(torch.rand(batch, L, generator=generator) < 0.7, as_tuple=True))
        self.hidden = draw(len(self.rows.batch), D)
        self.x0 = torch.randint(V, (len(self.rows.batch),), generator=generator)
        # Half of the clean tokens stand in the prefix.
        self.x0[::2] = self.prefix[self.rows.batch[::2], 1].clamp_max(V - 1)
        self.sigma = (torch.rand(len(self.x0), generator=generator) * 3 + 0.05).double()
        self.row_weight = torch.rand(len(self.x0), generator=generator).double()
        self.row_weight[3] = 0
        self.leaves = [self.hidden, self.weight, self.bias, self.states, *self.head.parameters()]

    def copies(self) -> Copies:
        return self.head(self.hidden, self.head.keys(self.states), self.prefix, length=L, rows=self.rows)

    def gate_and_scores(self) -> tuple[Tensor, Tensor]:
        """The gate's logit and the scores of every row, without the package."""
        gate = self.hidden @ self.head.gate.weight[0] + self.head.gate.bias
        centred = self.states - self.states.mean(-1, keepdim=True)
        normalised = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * self.head.norm_key.weight
        query, keys = self.hidden @ self.head.query.weight.T, normalised @ self.head.key.weight.T
        scores = torch.stack([keys[b] @ q for b, q in zip(self.rows.batch.tolist(), query, strict=True)])
        return gate, scores / math.sqrt(D)

    def fused(self) -> tuple[Tensor, Tensor]:
        copies = self.copies()
        mixture = Mixture(copies.log_keep, copies.log_prob_copied(self.x0))
        arguments = (self.hidden, self.weight, self.bias, self.x0, self.sigma, self.row_weight)
        return fused_absorbing_score_entropy(*arguments, parameterization="normalized", mixture=mixture)

    def plain(self) -> tuple[Tensor, Tensor]:
        logits = self.hidden @ self.weight[:V].T + self.bias[:V]
        prefix = self.prefix[self.rows.batch]
        return plain_mixture_loss(logits, *self.gate_and_scores(), prefix, self.x0, self.sigma, self.row_weight)


@pytest.fixture
def case() -> Case:
    return Case()


def test_law_is_the_mixture(case: Case) -> None:
    """It sums to one over the tokens, whatever stands in the prefix, and gives MASK nothing."""
    logits = case.hidden @ case.weight.T + case.bias
    gate, scores = case.gate_and_scores()
    found = case.copies().mixed(logits, V)
    logits, gate, scores, found = (tensor.detach() for tensor in (logits, gate, scores, found))
    assert (found[:, MASK] == -torch.inf).all()
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(len(found), dtype=torch.float64), **TOLERANCE)
    for row, batch in enumerate(case.rows.batch.tolist()):
        prefix = case.prefix[batch].tolist()
        expected = mixed_probs(logits[row, :V].tolist(), float(gate[row]), scores[row].tolist(), prefix)
        torch.testing.assert_close(found[row, :V].exp(), torch.tensor(expected, dtype=torch.float64), **TOLERANCE)


def test_gate_is_shut_without_a_token_to_copy(case: Case) -> None:
    empty = case.rows.batch == list(PREFIXES).index("nothing but MASK")
    copies = case.copies()
    assert empty.any()
    assert (copies.log_keep[empty] == 0).all()
    assert (copies.log_copy[empty] == -torch.inf).all()
    assert (copies.log_keep[~empty] < 0).all()
    logits = case.hidden @ case.weight.T + case.bias
    softmax = torch.log_softmax(logits[empty, :V], -1)
    torch.testing.assert_close(copies.mixed(logits, V)[empty, :V], softmax, rtol=0, atol=1e-14)
    assert (copies.log_pointer[case.prefix[case.rows.batch] == MASK] == -torch.inf).all()


def test_prob_of_a_token_is_that_of_the_law(case: Case) -> None:
    """The loss takes one token out of the law that samplers draw from."""
    logits, copies = case.hidden @ case.weight.T + case.bias, case.copies()
    softmax = torch.log_softmax(logits[:, :V], -1)
    for token in range(V):
        x0 = torch.full_like(case.x0, token)
        found = torch.logaddexp(copies.log_keep + softmax[:, token], copies.log_prob_copied(x0))
        torch.testing.assert_close(found, copies.mixed(logits, V)[:, token], **TOLERANCE)


def test_whole_sequences_are_their_rows(case: Case) -> None:
    everywhere = torch.randn(len(case.prefix), L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    keys = case.head.keys(case.states)
    whole = case.head(everywhere, keys, case.prefix, length=L, rows=None)
    some = case.head(case.rows.of(everywhere), keys, case.prefix, length=L, rows=case.rows)
    for found, expected in zip(some, whole, strict=True):
        torch.testing.assert_close(found, expected[case.rows.batch, case.rows.position], **TOLERANCE)


@pytest.mark.parametrize(("rows_in_a_chunk", "columns_in_a_block"), [(1, 100), (3, 2), (100, 100)])
def test_fused_is_plain(
    case: Case, rows_in_a_chunk: int, columns_in_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(blocked_softmax._CHUNK_BYTES, "cpu", 8 * rows_in_a_chunk * V)
    monkeypatch.setattr(blocked_softmax, "_CPU_COLUMNS", columns_in_a_block)
    total, rows = case.fused()
    expected_total, expected_rows = case.plain()
    torch.testing.assert_close(total, expected_total, **TOLERANCE)
    torch.testing.assert_close(rows, expected_rows, **TOLERANCE)
    assert not rows.requires_grad
    found, expected = (torch.autograd.grad(3.0 * loss, case.leaves) for loss in (total, expected_total))
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert (found[1][MASK] == 0).all()


def test_law_has_the_gradients_of_the_loss(case: Case) -> None:
    """What `forward` gives is differentiated through the whole law, with its repeated tokens."""
    log_probs = case.copies().mixed(case.hidden @ case.weight.T + case.bias, V)
    nll = -log_probs.gather(-1, case.x0[:, None])[:, 0] / torch.expm1(case.sigma)
    found = torch.autograd.grad(torch.dot(nll, case.row_weight), case.leaves)
    for ours, expected in zip(found, torch.autograd.grad(case.plain()[0], case.leaves), strict=True):
        torch.testing.assert_close(ours, expected, **TOLERANCE)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the fused form alone, with a row whose token the other law does not have."""
    monkeypatch.setitem(blocked_softmax._CHUNK_BYTES, "cpu", 8 * 2 * V)
    sigma = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    is_absent = torch.tensor([False, True, False])

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor, log_share: Tensor, log_other: Tensor) -> Tensor:
        return fused_absorbing_score_entropy(
            hidden,
            weight,
            bias,
            torch.tensor([0, 4, 6]),
            sigma,
            torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64),
            parameterization="normalized",
            mixture=Mixture(log_share, log_other.masked_fill(is_absent, -torch.inf)),
        )[0]

    generator = torch.Generator().manual_seed(1)
    shapes = ((3, D), (V + 1, D), (V + 1,), (3,), (3,))
    inputs = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(loss, inputs)


def test_sharp_pointers_stay_finite(case: Case) -> None:
    """Scores hundreds of nats apart, in float32: no loss and no gradient overflows, and the law still sums to one."""
    single = case.head.float()
    with torch.no_grad():
        single.query.weight *= 1e4
        single.gate.weight *= 1e3
    hidden, states = (x.detach().float().requires_grad_() for x in (case.hidden, case.states))
    copies = single(hidden, single.keys(states), case.prefix, length=L, rows=case.rows)
    logits = hidden @ case.weight.detach().float().T
    law = copies.mixed(logits, V)
    torch.testing.assert_close(law.exp().sum(-1), torch.ones(len(law)), rtol=1e-5, atol=0)
    finite = copies.log_pointer[copies.log_pointer > -torch.inf]
    assert finite.min() < -200
    total, _ = fused_absorbing_score_entropy(
        *(hidden, case.weight.detach().float(), case.bias.detach().float(), case.x0),
        *(case.sigma.float(), case.row_weight.float()),
        parameterization="normalized",
        mixture=Mixture(copies.log_keep, copies.log_prob_copied(case.x0)),
    )
    for loss in (total, law[:, :V].sum()):
        for gradient in torch.autograd.grad(loss, [hidden, states, *single.parameters()], retain_graph=True):
            assert torch.isfinite(gradient).all()


def test_products_of_the_loss(case: Case) -> None:
    """A mixture costs the fused loss no product with the vocabulary more."""
    with torch.no_grad():
        copies = case.copies()
        mixture = Mixture(copies.log_keep, copies.log_prob_copied(case.x0))
    arguments = (case.hidden, case.weight, case.bias, case.x0, case.sigma, case.row_weight)
    with FlopCounterMode(display=False) as count:
        fused_absorbing_score_entropy(*arguments, parameterization="normalized", mixture=mixture)
    assert count.get_total_flops() == 3 * 2 * len(case.x0) * V * D


def test_mixture_of_scores_is_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(TypeError, match="mixture is given and the parameterization is score, whose softmax is not a"):
        fused_absorbing_score_entropy(
            *(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3), torch.zeros(1, dtype=torch.int64), one, one),
            parameterization="score",
            log_scale=one,
            mixture=Mixture(one, one),
        )
