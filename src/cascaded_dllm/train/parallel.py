"""How the processes of a run share the work of a step: one process alone, or several that all hold the whole network.

Whatever their number, the gradient is the sum over processes of the gradients of their shares of the loss, in float32.
Weights that are split over processes are in `sharded`.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.storage import Storage, Whole

_BUCKET_BYTES = 25 << 20
"""Size of the buckets of gradients that are sent together: small enough to be sent while backward computes others, and
large enough to be sent efficiently."""


@runtime_checkable
class Parallel(Protocol):
    """What the training loop needs from a way of sharing the work among processes.

    Attributes:
        name: name of the way, as the user reads it.
        group: the processes.
        storage: how the weights are stored.
    """

    name: str
    group: Group
    storage: Storage

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Discard the gradients of the step before."""

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """Add the gradient of a part's share of the loss; the last part completes the sum over all processes."""

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """The norm of the whole gradient, which is then scaled down to `limit` if it is larger."""


@final
class Single:
    """One process, which does all the work."""

    name = "single"
    storage: Storage

    def __init__(self) -> None:
        self.group, self.storage = Group(), Whole()

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Discard the gradients; they become None, so the next ones are not added to zeros."""
        optimizer.zero_grad(set_to_none=True)

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """Add the gradient of a part."""
        share.backward()

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """The norm of the gradient before it is scaled down to `limit`."""
        return nn.utils.clip_grad_norm_(parameters, limit)


@final
class Replicated:
    """Every process holds the whole network and adds its gradients to those of the others (data parallel, "ddp").

    Gradients live in flat buckets. A bucket is sent as soon as all its gradients are complete, while backward computes
    the others. The parameters of a bucket never change. DistributedDataParallel rearranges its buckets after the first
    step: with three or more processes, the first step of a resumed run would add in another order than the same step of
    an uninterrupted run, and the two would differ in their last bits.

    Args:
        model: the network, on its device; all processes begin with the weights of the first.
        group: the processes.
    """

    name = "ddp"
    storage: Storage

    def __init__(self, model: ScoreModel, group: Group) -> None:
        self.group, self.storage = group, Whole()
        for tensor in model.state_dict().values():
            group.broadcast(tensor)
        # Backward reaches the last parameters first.
        self._buckets = list(_buckets([p for p in model.parameters() if p.requires_grad][::-1]))
        self._bucket_of = {parameter: bucket for bucket in self._buckets for parameter in bucket.parameters}
        self._is_last = False
        self._sent: list[Callable[[], None]] = []
        for parameter in self._bucket_of:
            parameter.register_post_accumulate_grad_hook(self._note)

    def begin(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the buckets to zero; the parameters' gradients are views of them."""
        for bucket in self._buckets:
            bucket.gradients.zero_()
            for parameter, gradient in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = gradient

    def backward(self, share: Tensor, *, is_last: bool) -> None:
        """Add the gradient of a part; with the last part, exchange the sums."""
        self._is_last = is_last
        for bucket in self._buckets:
            bucket.num_missing = len(bucket.parameters)
        share.backward()
        if not is_last:
            return
        # The bucket of a parameter without a gradient has not been sent yet; the parameter's gradient is zero.
        while len(self._sent) < len(self._buckets):
            self._send()
        for end in self._sent:
            end()
        self._sent.clear()

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """The norm of the gradient before it is scaled down to `limit`; every process finds the same one."""
        return nn.utils.clip_grad_norm_(parameters, limit)

    def _note(self, parameter: Tensor) -> None:
        """Note that a gradient is complete and send the buckets that are, in the same order in every process."""
        self._bucket_of[parameter].num_missing -= 1  # type: ignore[index]
        while self._is_last and len(self._sent) < len(self._buckets) and not self._buckets[len(self._sent)].num_missing:
            self._send()

    def _send(self) -> None:
        self._sent.append(self.group.begin_sum(self._buckets[len(self._sent)].gradients))


@final
class _Bucket:
    """Parameters whose gradients lie in one contiguous tensor."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        sizes = [parameter.numel() for parameter in parameters]
        self.gradients = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        pieces = self.gradients.split(sizes)
        self.views = [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
        self.num_missing = 0


def _buckets(parameters: list[nn.Parameter]) -> Iterator[_Bucket]:
    """The parameters in their order, in buckets of at least `_BUCKET_BYTES`; the last one holds the rest."""
    held: list[nn.Parameter] = []
    for parameter in parameters:
        held.append(parameter)
        if sum(p.numel() * p.element_size() for p in held) >= _BUCKET_BYTES:
            yield _Bucket(held)
            held = []
    if held:
        yield _Bucket(held)
