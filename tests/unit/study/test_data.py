"""The data of studies whose arms have functions of the user's own."""

import re
from pathlib import Path

import pytest

from cascaded_dllm.errors import ConfigError, DataError
from cascaded_dllm.study.callbacks import StudyCallbacks
from cascaded_dllm.study.data import MethodData, require_sound_corpus, study_data
from cascaded_dllm.study.folder import StudyFolder
from cascaded_dllm.study_config import CorpusSettings, StudySettings, parse_study

GIVING = "def f(texts):\n    return [[(0, 1, {})] for text in texts]\n"


def function(file: Path, importance: int) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text(GIVING.format(importance))
    return f"{file}:f"


def of_methods(methods: list[str], **corpus: object) -> StudySettings:
    arms = [{"name": f"arm{number}", "kind": "prefix", "method": method} for number, method in enumerate(methods)]
    corpus = corpus or {"dataset": "stories", "num_documents": 8}
    budget = {"token_forwards": 1000}
    return parse_study({"name": "s", "corpus": corpus, "lengths": [4, 40], "budget": budget, "arms": arms})


def made(folder: Path, methods: list[str]) -> dict[str, MethodData]:
    return study_data(of_methods(methods), StudyFolder(folder), StudyCallbacks())


def given(folder: Path, method: str, data: MethodData) -> dict[str, MethodData]:
    entry = {"method": method, "train": str(data.train), "valid": str(data.valid)}
    return study_data(of_methods([method], folders=[entry]), StudyFolder(folder), StudyCallbacks())


def test_versions_of_a_function(tmp_path: Path) -> None:
    """Files of one name have data of their own, and a name that is none for a folder does not matter."""
    methods = [function(tmp_path / version / "my file.py", number) for number, version in enumerate(("v1", "v2"))]
    found = made(tmp_path / "out", methods)
    hashes = [found[method].train_identity.settings.scorer["sha256"] for method in methods]
    assert len(set(hashes)) == 2
    names = [found[method].train.name for method in methods]
    assert [name[: len("s_my-file_f_")] for name in names] == ["s_my-file_f_"] * 2
    assert made(tmp_path / "alone", methods[:1])[methods[0]].train.name == "s_my-file_f_train"


def test_words_are_counted_in_the_training_data(tmp_path: Path) -> None:
    """With word counts of its own, the validation data would keep other words than those that models have learnt."""
    data = made(tmp_path, ["tfidf"])["tfidf"]
    train, valid = data.train_identity.settings, data.valid_identity.settings
    assert (train.split, valid.split) == ("train", "valid")
    assert train.scorer == valid.scorer


def test_folders_of_another_version(tmp_path: Path) -> None:
    """The file of an arm is that of its data, as far as it is there to be looked at."""
    file = tmp_path / "mine.py"
    method = function(file, 1)
    data = made(tmp_path / "out", [method])[method]
    assert given(tmp_path / "given", method, data)[method].train == data.train
    function(file, 2)
    message = r"method \S+mine.py:f, now mine.py:f of SHA-256 \w{12}, and it was made with mine.py:f of SHA-256 \w{12};"
    with pytest.raises(DataError, match=message):
        given(tmp_path / "given", method, data)
    file.unlink()
    assert given(tmp_path / "given", method, data)[method].train == data.train


def test_folders_that_are_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(tmp_path / "out", ["random"])["random"]
    train, valid = (str(folder.relative_to(tmp_path)) for folder in (data.train, data.valid))
    study = of_methods(["random"], folders=[{"method": "random", "train": train, "valid": valid}])
    monkeypatch.chdir(tmp_path)
    assert study_data(study, StudyFolder(tmp_path / "given"), StudyCallbacks())["random"].train == Path(train)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    message = (
        f"gives {train}, and there is no such folder, looked for from {elsewhere}: begin where the study was begun, or"
    )
    with pytest.raises(DataError, match=message):
        study_data(study, StudyFolder(tmp_path / "given"), StudyCallbacks())
    study = of_methods(["random"], folders=[{"method": "random", "train": str(data.train), "valid": "/nowhere/x"}])
    with pytest.raises(DataError, match="gives /nowhere/x, and there is no such folder; give one that"):
        study_data(study, StudyFolder(tmp_path / "given"), StudyCallbacks())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "corpus.dataset is wikitext2 and neither corpus.tokenizer (a file, a folder or a hub id) nor"),
        ({"train_tokenizer": 256}, "corpus.train_tokenizer is 256; it must be at least 257, all bytes and an end"),
        (
            {"tokenizer": "gpt2", "train_tokenizer": 4096},
            "corpus.tokenizer is gpt2 and corpus.train_tokenizer 4096; give one of them",
        ),
        ({"tokenizer": "gpt2", "num_documents": 0}, "corpus.num_documents is 0; it must be at least 1, or null for"),
    ],
)
def test_a_corpus_that_cannot_be_preprocessed(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_sound_corpus(CorpusSettings(dataset="wikitext2", **settings))  # type: ignore[arg-type]
