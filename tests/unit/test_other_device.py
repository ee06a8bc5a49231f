"""Nothing is made on the host for what lies on a device, and the host asks for no number of it.

The device is torch's `meta`, which every machine has: it knows shapes only, refuses to be mixed with the CPU, and has
no number to give. tests/gpu compares the numbers where there is a GPU.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cascaded_dllm.diffusion.fused_loss import LossExecution, Mixture, fused_absorbing_score_entropy
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.layout import LayoutConfig
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_config import ScoreModelConfig
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.conditioning import Conditioning
from cascaded_dllm.sample.token_law import TokenLaw
from cascaded_dllm.sample.writing import TokenWriter, Writing
from cascaded_dllm.train.objective import Batch, Objective

VOCAB, PREFIX, LENGTH, ROWS = 300, 6, 12, 4
META = torch.device("meta")


class NothingOnTheHost(TorchDispatchMode):
    """Refuses what the device would have to wait for although torch allows it, such as indices that lie on the host."""

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        made = operator(*arguments, **settings or {})
        tensors = [leaf for leaf in tree_leaves((arguments, settings, made)) if isinstance(leaf, torch.Tensor)]
        elsewhere = {tensor.device for tensor in tensors if tensor.dim() > 0} - {META}
        assert not elsewhere, f"{operator.name()} reads or makes a tensor on {elsewhere}"
        return made


def numbers(*shape: int, like: float = 1.0, **options: Any) -> torch.Tensor:
    return torch.full(shape, like, device=META, **options)


def model_of(kind: str, *, dropout: float = 0.0) -> ScoreModel:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_heads": 2, "num_blocks": 2, "cond_dim": 16}
    options = sizes | {"dropout": dropout}
    match kind:
        case "score":
            return ScoreModel(ScoreModelConfig(**options))
        case "placed":
            layout = LayoutConfig(num_tokens=PREFIX, num_new=LENGTH - PREFIX, **sizes)
            return PlacedModel(ScoreModelConfig(parameterization="normalized", **options), layout)
    model = ScoreModel(
        ScoreModelConfig(
            parameterization="normalized", prefix_attention="one_way", copy_head=kind == "copying", **options
        )
    )
    if kind == "bfloat16":
        model.keep_trunk_in(torch.bfloat16)
    return model


@pytest.mark.parametrize("law", [TokenLaw(), TokenLaw(temperature=0.9, top_k=40, top_p=0.9)])
@pytest.mark.parametrize("guidance", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["score", "one_way", "copying", "placed", "bfloat16"])
def test_a_call_of_a_sampler(kind: str, guidance: float, law: TokenLaw) -> None:
    model = model_of(kind).eval().to(META)
    prefix = torch.zeros(ROWS, PREFIX, dtype=torch.long, device=META)
    conditioning = Conditioning.encode(model, prefix, target_length=LENGTH, guidance=guidance)
    index = torch.arange(ROWS, device=META)
    writer = TokenWriter(model, conditioning, law, None, VOCAB, Draws(0, "sample"), index)
    xt = torch.full((ROWS, LENGTH), VOCAB, device=META)
    u = Draws(0, "test").uniform_pair(index, 3, index)
    with NothingOnTheHost():
        writer.write(xt, Writing(index, Rows(index, index), numbers(ROWS), torch.ones_like(index), u))


@pytest.mark.parametrize("gradient_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", ["score", "normalized", "mixture"])
def test_the_loss_and_its_gradients(kind: str, gradient_dtype: torch.dtype | None) -> None:
    hidden, weight, bias = (
        numbers(*shape, requires_grad=True) for shape in ((ROWS, 32), (VOCAB + 1, 32), (VOCAB + 1,))
    )
    mixture = Mixture(numbers(ROWS, like=-0.5, requires_grad=True), numbers(ROWS, like=-1.0, requires_grad=True))
    with NothingOnTheHost():
        total, rows = fused_absorbing_score_entropy(
            hidden, weight, bias, torch.zeros(ROWS, dtype=torch.long, device=META), numbers(ROWS), numbers(ROWS),
            parameterization="score" if kind == "score" else "normalized",
            log_scale=numbers(ROWS) if kind == "score" else None,
            mixture=mixture if kind == "mixture" else None,
            execution=LossExecution(gradient_dtype),
        )  # fmt: skip
        total.backward()
    with_gradient = [hidden, weight, bias, *(mixture if kind == "mixture" else ())]
    assert {rows.device, *(tensor.grad.device for tensor in with_gradient if tensor.grad is not None)} == {META}
    assert all(tensor.grad is not None and tensor.grad.shape == tensor.shape for tensor in with_gradient)


@pytest.mark.parametrize("kind", ["score", "one_way", "copying", "placed"])
@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_a_step_of_training(kind: str, compute_dtype: torch.dtype | None) -> None:
    """A batch lies in the memory of the host, and nothing comes back from the device."""
    model = model_of(kind, dropout=0.1).train().to(META)
    model.compute_dtype = compute_dtype
    places = torch.arange(0, LENGTH, LENGTH // PREFIX).repeat(ROWS, 1) if kind == "placed" else None
    target, prefix = (torch.zeros(ROWS, length, dtype=torch.long) for length in (LENGTH, PREFIX))
    batch, objective = (
        Batch(target, prefix, torch.arange(ROWS), places=places),
        Objective(AbsorbingProcess(VOCAB), LogLinearSchedule()),
    )
    loss = objective.loss(model, batch, draws=Draws(0, "train-noise"), step=5, global_batch_size=ROWS)
    loss.backward()
    assert loss.device == META
    assert all(parameter.grad is not None for parameter in model.parameters())
