"""The bound of texts that are no windows of a corpus: that of windows, if they are."""

import numpy as np
import pytest
import torch

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.dataset import StageDataset
from cascaded_dllm.data.stages import StageArrays
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.evaluate.likelihood import dataset_bound
from cascaded_dllm.evaluate.text_bound import text_bound
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.train.batches import make_batch
from cascaded_dllm.train.objective import Batch, Objective
from tests.unit.model.tiny import VOCAB, tiny_model, tiny_placed

P, L, COUNT = 3, 6, 12
OBJECTIVE = Objective(AbsorbingProcess(VOCAB), LogLinearSchedule())


@pytest.fixture(scope="module")
def arrays() -> StageArrays:
    generator = np.random.default_rng(0)
    text = generator.integers(0, VOCAB, (COUNT, L)).astype(np.int32)
    positions = np.sort(generator.permuted(np.tile(np.arange(L), (COUNT, 1)), axis=1)[:, :P], axis=1).astype(np.int32)
    stages = (np.take_along_axis(text, positions, axis=1), text)
    return StageArrays(CascadeSpec((P, L)), "document", "", 0, VOCAB, "", "", {}, stages, (positions,))


def texts_of(dataset: StageDataset, first_index: int = 0) -> Batch:
    return make_batch(dataset, np.arange(COUNT), np.arange(first_index, first_index + COUNT))


@pytest.mark.parametrize(
    ("stage", "model"),
    [
        (1, tiny_model(seed=1)),
        (2, tiny_model(seed=2)),
        (2, tiny_placed(P, L - P, seed=3, parameterization="normalized")),
    ],
    ids=["first", "prefix", "placed"],
)
def test_windows_have_the_bound_of_windows(arrays: StageArrays, stage: int, model: ScoreModel) -> None:
    """At other times and with other noise; their error is told by the spread over times."""
    dataset = StageDataset(arrays, stage, is_placed=hasattr(model, "layout"))
    ours = text_bound(model, OBJECTIVE, texts_of(dataset), num_times=64, batch_size=COUNT, seed=5)
    theirs = dataset_bound(model, OBJECTIVE, dataset, num_windows=COUNT, num_times=64, batch_size=COUNT, seed=5)
    error = float(theirs.standard_error.square().sum().sqrt()) / COUNT * 2**0.5
    assert abs(float(ours.mean() - theirs.nll_nats.mean())) < 4 * error
    assert ours.dtype == torch.float64


def test_the_number_of_a_text_decides_its_noise(arrays: StageArrays) -> None:
    """Not its batch."""
    model, dataset = tiny_model(seed=2), StageDataset(arrays, 2)
    texts = texts_of(dataset)
    told: list[tuple[int, int]] = []

    def bound(part: Batch, batch_size: int, seed: int = 5) -> torch.Tensor:
        told.clear()
        return text_bound(
            model,
            OBJECTIVE,
            part,
            num_times=2,
            batch_size=batch_size,
            seed=seed,
            on_progress=lambda done, total: told.append((done, total)),
        )

    whole = bound(texts, COUNT)
    torch.testing.assert_close(bound(texts, 5), whole, rtol=1e-5, atol=0)
    assert told == [(5, COUNT), (10, COUNT), (12, COUNT)]
    torch.testing.assert_close(bound(texts.part(4, COUNT), 8), whole[4:], rtol=1e-5, atol=0)
    assert not torch.allclose(bound(texts_of(dataset, 1), COUNT), whole)
    assert not torch.allclose(bound(texts, COUNT, seed=6), whole)
