import numpy as np
import pytest
import torch

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.importance import sentence_model, sentence_tokens
from cascaded_dllm.importance.sentence_model import SentenceModel
from tests.unit.importance import tiny_models

TEXTS = ["the cat", "dog", "the new house of the sea", "seas", "not the cat and not the dog", "sea", "\u65e5\u672c ?"]
LONG = " ".join(TEXTS * 10)


def load(folder, precision="float32") -> SentenceModel:
    return SentenceModel(folder, device="cpu", precision=precision)


def encoded(folder, texts) -> np.ndarray:
    """What the library makes of texts, each by itself, and of length 1."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors = np.stack([model.encode([text], show_progress_bar=False)[0] for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("settings", [{}, {"normalize": False}, {"padding_side": "left"}])
def test_vectors_are_those_of_the_library(tmp_path, settings):
    folder = tiny_models.save_bert(tmp_path, **settings)
    model = load(folder)
    texts = [*TEXTS, LONG]
    for embed in (model.embed_words, model.embed_documents):
        # Float32, added in another order.
        np.testing.assert_allclose(embed(texts), encoded(folder, texts), rtol=0, atol=1e-6)


def test_a_table_of_word_vectors_is_a_model_too(tmp_path):
    folder = tiny_models.save_static(tmp_path)
    texts = [text for text in TEXTS if "seas" not in text]
    np.testing.assert_allclose(load(folder).embed_documents(texts), encoded(folder, texts), rtol=0, atol=1e-6)


def test_prompt_of_the_model_is_used(tmp_path):
    from sentence_transformers import SentenceTransformer

    plain = tiny_models.save_bert(tmp_path / "plain")
    model = SentenceTransformer(
        str(plain), device="cpu", local_files_only=True, prompts={"q": "the dog "}, default_prompt_name="q"
    )
    asking = tiny_models.save(model, tmp_path / "asking")
    assert np.array_equal(load(asking).embed_words(["cat"]), load(plain).embed_words(["the dog cat"]))
    np.testing.assert_allclose(load(asking).embed_words(TEXTS), encoded(asking, TEXTS), rtol=0, atol=1e-6)
    assert load(asking).fingerprint != load(plain).fingerprint


def test_a_document_is_read_as_far_as_the_model_reads(tiny_model, monkeypatch):
    model = load(tiny_model)
    read: list[str] = []
    preprocess = type(model._model).preprocess

    def spy(self, texts, **settings):
        read.extend(texts)
        return preprocess(self, texts, **settings)

    monkeypatch.setattr(type(model._model), "preprocess", spy)
    # Unknown words of one token and 23 letters: the guess of five letters a token is too short here.
    dense, sparse, unbroken = "the sea of " * 50, ("\u03c9" * 23 + " ") * 50, "\u65e5\u672c" * 500
    vectors = model.embed_documents([dense, sparse, unbroken, "cat"])
    limit = 5 * tiny_models.MAX_TOKENS
    assert read[:2] == ["cat", dense[: dense.rindex(" ", 0, limit)]]
    # So far the next one is read too, then twice as far, and again.
    again = [text for text in read if sparse.startswith(text)]
    assert again == [sparse[: sparse.rindex(" ", 0, far)] for far in (limit, 2 * limit, 4 * limit, 8 * limit)]
    monkeypatch.setattr(sentence_tokens, "_CHARACTERS_PER_TOKEN", 10_000)
    assert np.array_equal(load(tiny_model).embed_documents([dense, sparse, unbroken, "cat"]), vectors)


def test_a_document_of_long_words_is_read_again(tiny_model, monkeypatch):
    """Where the beginning has fewer tokens than the model reads, more of the document is read, at last all of it."""
    monkeypatch.setattr(sentence_tokens, "_CHARACTERS_PER_TOKEN", 2)
    texts = ["the house " * 20, "the sea", "not " * 40]
    hasty = load(tiny_model).embed_documents(texts)
    monkeypatch.undo()
    assert np.array_equal(load(tiny_model).embed_documents(texts), hasty)


@pytest.mark.parametrize("embed", ["embed_words", "embed_documents"])
def test_any_company_gives_the_same_bits(tiny_model, embed):
    model = load(tiny_model)
    together = getattr(model, embed)([*TEXTS, LONG])
    for place, text in enumerate([*TEXTS, LONG]):
        assert np.array_equal(getattr(model, embed)([text])[0], together[place])
    many = [f"{text} {number}" for number in range(60) for text in TEXTS]
    order = np.random.default_rng(0).permutation(len(many))
    vectors = getattr(model, embed)(many)
    assert np.array_equal(getattr(model, embed)([many[place] for place in order]), vectors[order])


def test_steps_have_one_shape_for_a_length(tiny_model, monkeypatch):
    model = load(tiny_model)
    shapes: list[tuple[int, ...]] = []
    forward = SentenceModel._forward

    def spy(self, network, features):
        mask = features["attention_mask"]
        shapes.append((mask.shape[1], mask.shape[0]))
        # Some models look whether anything is masked, so all of a step is or nothing.
        assert len(set(mask.all(dim=1).tolist())) == 1
        assert {value.shape for value in features.values() if torch.is_tensor(value)} == {mask.shape}
        return forward(self, network, features)

    monkeypatch.setattr(SentenceModel, "_forward", spy)
    monkeypatch.setitem(sentence_model._WORD_STEP_TOKENS, "cpu", 12)
    monkeypatch.setitem(sentence_model._STEP_TOKENS, "cpu", 16)
    monkeypatch.setattr(sentence_tokens, "_CHUNK", 5)
    model.embed_words(["sea"] * 9 + ["cats", LONG])
    assert shapes == [(3, 4), (3, 4), (3, 4), (4, 3), (tiny_models.MAX_TOKENS, 1)]
    shapes.clear()
    # Lengths 3, 4, 7, 8, 18 and 24: always some padding, and none where the model reads no further.
    model.embed_documents(["sea", "cats", "sea " * 5, "sea " * 6, "sea " * 16, LONG])
    assert shapes == [(8, 2), (8, 2), (16, 1), (tiny_models.MAX_TOKENS, 1), (tiny_models.MAX_TOKENS, 1)]


@pytest.mark.parametrize("embed", ["embed_words", "embed_documents"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_runs_on_one_thread(tiny_model, monkeypatch, embed, threads):
    model = load(tiny_model)
    used = []
    forward = SentenceModel._forward
    monkeypatch.setattr(
        SentenceModel, "_forward", lambda *arguments: used.append(torch.get_num_threads()) or forward(*arguments)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        getattr(model, embed)(TEXTS)
        with pytest.raises(TypeError):
            getattr(model, embed)([None])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_bits(real_model, monkeypatch):
    """A processor adds in another order on two threads, in small products above all."""
    model = load(real_model)
    monkeypatch.setitem(sentence_model._WORD_STEP_TOKENS, "cpu", 1)
    texts = [" ".join(["the", "old", "house", "by", "the", "sea", "and", "all"][:length]) for length in range(1, 9)]
    vectors, raw = [], []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            vectors.append([model.embed_words(texts), model.embed_documents(texts)])
            with torch.inference_mode():
                # Outside embed_words, which computes on one thread.
                raw.append(model._outputs(model._model, model._tokenizer.blocks(texts, pads=False), 1))
        finally:
            torch.set_num_threads(before)
    for one, two in zip(*vectors, strict=True):
        assert np.array_equal(one, two)
    if torch.equal(*raw):
        pytest.skip("this processor adds alike on two threads, so the test has no power")


def test_arithmetic_is_a_name_of_device_dtype_and_library(tiny_model, monkeypatch):
    model = load(tiny_model)
    assert model.arithmetic == f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}-float32-torch-" + (
        torch.__version__.replace("+", "-")
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:1": "NVIDIA H100 80GB HBM3"}.get)
    model._device = "cuda:1"
    assert model.arithmetic.startswith("cuda-nvidia-h100-80gb-hbm3-float32-torch-")


def test_padding_changes_the_last_bits_only(tiny_model, monkeypatch):
    padded = load(tiny_model).embed_documents(TEXTS)
    monkeypatch.setattr(sentence_tokens, "_PADDED_BELOW", 0)
    np.testing.assert_allclose(load(tiny_model).embed_documents(TEXTS), padded, rtol=0, atol=1e-6)


def test_full_and_padded_texts_of_one_length_do_not_meet(tiny_model):
    """A step in which nothing is masked may be computed in another way."""
    model = load(tiny_model)
    full, shorter = ("the house by the sea " * 9, "the house by the sea " * 3)
    alone = [model.embed_documents([text])[0] for text in (full, shorter)]
    for texts in ([full, shorter] * 9, [shorter, full], [full, full, shorter]):
        for text, vector in zip(texts, model.embed_documents(texts), strict=True):
            assert np.array_equal(vector, alone[text == shorter])


def test_bfloat16_is_for_documents_alone(tiny_model):
    model, exact = load(tiny_model, "bfloat16"), load(tiny_model)
    assert np.array_equal(model.embed_words(TEXTS), exact.embed_words(TEXTS))
    documents, exactly = model.embed_documents(TEXTS), exact.embed_documents(TEXTS)
    assert documents.dtype == np.float32
    # Eight bits of mantissa through a few layers.
    assert 1e-5 < np.abs(documents - exactly).max() < 0.05
    assert model.fingerprint == exact.fingerprint


def test_zero_is_like_nothing(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = tiny_models.save_static(tmp_path)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    with torch.no_grad():
        model[0].embedding.weight.zero_()
    zeros = tiny_models.save(model, tmp_path / "zeros")
    assert np.array_equal(load(zeros).embed_words(["sea", "cat"]), np.zeros((2, 16), dtype=np.float32))


def test_numbers_that_are_not_finite(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = tiny_models.save_bert(tmp_path)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight[tiny_models.VOCABULARY.index("sea")] = torch.nan
    broken = load(tiny_models.save(model, tmp_path / "broken"))
    broken.embed_words(["cat"])
    with pytest.raises(DataError, match=r"broken' makes vectors that are not finite; choose another one"):
        broken.embed_words(["cat", "sea"])
    # A GPU may still be at work where documents are begun, so only their vectors say that they are broken.
    waiting = broken.begin_documents(["cat", "sea"])
    with pytest.raises(DataError, match=r"broken' makes vectors that are not finite; choose another one"):
        waiting()


def test_no_gpu(tiny_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"the device is 'cuda', but there is no GPU .*; choose auto or cpu"):
        SentenceModel(tiny_model, device="cuda", precision="float32")
    assert SentenceModel(tiny_model, device="auto", precision="float32")._device == "cpu"
