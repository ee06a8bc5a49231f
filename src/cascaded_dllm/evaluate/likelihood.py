"""The joint bound of a cascade: what all its stages together pay for a text.

For any fixed choice of the shorter stages, -log p(x) <= N_1(z_1) + N_2(z_2 | z_1) + ... + N_K(x | z_{K-1}), because
p(x) is a sum over z of which the chosen z is one term. A flat model is a cascade of one stage.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.checks import require_between_0_and_1, require_whole
from cascaded_dllm.data.dataset import StageDataset, evenly_spaced
from cascaded_dllm.diffusion.bound import BOUND_SEED, MEASURED_FROM, BoundEstimate, omitted_nats
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.evaluate.sequential import require_sequential, sequential_nats
from cascaded_dllm.model.devices import require_precise_default
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.group import Group
from cascaded_dllm.train.objective import Objective

_COUNTED_AT_ONCE = 1 << 16
"""Windows whose tokens are counted together."""


@dataclass(frozen=True, slots=True)
class Sequential:
    """How much is measured token by token.

    Attributes:
        num_orders: random orders of every window.
        num_windows: how many of the measured windows, from the first on; all if there are fewer.
    """

    num_orders: int
    num_windows: int

    def __post_init__(self) -> None:
        for name, value in (("num_orders", self.num_orders), ("num_windows", self.num_windows)):
            require_whole(f"{name} of the bound token by token", value, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSettings:
    """How a joint bound is measured.

    Attributes:
        num_windows: how many windows, see `evenly_spaced`.
        num_times: times a window.
        batch_size: windows computed together.
        seed: decides times and noise.
        t_min: the integral runs from here to 1.
        sequential: what is measured token by token as well; None for nothing.
    """

    num_windows: int = 512
    num_times: int = 16
    batch_size: int = 64
    seed: int = BOUND_SEED
    t_min: float = MEASURED_FROM
    sequential: Sequential | None = None

    def __post_init__(self) -> None:
        for name in ("num_windows", "num_times", "batch_size"):
            require_whole(name, getattr(self, name), 1)
        require_whole("seed", self.seed)
        require_between_0_and_1("t_min", self.t_min, hint="0.001 is usual")


@dataclass(frozen=True, slots=True)
class StageBound:
    """The bound of one stage on every window.

    Attributes:
        stage: 1..K.
        nll_nats: upper bound on -log p(target | prefix) of each measured window, nats, float64.
        omitted_nats: how far below the truth the integral may lie for an ideal model, nats a window.
        unigram_nats: what the best model without any context pays for the tokens that the stage writes into the
            measured windows, nats a window; for a placed stage, given the places of the tokens of the stage before.
        layout_nats: the part of `nll_nats` that a placed stage pays for the layout; None for any other.
        sequential_nats: the same bound on the first of the windows, token by token; None where it was not asked for.
    """

    stage: int
    nll_nats: Float[Tensor, " M"] = field(repr=False)
    omitted_nats: float
    unigram_nats: float
    layout_nats: Float[Tensor, " M"] | None = field(default=None, repr=False)
    sequential_nats: Float[Tensor, " m"] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JointBound:
    """The bounds of stages on the same windows.

    Attributes:
        stages: one entry a stage.
        length: tokens of the text that the last of them writes.
        num_stages: stages of the cascade they belong to, 1 for a flat model. If there are more than in `stages`, the
            sum is not a bound on texts, only on their shorter versions.
        num_characters: of the texts of all windows together, in which an end of text has none; None if unknown.
    """

    stages: tuple[StageBound, ...]
    length: int
    num_stages: int
    num_characters: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no stage is missing."""
        return len(self.stages) == self.num_stages

    @property
    def nll_nats(self) -> Float[Tensor, " M"]:
        """Upper bound on -log p(x) of each window, nats."""
        return torch.stack([stage.nll_nats for stage in self.stages]).sum(0)

    @property
    def omitted_nats(self) -> float:
        """Sum of what the stages leave out, nats a window."""
        return sum(stage.omitted_nats for stage in self.stages)

    @property
    def bits_per_character(self) -> float | None:
        """Bound on the bits a character, over all windows; None if the number of characters is 0 or unknown."""
        if not self.num_characters:
            return None
        return float(self.nll_nats.sum()) / math.log(2) / self.num_characters

    @property
    def sequential_nats(self) -> Float[Tensor, " m"] | None:
        """The bound token by token, of the first windows; None where a stage has none."""
        found = [stage.sequential_nats for stage in self.stages if stage.sequential_nats is not None]
        return torch.stack(found).sum(0) if len(found) == len(self.stages) else None

    @property
    def ppl(self) -> float:
        """Bound on the perplexity a token: exp(mean nats / length); infinite if beyond float64."""
        return float(torch.exp(self.nll_nats.mean() / self.length))


