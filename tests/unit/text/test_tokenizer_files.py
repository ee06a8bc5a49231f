import json
import threading
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from cascaded_dllm import hub_requests
from cascaded_dllm.errors import DataError
from cascaded_dllm.text.tokenizer import Tokenizer
from cascaded_dllm.text.tokenizer_canonical import END_OF_TEXT
from cascaded_dllm.text.tokenizer_files import VOCABULARY_PAIRS


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat"], 280)


def write_vocabulary(tokenizer: Tokenizer, folder: Path, vocabulary_name: str, merges_name: str) -> None:
    """The tokenizer as GPT-2 was published: a vocabulary and a list of merges."""
    tokenizer.save(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / vocabulary_name).write_text(json.dumps(model["vocab"]))
    (folder / merges_name).write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))


@pytest.mark.parametrize("names", VOCABULARY_PAIRS)
def test_vocabulary_and_merges(tokenizer: Tokenizer, tmp_path: Path, names: tuple[str, str]) -> None:
    write_vocabulary(tokenizer, tmp_path, *names)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("the mat 😀") == tokenizer.encode("the mat 😀")


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match=r"neither tokenizer\.json nor encoder\.json \+ vocab\.bpe or vocab\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("source", [Path("gpt2"), "no/such/folder", "missing.json", "a b"])
def test_nothing_there(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"there is no tokenizer at {source}; give a tokenizer.json"):
        Tokenizer.load(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a readable tokenizer.json"),
        ('{"model": ', "is not a readable tokenizer.json"),
        ("[1]", "its top level is not an object"),
        ("{}", "is not a tokenizer of the tokenizers library"),
    ],
)
def test_broken_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(tmp_path)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"is not a readable tokenizer\.json \('utf-8' codec"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("#version: 0.2\nt\n", r"vocab\.bpe line 2 is 't', not two known tokens"),
        ("t \u0120\u0120\u0120\n", r"vocab\.bpe line 1 is .*, not two known tokens"),
        ("x q\n", r"vocab\.bpe line 1 merges to 'xq', which is not among the \d+ tokens"),
    ],
)
def test_broken_merges(tokenizer: Tokenizer, tmp_path: Path, merges: str, message: str) -> None:
    write_vocabulary(tokenizer, tmp_path, "encoder.json", "vocab.bpe")
    (tmp_path / "vocab.bpe").write_text(merges)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(tmp_path)


def test_broken_vocabulary(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_vocabulary(tokenizer, tmp_path, "encoder.json", "vocab.bpe")
    (tmp_path / "encoder.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"encoder\.json or .*vocab\.bpe is broken"):
        Tokenizer.load(tmp_path)
    (tmp_path / "encoder.json").write_text(f'{{"{END_OF_TEXT}": 0.5}}')
    with pytest.raises(DataError, match=r"encoder\.json does not map tokens to integer ids"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("is_cached", [True, False])
def test_hub_id_asks_the_cache_before_the_network(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    tokenizer.save(tmp_path)
    calls: list[str] = []

    def download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str:
        calls.append("cache" if local_files_only else "download")
        if local_files_only and not is_cached:
            raise LocalEntryNotFoundError("not cached")
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: calls.append("hub"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert Tokenizer.load("gpt2").fingerprint == tokenizer.fingerprint
    assert calls == (["cache"] if is_cached else ["cache", "hub", "download"])


def test_repository_without_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str:
        raise LocalEntryNotFoundError("not cached") if local_files_only else OSError("404")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DataError, match=r"downloading it failed \(OSError\); check the name and the network"):
        Tokenizer.load("someone/some-model")


def test_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded then, which the library would try for half a minute."""
    waiting = threading.Event()
    calls: list[bool] = []

    def download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str:
        calls.append(local_files_only)
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: waiting.wait(10))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 0.05)
    with pytest.raises(DataError, match=r"downloading it failed \(TimeoutError\); check the name and the network"):
        Tokenizer.load("someone/some-model")
    waiting.set()
    assert calls == [True]


def test_hub_id_offline() -> None:
    # HF_HUB_OFFLINE is set by tests/conftest.py, and this repository cannot be in the cache.
    with pytest.raises(
        DataError, match="the tokenizer 'no-one/no-such-model' is neither a file here nor in the Hugging"
    ):
        Tokenizer.load("no-one/no-such-model")
