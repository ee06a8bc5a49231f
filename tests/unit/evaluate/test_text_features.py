"""Features are the judge's last hidden state at the last token, one text at a time, and a sentence model's vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cascaded_dllm.errors import DataError
from cascaded_dllm.evaluate import text_features
from cascaded_dllm.evaluate.generative_ppl import Judge
from cascaded_dllm.evaluate.text_features import encoder_features, judge_features
from tests.unit.evaluate.tiny_judge import CONTEXT, TEXTS, save_judge
from tests.unit.importance.tiny_models import save_bert

pytest.importorskip("transformers", reason="the extra eval is not installed")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge.load(str(folder))


def plain_feature(folder: Path, text: str) -> list[float]:
    """By the library's model without an output layer, on one text that is not padded."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]][:CONTEXT]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0, -1].tolist()


@pytest.mark.parametrize("call_tokens", [1, 20, 1 << 13])
def test_judge(judge: Judge, folder: Path, monkeypatch: pytest.MonkeyPatch, call_tokens: int) -> None:
    """Also of an empty text, and of one that is longer than the context, however many are computed together."""
    monkeypatch.setattr(text_features, "_CALL_TOKENS", call_tokens)
    found = judge_features(judge, CPU)(TEXTS)
    assert found.shape == (len(TEXTS), 16)
    for text, feature in zip(TEXTS, found, strict=True):
        assert feature.tolist() == pytest.approx(plain_feature(folder, text), abs=1e-5)


def test_no_text(judge: Judge) -> None:
    assert judge_features(judge, CPU)([]).shape == (0, 16)


def test_encoder(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = save_bert(tmp_path)
    found = encoder_features(str(model), CPU)(["the cat", "a dog of the sea", "the cat"])
    plain = SentenceTransformer(str(model), device="cpu").encode(["the cat", "a dog of the sea", "the cat"])
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a readable sentence-transformers model"):
        encoder_features(str(tmp_path), CPU)
