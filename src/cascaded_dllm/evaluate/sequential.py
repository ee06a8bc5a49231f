"""The bound of a stage that writes token by token, in random orders: a check on the integral over time.

A normalised network that does not see the time gives, in every order of its tokens, a law of texts whose log
probability is a sum over tokens. Its mean over random orders is the same bound as the integral over time (Ou et al.
2024, arXiv:2406.03736, Eq. 14; Hoogeboom et al. 2022, arXiv:2110.02037, Eq. 2), with nothing left out: no time is cut
off, and no token stays unmasked. It takes as many network calls as there are tokens.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess, Process
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.rows import Rows
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.objective import Batch


def writes_in_any_order(model: ScoreModel, process: Process) -> bool:
    """Whether a network gives a law of the next token in any order."""
    config = model.config
    is_timeless = config.parameterization == "normalized" and not config.time_conditioning
    return isinstance(process, AbsorbingProcess) and is_timeless


def require_sequential(model: ScoreModel, process: Process) -> None:
    """Checks that a network gives a law of the next token in any order.

    Raises:
        ConfigError: it does not.
    """
    config = model.config
    if not writes_in_any_order(model, process):
        raise ConfigError(
            f"the network has graph.type {config.process}, model.parameterization {config.parameterization} and "
            f"model.time_conditioning {str(config.time_conditioning).lower()}; only a normalised, time-agnostic "
            "network of the absorbing process writes in any order; leave --num-orders out"
        )


@torch.inference_mode()
def sequential_nats(
    model: ScoreModel, batch: Batch, *, draws: Draws, num_orders: int, num_rows: int
) -> Float[Tensor, " B"]:
    """What the target of every sequence costs when it is written token by token: nats, the mean over orders, float64.

    Args:
        model: the network, see `require_sequential`.
        batch: sequences on the device of the network; tokens at `places` are known from the start.
        draws: the stream of random numbers; the orders of a sequence depend on its `index` alone.
        num_orders: of every sequence.
        num_rows: rows of one network call, each the sequence before another step.
    """
    found = []
    for number in range(len(batch.target)):
        prefix = None if batch.prefix is None or batch.places is not None else batch.prefix[number]
        places = None if batch.places is None else batch.places[number]
        nats = [
            _order_nats(
                model, batch.target[number], prefix, _order(batch, number, places, draws, order), num_rows=num_rows
            )
            for order in range(num_orders)
        ]
        found.append(torch.stack(nats).mean())
    return torch.stack(found)


def _order(batch: Batch, number: int, places: Int[Tensor, " P"] | None, draws: Draws, order: int) -> Int[Tensor, " F"]:
    """The positions of a sequence that are written, in random order."""
    position = torch.arange(batch.target.shape[1], device=batch.target.device)
    key, _ = draws.uniform_pair(batch.index[number], order, position)
    if places is None:
        return key.argsort()
    known = torch.zeros_like(position, dtype=torch.bool).scatter(0, places, True)
    return (key + known).argsort()[: len(position) - len(places)]


def _order_nats(
    model: ScoreModel, target: Int[Tensor, " L"], prefix: Int[Tensor, " P"] | None, order: Int[Tensor, " F"], *,
    num_rows: int,
) -> Float[Tensor, ""]:  # fmt: skip
    """-log p of one sequence in one order."""
    # Known before step k: the positions before k in the order, and those that are not in it.
    rank = torch.full_like(target, -1).scatter(0, order, torch.arange(len(order), device=order.device))
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(order), num_rows):
        step = torch.arange(first, min(first + num_rows, len(order)), device=order.device)
        xt = torch.where(rank >= step[:, None], model.config.vocab_size, target)
        rows = Rows(step - first, order[step])
        given = None if prefix is None else prefix.expand(len(step), -1)
        states = model.states(xt, torch.ones(len(step), device=xt.device), given, rows=rows)
        log_law = F.log_softmax(model.read(states)[:, : model.config.vocab_size], dim=-1)
        total -= log_law.gather(1, target[order[step], None]).double().sum().cpu()
    return total
