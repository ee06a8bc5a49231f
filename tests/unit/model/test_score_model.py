"""The network in every combination of its options: against the plain network, and what each option promises."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cascaded_dllm.model.ddit import Linear
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import ScoreModel
from tests.reference.plain_network import plain_logits
from tests.unit.model.tiny import COMBINATIONS, VOCAB, tiny_batch, tiny_model

EACH = pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: "-".join(map(str, options.values())))
EACH_ATTENTION = pytest.mark.parametrize("attention", ["joint", "one_way"])
# Between two ways to compute the same float32 numbers; found: 5e-7.
SINGLE = {"rtol": 0.0, "atol": 1e-5}


def batch_for(model: ScoreModel, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    xt, sigma, prefix = tiny_batch()
    return xt.clamp_max(model.config.num_states - 1), sigma.to(dtype), prefix


@EACH
def test_network_is_the_plain_one(options: dict[str, Any]) -> None:
    """In float64 from end to end; found: 1e-7, from rotation angles that are kept in float32 as SEDD does."""
    model = tiny_model(dtype=torch.float64, **options)
    xt, sigma, prefix = batch_for(model, torch.float64)
    prefix[0, :2] = 3
    for start in (None, prefix):
        logits = model.read(model.states(xt, sigma, start))
        assert logits.dtype == torch.float64
        for row in range(len(xt)):
            seen = sigma[row] if model.config.time_conditioning else torch.ones_like(sigma[row])
            expected = plain_logits(
                {name: weight.double() for name, weight in model.state_dict().items()},
                [] if start is None else start[row].tolist(),
                xt[row].tolist(),
                seen,
                num_heads=model.config.num_heads,
                one_way=model.config.prefix_attention == "one_way",
                absolute_positions=model.config.absolute_positions,
            )
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-6)


@EACH
def test_log_score(options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    xt, sigma, prefix = batch_for(model)
    log_score = model(xt, sigma, prefix)
    assert (log_score.shape, log_score.dtype) == ((3, 5, model.config.num_states), torch.float32)
    assert torch.isfinite(log_score).all()
    assert (log_score.gather(-1, xt[..., None]) == 0).all()
    logits = model.read(model.states(xt, sigma, prefix))
    is_other = torch.ones_like(log_score, dtype=torch.bool).scatter(-1, xt[..., None], False)
    expm1 = torch.expm1(sigma)[:, None, None]
    if model.config.parameterization == "normalized":
        expected = torch.softmax(logits[..., :VOCAB], -1) / expm1
        is_masked = xt == VOCAB
        sums = log_score.exp()[..., :VOCAB].sum(-1)
        torch.testing.assert_close(sums[is_masked], (1 / expm1[..., 0]).expand_as(sums)[is_masked], rtol=1e-5, atol=0)
        log_score, is_other = log_score[..., :VOCAB], is_other[..., :VOCAB]
    elif model.config.scale_by_sigma:
        expected = logits.exp() / expm1 / (model.config.num_states - 1)
    else:
        expected = logits.exp()
    torch.testing.assert_close(log_score.exp()[is_other], expected[is_other], rtol=1e-4, atol=1e-7)


@EACH
def test_rows_are_those_of_the_whole(options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    xt, sigma, prefix = batch_for(model)
    rows = Rows(torch.tensor([2, 0, 0, 2]), torch.tensor([4, 0, 3, 1]))
    for start in (None, prefix, model.encode_prefix(prefix, xt.shape[1])):
        whole = model.hidden(xt, sigma, start)
        assert whole.shape == (3, 5, 16)
        torch.testing.assert_close(model.hidden(xt, sigma, start, rows=rows), rows.of(whole), **SINGLE)
        some, every = (model.read(model.states(xt, sigma, start, rows=which)) for which in (rows, None))
        torch.testing.assert_close(some, rows.of(every), **SINGLE)
    one_text = Rows(torch.tensor([0, 0]), torch.tensor([2, 4]))
    found = model.hidden(xt[:1], sigma[:1], prefix[:1], rows=one_text)
    torch.testing.assert_close(found, model.hidden(xt, sigma, prefix)[0, [2, 4]], **SINGLE)
    none = Rows(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert model.hidden(xt, sigma, prefix, rows=none).shape == (0, 16)


@EACH
def test_sequences_do_not_see_each_other(options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    xt, sigma, prefix = batch_for(model)
    whole = model(xt, sigma, prefix)
    for row in range(3):
        part = slice(row, row + 1)
        torch.testing.assert_close(model(xt[part], sigma[part], prefix[part]), whole[part], **SINGLE)


@EACH
def test_every_weight_is_used(options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    xt, sigma, prefix = batch_for(model)
    (model(xt, sigma, prefix) ** 2).sum().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize("head", [{}, {"parameterization": "normalized", "copy_head": True}], ids=["plain", "copy"])
@EACH_ATTENTION
def test_encoded_prefix_can_be_reused_and_selected(attention: str, head: dict[str, Any]) -> None:
    model = tiny_model(prefix_attention=attention, **head)
    xt, sigma, prefix = batch_for(model)
    encoded = model.encode_prefix(prefix, xt.shape[1])
    torch.testing.assert_close(model(xt, sigma, encoded), model(xt, sigma, prefix), rtol=0, atol=0)
    later, noise = xt.clamp_max(VOCAB - 1), sigma / 7
    torch.testing.assert_close(model(later, noise, encoded), model(later, noise, prefix), rtol=0, atol=0)
    some = torch.tensor([2, 0])
    found = model(xt[some], sigma[some], encoded.select(some))
    torch.testing.assert_close(found, model(xt, sigma, prefix)[some], **SINGLE)
    assert not torch.allclose(model(xt, sigma, prefix), model(xt, sigma), atol=1e-2)
    assert not torch.allclose(model(xt, sigma, prefix), model(xt, sigma, prefix.flip(1)), atol=1e-2)


def prefix_states(model: ScoreModel, xt: Tensor, sigma: Tensor, prefix: Tensor) -> list[Tensor]:
    """What the prefix positions of every block hand to the others: the keys and values of the first P positions."""
    found: list[Tensor] = []
    hooks = [
        block.attn_qkv.register_forward_hook(lambda _, __, qkv: found.append(qkv[:, : prefix.shape[1]]))
        for block in model.blocks
    ]
    model(xt, sigma, prefix)
    for hook in hooks:
        hook.remove()
    return found[: len(model.blocks)]


def test_one_way_prefix_sees_neither_target_nor_time() -> None:
    """And in a joint network it sees both, from the second block on."""
    for attention in ("one_way", "joint"):
        model = tiny_model(prefix_attention=attention)
        xt, sigma, prefix = batch_for(model)
        states = prefix_states(model, xt, sigma, prefix)
        other_target = prefix_states(model, xt.flip(1), sigma, prefix)
        other_time = prefix_states(model, xt, sigma + 1, prefix)
        is_same = attention == "one_way"
        assert torch.equal(states[1], other_target[1]) is is_same
        assert torch.equal(states[1], other_time[1]) is is_same
    encoded = tiny_model(prefix_attention="joint").encode_prefix(prefix, xt.shape[1])
    assert encoded.ids is prefix
    assert (encoded.keys_values, encoded.copy_keys) == (None, None)


@EACH_ATTENTION
def test_time_conditioning(attention: str) -> None:
    for sees_time in (True, False):
        model = tiny_model(time_conditioning=sees_time, prefix_attention=attention)
        xt, sigma, prefix = batch_for(model)
        unchanged = torch.equal(model.hidden(xt, sigma, prefix), model.hidden(xt, 2 * sigma + 0.1, prefix))
        assert unchanged is not sees_time


def test_log_scale() -> None:
    sigma = torch.tensor([0.01, 1.0, 30.0])
    expected = torch.tensor([math.log(math.expm1(s)) + math.log(VOCAB) for s in sigma.tolist()])
    torch.testing.assert_close(tiny_model().log_scale(sigma), expected)
    assert (tiny_model(scale_by_sigma=False).log_scale(sigma) == 0).all()


@EACH_ATTENTION
def test_compute_dtype(attention: str) -> None:
    """bfloat16 in the matrix products of the trunk, float32 at the head; 8 bits of mantissa. Found: 0.06 of 7."""
    model = tiny_model(prefix_attention=attention)
    xt, sigma, prefix = batch_for(model)
    exact = model(xt, sigma, prefix)
    seen: list[torch.dtype] = []
    for module in model.modules():
        if isinstance(module, Linear):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    model.compute_dtype = torch.bfloat16
    rounded = model(xt, sigma, prefix)
    assert set(seen) == {torch.bfloat16}
    assert model.hidden(xt, sigma, prefix).dtype == rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.15)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@EACH_ATTENTION
def test_trunk_kept_in_another_dtype(attention: str) -> None:
    """The same bits as with a cast in every call, half the memory, and nothing to train."""
    model = tiny_model(prefix_attention=attention)
    batch = batch_for(model)
    model.compute_dtype = torch.bfloat16
    expected = model(*batch)
    model.keep_trunk_in(torch.bfloat16)
    assert torch.equal(model(*batch), expected)
    products = {id(p) for module in model.modules() if isinstance(module, Linear) for p in module.parameters()}
    for parameter in model.parameters():
        assert parameter.dtype == (torch.bfloat16 if id(parameter) in products else torch.float32)
        assert not parameter.requires_grad


@EACH_ATTENTION
def test_masks_are_told_apart_by_absolute_positions_only(attention: str) -> None:
    """Rotary positions are relative: a text of nothing but MASK looks the same from everywhere."""
    everything_masked = torch.full((1, 5), VOCAB)
    for absolute in (False, True):
        model = tiny_model(prefix_attention=attention, absolute_positions=absolute)
        hidden = model.hidden(everything_masked, torch.tensor([1.0]))[0]
        assert torch.allclose(hidden, hidden[:1].expand_as(hidden), atol=1e-5) is not absolute
