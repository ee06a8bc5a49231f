import shutil
import sys
import threading
import time
import types

import pytest

from cascaded_dllm import hub_requests
from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance import sentence_files
from cascaded_dllm.importance.sentence_files import fingerprint, load_sentence_model
from tests.unit.importance import tiny_models

huggingface_hub = pytest.importorskip("huggingface_hub")


def load(model):
    return load_sentence_model(str(model), "cpu")


def test_fingerprint_is_of_the_contents(tiny_model, tmp_path):
    copied = shutil.copytree(tiny_model, tmp_path / "copied")
    assert fingerprint(load(copied)) == fingerprint(load(tiny_model))
    config = copied / "tokenizer_config.json"
    config.write_text(config.read_text().replace(f'length": {tiny_models.MAX_TOKENS}', 'length": 20'))
    assert load(copied).max_seq_length == 20
    assert fingerprint(load(copied)) != fingerprint(load(tiny_model))


@pytest.mark.parametrize("settings", [{"seed": 1}, {"normalize": False}])
def test_fingerprint_tells_models_apart(tiny_model, tmp_path, settings):
    assert fingerprint(load(tiny_models.save_bert(tmp_path, **settings))) != fingerprint(load(tiny_model))


def test_model_is_in_float32_whatever_was_saved(tiny_model, tmp_path):
    half = tiny_models.save(load(tiny_model).half(), tmp_path / "half")
    assert {str(parameter.dtype) for parameter in load(half).parameters()} == {"torch.float32"}


def test_loading_shows_no_bar(tiny_model, capfd):
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
    load(tiny_model)
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"missing' is not a readable sentence-transformers model .*; give the folder"):
        load(tmp_path / "missing")


@pytest.mark.parametrize("damage", ["empty", "config.json", "model.safetensors", "modules.json", "tokenizer.json"])
def test_folder_that_is_broken(tiny_model, tmp_path, damage):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    if damage == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        (folder / damage).write_bytes((folder / damage).read_bytes()[:100])
    with pytest.raises(DataError, match="is not a readable sentence-transformers model"):
        load(folder)


def test_offline_and_not_here():
    """Tests run offline, see tests/conftest.py."""
    begun = time.monotonic()
    with pytest.raises(
        DataError, match=r"'no-such-model' is not on this machine, and the hub does not answer \(Offline"
    ):
        load("no-such-model")
    assert time.monotonic() - begun < 60


def test_hub_that_never_answers(monkeypatch):
    waiting = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: waiting.wait(10))
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 0.05)
    with pytest.raises(DataError, match=r"the hub does not answer \(TimeoutError\); download it where there is"):
        load("owner/model")
    waiting.set()


def test_hub_that_has_no_such_model(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, **_: asked.append(name))
    with pytest.raises(DataError, match=r"'no-such-model' is not on this machine and cannot be downloaded from the"):
        load("no-such-model")
    # Perhaps once more by the library.
    assert set(asked) == {"sentence-transformers/no-such-model"}


def test_hub_whose_answer_is_an_error_is_there(monkeypatch):
    """What is wrong with the name is for the library to say, which knows more names than one."""
    from huggingface_hub.errors import HfHubHTTPError

    error = HfHubHTTPError.__new__(HfHubHTTPError)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(DataError, match="cannot be downloaded from the hub"):
        load("owner/model")


def test_model_that_the_hub_has(tiny_model, monkeypatch):
    calls: list[bool] = []
    library = types.ModuleType("library")
    sentence_transformers = pytest.importorskip("sentence_transformers")

    def from_hub(model, device, local_files_only=False):
        calls.append(local_files_only)
        if local_files_only:
            raise OSError("not in the cache")
        return sentence_transformers.SentenceTransformer(str(tiny_model), device=device, local_files_only=True)

    library.SentenceTransformer = from_hub
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(sentence_files, "_library", lambda: library)
    assert fingerprint(load("owner/model"))
    assert calls == [True, False]


def test_library_that_is_missing(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"a sentence model needs sentence-transformers.*\[preprocess\]"):
        load(tiny_model)
