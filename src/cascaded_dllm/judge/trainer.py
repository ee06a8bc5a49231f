"""The training loop of a judge, as a generator of steps; the randomness of a step depends on seed and step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.loader import global_batch_indices
from cascaded_dllm.errors import DataError, DryBatchError, NonFiniteError
from cascaded_dllm.judge.settings import JudgeSettings
from cascaded_dllm.memory import is_short_of_memory, memory_limit
from cascaded_dllm.rng import derive_seed
from cascaded_dllm.train.optim import make_optimizer

NOT_JUDGED = -100
"""Label of a token without a loss, as in the library."""


@dataclass(frozen=True, slots=True)
class JudgeStep:
    """What one optimizer step did.

    Attributes:
        step: optimizer steps done, this one included.
        loss_nats_per_token: mean over the judged tokens of the batch, before the step.
        lr: learning rate of this step.
    """

    step: int
    loss_nats_per_token: float
    lr: float


@final
class JudgeTrainer:
    """A judge in training.

    Args:
        network: of the transformers library; training runs on its device.
        windows: of the corpus, as targets of a cascade with one stage.
        settings: all that decides the training.
        eos_id: end of text, which also begins one.

    Attributes:
        losses: of all steps done.

    Raises:
        DataError: there are fewer windows than a batch has.
    """

    def __init__(self, network: Any, windows: StageDataset, settings: JudgeSettings, *, eos_id: int) -> None:
        if len(windows) < settings.batch_size:
            raise DataError(
                f"the data has {len(windows)} windows of {settings.length} tokens, and a batch {settings.batch_size}; "
                "give a smaller --batch-size, a smaller --length or more data"
            )
        self.network, self.windows, self.settings, self.eos_id = network, windows, settings, eos_id
        self.optimizer = make_optimizer(network, settings.optim)
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.losses)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def steps(self) -> Iterator[JudgeStep]:
        """Train up to the last step, yielding after every optimizer step.

        Raises:
            DryBatchError: there is no room for a batch.
            NonFiniteError: the loss is not finite; weights and optimizer are those before the step.
        """
        while self.step < self.settings.num_steps:
            yield self._advance()

    def _advance(self) -> JudgeStep:
        settings = self.settings
        lr = settings.optim.learning_rate(self.step, settings.num_steps)
        indices = global_batch_indices(len(self.windows), settings.batch_size, self.step, seed=settings.seed)
        _, target = self.windows.batch(indices)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradient(torch.from_numpy(target))
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.optim.grad_clip)
        if not torch.isfinite(loss + norm):
            raise NonFiniteError(
                f"the loss of step {self.step + 1} is {float(loss)} and the norm of its gradient {float(norm)}; give a "
                f"smaller --lr than {settings.optim.lr} or a longer --warmup; the last checkpoint is kept"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.losses.append(float(loss))
        return JudgeStep(self.step, self.losses[-1], lr)

    def _gradient(self, target: Int[Tensor, "B L"]) -> Tensor:
        """The loss of a batch; leaves its gradient in the network."""
        read, labels = rows_of_windows(target, self.eos_id)
        read, labels = read.to(self.device), labels.to(self.device)
        cuda = [self.device] if self.device.type == "cuda" else []
        shape = self.network.config
        # What is kept for the gradients, at the least.
        num_kept = 2 * shape.vocab_size + 12 * shape.n_embd * shape.n_layer
        if self.device.type == "cpu" and 4 * read.numel() * num_kept > memory_limit():
            raise self._no_room(target)
        try:
            with torch.random.fork_rng(cuda):
                torch.manual_seed(derive_seed(self.settings.seed, "judge-dropout", self.step))
                logits = self.network(input_ids=read, use_cache=False).logits[:, :-1]
                loss = F.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=NOT_JUDGED)
                loss.backward()
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            raise self._no_room(target) from error
        return loss.detach()

    def _no_room(self, target: Int[Tensor, "B L"]) -> DryBatchError:
        return DryBatchError(
            f"there is no room for {target.shape[0]} x {target.shape[1]} tokens with "
            f"{self.network.config.vocab_size} logits each in the memory of {self.device}; give a smaller "
            "--batch-size, --length or --model"
        )


def rows_of_windows(target: Int[Tensor, "B L"], eos_id: int) -> tuple[Int[Tensor, "B L1"], Int[Tensor, "B L1"]]:
    """The ids that the network reads, with the token that begins a text in front, and their labels.

    Of the ends of text that fill a window after its document, only the first has a label: the others say nothing.

    Returns:
        Ids and labels, (B, L + 1); a label belongs to the prediction from the ids before it.
    """
    begin = torch.full_like(target[:, :1], eos_id)
    is_filling = (target == eos_id) & (torch.cat([begin - 1, target[:, :-1]], 1) == eos_id)
    labels = torch.cat([torch.full_like(begin, NOT_JUDGED), target.masked_fill(is_filling, NOT_JUDGED)], 1)
    return torch.cat([begin, target], 1), labels
