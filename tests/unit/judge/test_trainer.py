"""The loop of a judge: what is read and judged, the loss of the library, and where training breaks down."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.errors import DataError, DryBatchError, MissingExtraError, NonFiniteError
from cascaded_dllm.judge import trainer as trainer_module
from cascaded_dllm.judge.network import as_judge, load_weights, new_network, require_library, save_network
from cascaded_dllm.judge.run import loss_curve
from cascaded_dllm.judge.settings import JudgeSettings, JudgeSize
from cascaded_dllm.judge.trainer import NOT_JUDGED, JudgeTrainer, rows_of_windows
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.train.optim import OptimConfig

pytest.importorskip("transformers", reason="the extra eval is not installed")

LENGTH, EOS = 6, 0
SETTINGS = JudgeSettings(
    size=JudgeSize(width=16, blocks=1, heads=2),
    length=LENGTH,
    num_steps=8,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, warmup=2, decay="cosine"),
)
MakeTrainer = Callable[..., JudgeTrainer]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat saw the dog and the dog saw the cat"] * 3, vocab_size=270)


@pytest.fixture(scope="module")
def make(tokenizer: Tokenizer) -> MakeTrainer:
    def windows(count: int, are_same: bool) -> StageDataset:
        ids = np.random.default_rng(0).integers(1, 270, (count, LENGTH)).astype(np.int32)
        ids[:, LENGTH - 2 :] = EOS
        ids = np.repeat(ids[:1], count, axis=0) if are_same else ids
        arrays = StageArrays(CascadeSpec((LENGTH,)), "document", "", EOS, tokenizer.vocab_size, "", "", {}, (ids,), ())
        return StageDataset(arrays, 1)

    def made(settings: JudgeSettings = SETTINGS, *, count: int = 10, are_same: bool = False) -> JudgeTrainer:
        return JudgeTrainer(new_network(settings, tokenizer), windows(count, are_same), settings, eos_id=EOS)

    return made


def test_what_is_read_and_judged() -> None:
    """The beginning in front, which is not judged; of the ends that fill a window the first one is."""
    windows = torch.tensor([[3, 4, EOS, EOS], [EOS, 5, EOS, 6], [7, 8, 9, 3]])
    read, labels = rows_of_windows(windows, EOS)
    assert read.tolist() == [[EOS, 3, 4, EOS, EOS], [EOS, EOS, 5, EOS, 6], [EOS, 7, 8, 9, 3]]
    none = NOT_JUDGED
    assert labels.tolist() == [[none, 3, 4, EOS, none], [none, EOS, 5, EOS, 6], [none, 7, 8, 9, 3]]


def test_loss_of_the_first_batch(make: MakeTrainer) -> None:
    """Token by token from what the network says, under the first weights and without dropout."""
    settings = replace(SETTINGS, dropout=0.0)
    first, other = make(settings), make(settings)
    _, target = other.windows.batch(global_batch_indices(10, 4, 0, seed=0))
    nats = []
    for row in target.tolist():
        read = [EOS, *row]
        with torch.no_grad():
            log_probs = other.network(torch.tensor([read])).logits[0].log_softmax(-1)
        # The last token is a second end of text.
        nats += [-float(log_probs[place, read[place + 1]]) for place in range(LENGTH - 1)]
    assert next(first.steps()).loss_nats_per_token == pytest.approx(sum(nats) / len(nats), rel=1e-5)


def test_a_seed_decides_everything(make: MakeTrainer) -> None:
    """Also dropout, whatever was drawn from the global generator in between; and that one is left as it was."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses = [[step.loss_nats_per_token for step in make().steps()]]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    losses.append([step.loss_nats_per_token for step in make().steps()])
    losses.append([step.loss_nats_per_token for step in make(replace(SETTINGS, seed=1)).steps()])
    losses.append([step.loss_nats_per_token for step in make(replace(SETTINGS, dropout=0.0)).steps()])
    assert losses[0] == losses[1]
    assert all(first != other for other in losses[2:] for first in [losses[0]])


