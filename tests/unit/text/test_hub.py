"""The hub is a server on this machine that hands out real parquet files, or is not there at all."""

import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cascaded_dllm import hub_requests
from cascaded_dllm.errors import ConfigError, DataError, MissingExtraError
from cascaded_dllm.text import hub
from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.hub import HubRows, open_hub
from cascaded_dllm.text.hub_corpora import HUB_CORPORA, HubCorpus
from tests.unit.text.fake_hub import COMMIT, DATASET, parquet, served

datasets = pytest.importorskip("datasets")
constants = pytest.importorskip("huggingface_hub.constants")

README = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train-*
  - split: validation
    path: small/validation-*
- config_name: other
  data_files:
  - split: train
    path: other/train-*
---
"""
FILES = {
    "README.md": README,
    "small/train-00000-of-00002.parquet": parquet(text=[f"Text {i}" for i in range(30)], id=list(range(30))),
    "small/train-00001-of-00002.parquet": parquet(text=["", *(f"Text {i}" for i in range(31, 50))], id=[None] * 20),
    "small/validation-00000-of-00001.parquet": parquet(text=["One", "Two"], id=[7, 8]),
    "other/train-00000-of-00001.parquet": parquet(body=["One"], number=[1]),
}
SMALL = HubCorpus(DATASET, "small")

Ask = Callable[[str], None]


@pytest.fixture
def use_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Makes the libraries ask a hub at this address, with an empty cache."""

    def use(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
        monkeypatch.setattr(
            datasets.config, "HUB_DATASETS_URL", address + "/datasets/{repo_id}/resolve/{revision}/{path}"
        )
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
        monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)

    return use


@pytest.fixture
def requests(use_hub: Ask) -> Iterator[list[str]]:
    """What a hub with the files above has been asked."""
    with served(FILES) as (address, asked):
        use_hub(address)
        yield asked


def opened(corpus: HubCorpus = SMALL, split: str = "train", *, streaming: bool = False) -> HubRows:
    return open_hub(corpus, split=split, revision=None, streaming=streaming)


EACH_WAY = pytest.mark.parametrize("streaming", [False, True])


@EACH_WAY
def test_rows(requests: list[str], streaming: bool) -> None:
    rows = opened(streaming=streaming)
    records = list(rows.records(Part()))
    expected = [*(Document(str(i), f"Text {i}") for i in range(30)), Dropped("train:30", "empty", 0)]
    assert records == expected + [Document(f"train:{i}", f"Text {i}") for i in range(31, 50)]
    assert bool(rows.files) is not streaming
    assert rows.source() == {
        "kind": "hub",
        "id": DATASET,
        "revision": COMMIT,
        "config": "small",
        "split": "train",
        "text_field": "text",
        "form": None,
    }
    assert requests


