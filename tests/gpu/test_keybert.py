"""KeyBERT's importance on a CUDA device is that of the CPU; skipped where there is none."""

import numpy as np
import pytest

from cascaded_dllm.importance.base import Word
from cascaded_dllm.importance.keybert import KeybertScorer
from tests.unit.importance import tiny_models

pytestmark = pytest.mark.gpu
TEXTS = ["The cat saw the sea. Not the new house.", "", "dogs", "sea and sea " * 30, "a house, the seas"] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("sentence_transformers", reason="the extra `preprocess` is not installed")
    return tiny_models.save_bert(tmp_path_factory.mktemp("tiny"))


def numbers(scored: list[list[Word]]) -> np.ndarray:
    return np.array([word.importance for words in scored for word in words])


# Float32 in another order; then eight bits of mantissa through a few layers.
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_numbers_of_the_cpu(model, precision, tolerance):
    on_cpu = KeybertScorer(model, device="cpu").score(TEXTS)
    on_gpu = KeybertScorer(model, device="auto", precision=precision).score(TEXTS)
    assert [[word[:2] for word in words] for words in on_gpu] == [[word[:2] for word in words] for words in on_cpu]
    np.testing.assert_allclose(numbers(on_gpu), numbers(on_cpu), rtol=0, atol=tolerance)


def test_any_batch_gives_the_same_bits(model):
    scorer = KeybertScorer(model, device="cuda")
    one_by_one = [scorer.score([text])[0] for text in TEXTS]
    assert KeybertScorer(model, device="cuda").score(TEXTS) == one_by_one