@pytest.mark.parametrize(("dropout", "is_constant"), [(0.3, False), (0.0, True)])
def test_every_step_leaves_out_something_else(make: MakeTrainer, dropout: float, is_constant: bool) -> None:
    """On windows that are all the same, by weights that stay what they are."""
    still = replace(SETTINGS, dropout=dropout, optim=OptimConfig(lr=1e-15))
    first, second = (step.loss_nats_per_token for step in itertools.islice(make(still, are_same=True).steps(), 2))
    assert (first == pytest.approx(second, rel=1e-6)) is is_constant


def test_learning_rate(make: MakeTrainer) -> None:
    rates = [step.lr for step in make().steps()]
    assert rates[:2] == [0.5e-2, 1e-2]
    assert rates[-1] == pytest.approx(1e-3)


def test_fewer_windows_than_a_batch(make: MakeTrainer) -> None:
    with pytest.raises(DataError, match="the data has 3 windows of 6 tokens, and a batch 4; give a smaller --batch-si"):
        make(count=3)


def test_training_breaks_down(make: MakeTrainer) -> None:
    """The weights are those before the step."""
    trainer = make()
    with torch.no_grad():
        trainer.network.transformer.ln_f.weight[0] = torch.nan
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"the loss of step 1 is nan and .*; give a smaller --lr than 0.01 or"):
        next(trainer.steps())
    after = trainer.network.state_dict()
    assert all(torch.equal(value, after[name]) or "ln_f" in name for name, value in before.items())
    assert trainer.step == 0


def test_more_than_the_memory_of_the_machine(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would give it out all the same, and then kill the process."""
    trainer = make()
    num_kept = 2 * trainer.network.config.vocab_size + 12 * 16
    monkeypatch.setattr(trainer_module, "memory_limit", lambda: 4 * 4 * (LENGTH + 1) * num_kept - 1)
    with pytest.raises(DryBatchError, match=r"no room for 4 x 6 tokens with .* logits each in the memory of cpu; give"):
        next(trainer.steps())
    monkeypatch.setattr(trainer_module, "memory_limit", lambda: 4 * 4 * (LENGTH + 1) * num_kept)
    next(trainer.steps())


def test_memory_is_short(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "network", Network(trainer.network, full))
    with pytest.raises(DryBatchError, match=r"no room for 4 x 6 tokens with .* logits each in the memory of cpu; give"):
        next(trainer.steps())

    def broken(**_: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(trainer, "network", Network(trainer.network, broken))
    with pytest.raises(RuntimeError, match="something else"):
        next(trainer.steps())


class Network:
    """A network whose forward pass is another function."""

    def __init__(self, network: Any, forward: Callable[..., Any]) -> None:
        self.network, self.forward = network, forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, **inputs: Any) -> Any:
        return self.forward(**inputs)


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"training a judge needs transformers, .* 'cascaded-dllm\[eval\]'"):
        require_library()


def test_a_stored_network_is_the_same(make: MakeTrainer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """To the library, to us, and as a judge of texts with the tokenizer of the corpus."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer.save(tmp_path)
    trainer = make()
    list(trainer.steps())
    folder = tmp_path / "stored"
    folder.mkdir()
    save_network(trainer.network, tmp_path / "tokenizer.json", folder)
    own, theirs = make().network, AutoModelForCausalLM.from_pretrained(folder)
    load_weights(own, folder)
    for network in (own, theirs):
        state = network.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in trainer.network.state_dict().items())
    assert own.lm_head.weight is own.transformer.wte.weight
    assert Tokenizer.load(folder).fingerprint == tokenizer.fingerprint
    text = "the cat sees a dog"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer.encode(text).ids
    judge = as_judge(trainer.network, tmp_path / "tokenizer.json")
    assert (judge.context, judge.begin_id) == (LENGTH + 1, tokenizer.eos_id)
    assert len(judge.token_nats([text])[0]) == len(tokenizer.encode(text).ids)


def test_loss_curve() -> None:
    """Means over the steps since the point before, and no more points than 200."""
    assert loss_curve([3.0, 1.0]) == [
        {"step": 1, "loss_nats_per_token": 3.0},
        {"step": 2, "loss_nats_per_token": 1.0},
    ]
    curve = loss_curve([float(i) for i in range(401)])
    assert [point["step"] for point in curve[:2]] == [3, 6]
    assert curve[0]["loss_nats_per_token"] == 1.0
    assert curve[-1] == {"step": 401, "loss_nats_per_token": 399.5}
    assert len(curve) == 134
    assert loss_curve([]) == []