@pytest.mark.parametrize(("streaming", "num_parts", "stop"), [(False, 2, None), (False, 60, 33), (True, 3, 33)])
def test_parts(
    requests: list[str], monkeypatch: pytest.MonkeyPatch, streaming: bool, num_parts: int, stop: int | None
) -> None:
    monkeypatch.setattr(hub, "BATCH_ROWS", 8)
    rows = opened(streaming=streaming)
    parts = [list(rows.records(Part(index, num_parts, stop))) for index in range(num_parts)]
    merged = [parts[number % num_parts][number // num_parts] for number in range(stop or 50)]
    assert merged == list(rows.records(Part(stop=stop)))
    assert sum(map(len, parts)) == len(merged)


def test_another_process_reads_without_the_hub(requests: list[str]) -> None:
    rows = opened()
    requests.clear()
    assert list(pickle.loads(pickle.dumps(rows)).records(Part())) == list(rows.records(Part()))
    assert requests == []


def test_cache_comes_first(requests: list[str], use_hub: Ask) -> None:
    rows = opened()
    requests.clear()
    use_hub(closed_address())
    for corpus in (SMALL, replace(SMALL, config=None), replace(SMALL, commit=COMMIT)):
        for streaming in (False, True):
            assert opened(corpus, streaming=streaming) == rows
    with pytest.raises(DataError, match="not on this machine"):
        opened(replace(SMALL, commit="0" * 40))
    opened(split="validation")
    assert requests == []


def test_a_branch_is_asked_for_even_if_something_is_cached(requests: list[str]) -> None:
    rows = opened()
    requests.clear()
    assert open_hub(SMALL, split="train", revision="main", streaming=False) == rows
    assert requests == [f"GET /api/datasets/{DATASET}/revision/main"]
    with pytest.raises(
        DataError, match="the hub has no dataset 'owner/name' with the revision 'nowhere', or it is not"
    ):
        open_hub(SMALL, split="train", revision="nowhere", streaming=False)


@EACH_WAY
def test_splits(requests: list[str], streaming: bool) -> None:
    assert [record.id for record in opened(split="valid", streaming=streaming).records(Part())] == ["7", "8"]
    with pytest.raises(ConfigError, match="the split of owner/name is 'dev'; it must be one of train, validation"):
        opened(split="dev", streaming=streaming)


def test_splits_of_a_known_corpus_need_no_hub(use_hub: Ask) -> None:
    use_hub(closed_address())
    with pytest.raises(ConfigError, match="the split of EleutherAI/lambada_openai is 'train'; it must be one of test"):
        opened(HUB_CORPORA["lambada"], "train")


@EACH_WAY
def test_missing_column(requests: list[str], streaming: bool) -> None:
    message = r"owner/name \(train\) has no field 'text'; its fields are 'body', 'number': choose one"
    with pytest.raises(DataError, match=message):
        opened(HubCorpus(DATASET, "other"), streaming=streaming)
    assert list(opened(HubCorpus(DATASET, "other", text_field="body")).records(Part())) == [Document("train:0", "One")]
    with pytest.raises(DataError, match="train:0 has a int in the field 'number', not a string"):
        opened(HubCorpus(DATASET, "other", text_field="number"))


@EACH_WAY
def test_rows_without_text(use_hub: Ask, streaming: bool) -> None:
    with served({"train-00000-of-00001.parquet": parquet(text=["a\0b", None], id=["x", "y"])}) as (address, _):
        use_hub(address)
        records = list(opened(HubCorpus(DATASET), streaming=streaming).records(Part()))
    assert records == [Document("x", "a\0b"), Dropped("y", "null text", 0)]


def test_streamed_files_may_lack_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = HubRows(SMALL, "train", ())
    tables = [pa.table({"text": ["One"]}), pa.table({"body": ["Two"], "id": [7]}), pa.table({"text": ["Three"]})]
    monkeypatch.setattr(HubRows, "_tables", lambda self: iter(tables))
    assert list(rows.records(Part())) == [
        Document("train:0", "One"),
        Dropped("7", "no text field", 0),
        Document("train:2", "Three"),
    ]


@pytest.mark.parametrize("config", [None, "large"])
def test_configuration_that_does_not_exist(requests: list[str], config: str | None) -> None:
    with pytest.raises(
        DataError, match=r"owner/name cannot be read \(ValueError: .*\['small', 'other'\].*; check the con"
    ):
        opened(HubCorpus(DATASET, config))


def test_dataset_that_does_not_exist(requests: list[str]) -> None:
    with pytest.raises(DataError, match="the hub has no dataset 'owner/nothing' with the revision 'main'"):
        opened(HubCorpus("owner/nothing"))
    with pytest.raises(DataError, match=r"the hub has no dataset 'owner/nothing\.\.' with the revision 'main'"):
        opened(HubCorpus("owner/nothing.."))


def test_broken_file(use_hub: Ask) -> None:
    with served({"train-00000-of-00001.parquet": FILES["small/train-00000-of-00002.parquet"][:-20]}) as (address, _):
        use_hub(address)
        with pytest.raises(DataError, match=r"cannot be read \(ArrowInvalid: .*magic bytes.*and the free space"):
            opened(HubCorpus(DATASET))


def test_files_that_are_gone(requests: list[str]) -> None:
    rows = opened()
    for file in rows.files:
        Path(file).unlink()
    with pytest.raises(DataError, match=r"owner/name cannot be read \(FileNotFoundError: .* and run again"):
        list(rows.records(Part()))


def closed_address() -> str:
    """An address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@EACH_WAY
@pytest.mark.parametrize(
    ("name", "advice"), [("wikitext2", "with --form wikitext"), ("openwebtext", "a folder of them$")]
)
def test_no_network(use_hub: Ask, streaming: bool, name: str, advice: str) -> None:
    use_hub(closed_address())
    with pytest.raises(
        DataError, match=rf"not on this machine, and the hub does not answer \(ConnectError\); .*{advice}"
    ):
        opened(HUB_CORPORA[name], streaming=streaming)


def test_hub_that_never_answers(use_hub: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        use_hub(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(DataError, match="the hub does not answer"):
            opened()


def test_name_that_cannot_be_looked_up(use_hub: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        time.sleep(1)
        raise OSError

    use_hub("http://hub.invalid")
    monkeypatch.setattr(hub_requests, "DEADLINE_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(DataError, match=r"the hub does not answer \(TimeoutError\)"):
        opened()


def test_offline(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"the hub does not answer \(OfflineModeIsEnabled\)"):
        opened()
    assert requests == []


def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "datasets"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"a corpus of the hub needs datasets, .*cascaded-dllm\[preprocess\]"):
        opened()


WIKITEXT = parquet(text=["", " = A = \n", "", " One , two . \n", "", " = = B = = \n", "", " Three @-@ four \n", ""])
LAYOUTS: dict[str, tuple[dict[str, bytes], str, list[str]]] = {
    # As the files of each lie on the hub, with the split asked for and the texts that are to come out.
    "wikitext103": (
        {
            "README.md": README.replace(b"small", b"wikitext-103-raw-v1"),
            "wikitext-103-raw-v1/train-00000-of-00001.parquet": WIKITEXT,
            "wikitext-103-raw-v1/validation-00000-of-00001.parquet": WIKITEXT,
            "other/train-00000-of-00001.parquet": WIKITEXT,
        },
        "valid",
        ["One, two.\n\nThree-four"],
    ),
    "wikitext2": (
        {
            "README.md": README.replace(b"small", b"wikitext-2-raw-v1"),
            "wikitext-2-raw-v1/train-00000-of-00001.parquet": WIKITEXT,
            "wikitext-2-raw-v1/validation-00000-of-00001.parquet": WIKITEXT,
            "other/train-00000-of-00001.parquet": WIKITEXT,
        },
        "train",
        ["One, two.\n\nThree-four"],
    ),
    "ptb": (
        {
            f"penn_treebank/{split}/0000.parquet": parquet(sentence=["it does n't cost $ N"])
            for split in ("train", "validation", "test")
        },
        "test",
        ["it doesn't cost $N"],
    ),
    "lm1b": (
        {f"plain_text/{split}/0000.parquet": parquet(text=['He said : " No . "']) for split in ("train", "test")},
        "train",
        ['He said: "No."'],
    ),
    "lambada": (
        {
            "README.md": b"---\nconfigs:\n"
            b"- config_name: default\n  data_files:\n  - split: test\n    path: default/test/*\n"
            b"- config_name: en\n  data_files:\n  - split: test\n    path: en/test/*\n---\n",
            "default/test/0000.parquet": parquet(text=["\u201cNo,\u201d he said"]),
            "en/test/0000.parquet": parquet(text=["other"]),
        },
        "test",
        ['"No," he said'],
    ),
    "openwebtext": (
        {"plain_text/train-00000-of-00080.parquet": parquet(text=["One . \n\nTwo", "Three"])},
        "train",
        ["One . \n\nTwo", "Three"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB_CORPORA)
def test_known_corpora(use_hub: Ask, name: str) -> None:
    files, split, texts = LAYOUTS[name]
    corpus = HUB_CORPORA[name]
    with served(files, corpus.id) as (address, _):
        use_hub(address)
        rows = opened(corpus, split)
        streamed = opened(replace(corpus, commit="0" * 40), split, streaming=True)
        for found in (rows, streamed):
            assert [record.text for record in found.records(Part()) if isinstance(record, Document)] == texts
    assert rows.source()["revision"] == corpus.commit or (corpus.commit is None and rows.source()["revision"] == COMMIT)
    assert rows.source() | {"revision": ""} == streamed.source() | {"revision": ""}


@pytest.mark.network
@pytest.mark.parametrize("name", HUB_CORPORA)
def test_known_corpora_where_they_really_lie(name: str) -> None:
    rows = opened(HUB_CORPORA[name], "train" if name == "openwebtext" else "test", streaming=True)
    assert any(isinstance(record, Document) for record in rows.records(Part(stop=3)))