def mean_and_error(values: Float[Tensor, " M"]) -> tuple[float, float]:
    """Mean, and its standard error over windows; the error is NaN for a single window."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error


def stage_bounds(
    stages: Sequence[tuple[ScoreModel, Objective, StageDataset]],
    settings: BoundSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[StageBound]:
    """The bound of every stage on the same windows, a stage at a time.

    The noise of a window depends on `seed` and its number alone, not on the batch. The Monte-Carlo error of the times
    is part of the spread over windows, since every window draws its own times.

    Args:
        stages: network, objective and windows of every stage; `settings` override the objective's smallest time.
        settings: how they are measured.
        on_progress: gets the windows done and their total, both summed over stages.

    Raises:
        ConfigError: a network cannot be measured token by token, or torch's default dtype is too coarse.
    """
    require_precise_default()
    if settings.sequential is not None:
        for model, objective, _ in stages:
            require_sequential(model, objective.process)
    for number, (model, objective, dataset) in enumerate(stages, start=1):
        windows = evenly_spaced(len(dataset), settings.num_windows)
        estimate = dataset_bound(
            model,
            replace(objective, t_min=settings.t_min),
            dataset,
            num_windows=settings.num_windows,
            num_times=settings.num_times,
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_progress=None if on_progress is None else _over_stages(on_progress, number - 1, len(stages)),
        )
        yield StageBound(
            number,
            estimate.nll_nats,
            omitted_nats(objective.process, objective.schedule, length=dataset.num_free, t_min=settings.t_min),
            unigram_nats(dataset, windows),
            estimate.layout_nats,
            _token_by_token(model, dataset, windows, settings, estimate.layout_nats),
        )


def _token_by_token(
    model: ScoreModel,
    dataset: StageDataset,
    windows: npt.NDArray[np.int64],
    settings: BoundSettings,
    layout_nats: Float[Tensor, " M"] | None,
) -> Float[Tensor, " m"] | None:
    """The bound of the first of these windows, token by token, with what their layout costs; None if not asked for."""
    asked = settings.sequential
    if asked is None:
        return None
    indices = windows[: asked.num_windows]
    was_training = model.training
    model.eval()
    batch = make_batch(dataset, indices, indices, model.device)
    draws = Draws(settings.seed, "bound-orders")
    found = sequential_nats(model, batch, draws=draws, num_orders=asked.num_orders, num_rows=settings.batch_size)
    model.train(was_training)
    return found if layout_nats is None else found + layout_nats[: len(found)]


def dataset_bound(
    model: ScoreModel,
    objective: Objective,
    dataset: StageDataset,
    *,
    num_windows: int,
    num_times: int,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
    group: Group | None = None,
) -> BoundEstimate:
    """The bound of `num_windows` windows, at times and with noise that depend on `seed` and the window alone.

    Args:
        model: the network; its mode is restored afterwards.
        objective: process, schedule and smallest time.
        dataset: windows of the stage.
        num_windows: how many of them, see `evenly_spaced`.
        num_times: times a window.
        batch_size: windows computed together; the result does not depend on it.
        seed: decides times and noise.
        on_progress: gets the windows done and their total.
        group: processes that share the batches, which are those of a single process; None for this process alone.

    Returns:
        One estimate a window, on the CPU, in every process.
    """
    was_training = model.training
    model.eval()
    group = group or Group()
    device = model.device
    draws = Draws(seed, "bound-noise")
    windows = evenly_spaced(len(dataset), num_windows)
    total = len(windows)
    found = torch.zeros(3, total, dtype=torch.float64)
    for first in range(0, total, batch_size * group.size):
        # A process without a batch computes the last one too and drops it: split weights need all processes in a call.
        start = first + batch_size * group.rank
        is_own = start < total
        start = start if is_own else (total - 1) // batch_size * batch_size
        part = slice(start, min(start + batch_size, total))
        batch = make_batch(dataset, windows[part], windows[part], device)
        estimate = objective.bound(model, batch, draws=draws, num_times=num_times)
        if is_own:
            layout = torch.zeros_like(estimate.nll_nats) if estimate.layout_nats is None else estimate.layout_nats
            found[:, part] = torch.stack([estimate.nll_nats, estimate.standard_error, layout])
        if on_progress is not None:
            on_progress(min(first + batch_size * group.size, total), total)
    model.train(was_training)
    group.sum(found)
    return BoundEstimate(found[0], found[1], found[2] if dataset.is_placed else None)


def _over_stages(on_progress: Callable[[int, int], None], before: int, num_stages: int) -> Callable[[int, int], None]:
    """Progress of one stage as progress of all, when `before` stages are done; all have the same windows."""
    return lambda done, total: on_progress(before * total + done, num_stages * total)


def unigram_nats(dataset: StageDataset, windows: npt.NDArray[np.int64]) -> float:
    """The number of tokens written into a window times the entropy of all of them under their own frequencies, nats.

    No unigram model does better on these tokens. They exclude those that a placed stage is given with their places.

    Args:
        dataset: of the stage.
        windows: their numbers.
    """
    counts = Counter[int]()
    for start in range(0, len(windows), _COUNTED_AT_ONCE):
        part = windows[start : start + _COUNTED_AT_ONCE]
        _, target = dataset.batch(part)
        places = dataset.places(part)
        is_written = np.ones(target.shape, dtype=bool)
        if places is not None:
            np.put_along_axis(is_written, places, False, axis=1)
        ids = target[is_written]
        counts.update(dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True)))
    share = np.array(list(counts.values())) / counts.total()
    return dataset.num_free * float(-(share * np.log(share)).sum())
