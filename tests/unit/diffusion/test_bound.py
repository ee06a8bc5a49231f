"""The estimate of the bound: what it hands to the network, and that a sequence does not see its batch."""

import math

import torch
from torch import Tensor

from cascaded_dllm.diffusion.bound import BoundEstimate, nll_bound
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule

X0 = torch.arange(12).view(3, 4) % 5
INDEX = torch.tensor([7, 0, 3])


def estimate(rows: list[int], num_times: int, seen: list[tuple[Tensor, ...]] | None = None) -> BoundEstimate:
    def weighted_entropy(x0: Tensor, xt: Tensor, sigma: Tensor, dsigma: Tensor) -> Tensor:
        if seen is not None:
            seen.append((x0, xt, sigma, dsigma))
        return dsigma * ((xt == 5) * (1 + x0)).sum(-1)

    return nll_bound(
        weighted_entropy,
        X0[rows],
        process=AbsorbingProcess(5),
        schedule=LogLinearSchedule(),
        draws=Draws(0, "bound"),
        sample_index=INDEX[rows],
        num_times=num_times,
        t_min=1e-3,
    )


def test_sequence_does_not_depend_on_its_batch() -> None:
    whole = estimate([0, 1, 2], 8)
    for row in range(3):
        alone = estimate([row], 8)
        # Sums over times may be taken in another order.
        assert math.isclose(float(alone.nll_nats), float(whole.nll_nats[row]), rel_tol=1e-12)
        assert math.isclose(float(alone.standard_error), float(whole.standard_error[row]), rel_tol=1e-12)
    assert whole.nll_nats.dtype == whole.standard_error.dtype == torch.float64


def test_times_of_a_sequence_are_spread_evenly() -> None:
    seen: list[tuple[Tensor, ...]] = []
    estimate([0, 1, 2], 8, seen)
    assert len(seen) == 8
    t = torch.stack([LogLinearSchedule().time_at(sigma) for _, _, sigma, _ in seen])
    assert t.min() > 1e-3
    assert t.max() <= 1
    strata = ((1 - t.double()) / (1 - 1e-3) * 8).long()
    for row in range(3):
        assert sorted(strata[:, row].tolist()) == list(range(8))
    assert len(t.unique()) == 24, "every sequence has a shift of its own"
    assert len({tuple(xt[0].tolist()) for _, xt, _, _ in seen}) > 1


def test_mean_and_error_over_times() -> None:
    seen: list[tuple[Tensor, ...]] = []
    found = estimate([0], 6, seen)
    values = [float(dsigma * ((xt == 5) * (1 + x0)).sum()) * (1 - 1e-3) for x0, xt, _, dsigma in seen]
    mean = sum(values) / 6
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 5 / 6)
    assert math.isclose(float(found.nll_nats), mean, rel_tol=1e-6)
    assert math.isclose(float(found.standard_error), spread, rel_tol=1e-6)


def test_one_time_has_no_error_estimate() -> None:
    found = estimate([0, 2], 1)
    assert torch.isfinite(found.nll_nats).all()
    assert torch.isnan(found.standard_error).all()
