import errno
import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.local import Unit
from cascaded_dllm.text.local_files import HINT_LINES, LocalFiles


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def test_what_is_blank_is_dropped(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "One"}\n \n{"text": "\\t\\n"}\n{"text": "Two"}')
    expected = [
        Document("a.jsonl:0", "One"),
        Dropped("a.jsonl:1", "empty", 1),
        Dropped("a.jsonl:2", "empty", 2),
        Document("a.jsonl:3", "Two"),
    ]
    assert list(LocalFiles(tmp_path).records(Part())) == expected
    lines = write(tmp_path / "b.txt", "One\n\n \nTwo\n")
    assert list(LocalFiles(lines, unit="line").records(Part()))[1:3] == [
        Dropped("b.txt:1", "empty", 0),
        Dropped("b.txt:2", "empty", 1),
    ]
    assert list(LocalFiles(write(tmp_path / "c.txt", " \n"), unit="file").records(Part())) == [
        Dropped("c.txt:0", "empty", 2)
    ]


def test_lines_of_other_parts_are_not_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "One"}\nnot JSON\n')
    assert list(LocalFiles(path).records(Part(0, 2))) == [Document("a.jsonl:0", "One")]
    assert list(LocalFiles(path).records(Part(stop=1))) == [Document("a.jsonl:0", "One")]


def test_files_of_other_parts_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert list(LocalFiles(tmp_path, unit="file").records(Part(0, 2))) == [Document("a.txt:0", "One")]


def test_lines_of_wikitext_may_be_rows_of_any_file(tmp_path: Path) -> None:
    lines = ["", " = A = \n", "", " One , two . \n", "", " = B = \n", ""]
    write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": line}) for line in lines))
    pq.write_table(pa.table({"text": [" \n", " Three . \n"]}), tmp_path / "b.parquet")
    found = [record for record in LocalFiles(tmp_path, form="wikitext").records(Part()) if isinstance(record, Document)]
    assert found == [Document("a.jsonl:1", "One, two."), Document("a.jsonl:5", "Three.")]


def test_source_names_no_folder(tmp_path: Path) -> None:
    text = write(tmp_path / "b.txt", "One")
    write(tmp_path / "a.jsonl", "{}")
    files = LocalFiles(tmp_path, text_field="body", unit="line", form="ptb")
    assert files.source() == {
        "kind": "files",
        "files": [
            {"name": "a.jsonl", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
            {"name": "b.txt", "bytes": 3, "sha256": hashlib.sha256(b"One").hexdigest()},
        ],
        "text_field": "body",
        "unit": "line",
        "form": {"name": "ptb", "version": 1},
    }
    # What has no influence on a single file is left out, so that it does not make the data another one.
    assert LocalFiles(text, text_field="body").source() == LocalFiles(text).source()
    before = LocalFiles(text).source()
    write(text, "Two")
    os.utime(text, ns=(1, 1))
    assert LocalFiles(text).source() != before


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    files = LocalFiles(write(tmp_path / "a.txt", "One\n\nTwo"))
    assert list(pickle.loads(pickle.dumps(files)).records(Part())) == list(files.records(Part()))


NO_RIGHTS = r" cannot be read \(Permission denied\); check that you have the right to read it, and the disk or network"


@pytest.fixture
def without_rights() -> Iterator[None]:
    """As a user to whom rights apply."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def visible() -> Iterator[Path]:
    """A folder that any user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.xz", "a.parquet"])
def test_file_that_may_not_be_read(visible: Path, name: str, request: pytest.FixtureRequest) -> None:
    path = write(visible / name, '{"text": "One"}')
    path.chmod(0)
    request.getfixturevalue("without_rights")
    for read in (lambda: next(LocalFiles(path).records(Part())), LocalFiles(path).source):
        with pytest.raises(DataError, match=name.replace(".", r"\.") + NO_RIGHTS):
            read()
    # A folder is read past none of its files.
    with pytest.raises(DataError, match=name.replace(".", r"\.") + NO_RIGHTS):
        list(LocalFiles(visible).records(Part()))


def test_folder_that_may_not_be_read(visible: Path, request: pytest.FixtureRequest) -> None:
    folder = visible / "data"
    folder.mkdir()
    write(folder / "a.txt", "One")
    folder.chmod(0)
    request.getfixturevalue("without_rights")
    with pytest.raises(DataError, match="data" + NO_RIGHTS):
        open_corpus(str(folder), split="train")
    with pytest.raises(DataError, match="a.txt" + NO_RIGHTS):
        open_corpus(str(folder / "a.txt"), split="train")
    with pytest.raises(DataError, match=r"x cannot be read \(File name too long\)"):
        open_corpus("x" * 300, split="train")


def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "One")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    for read in (lambda: next(LocalFiles(path).records(Part())), LocalFiles(path).source):
        with pytest.raises(
            DataError, match=r"a\.txt cannot be read \(Input/output error\); check that you have the rig"
        ):
            read()


def test_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"b\.txt cannot be read \(No such file or directory\)"):
        LocalFiles(tmp_path).files()


@pytest.mark.parametrize(
    ("content", "unit", "hint"),
    [
        (
            "One.\nTwo.\n",
            "paragraph",
            "all 2 lines of b.txt are one document, as no blank line parts them; --unit line",
        ),
        ("One.\n" * (HINT_LINES + 1) + "\nTwo", "paragraph", "the first 1,000 lines of b.txt are one document"),
        ("One.\n\nTwo.\n", "paragraph", None),
        ("One.\n", "paragraph", None),
        ("One.\nTwo.\n", "line", None),
        (
            "\n = A title = \n\nOne.\n",
            "paragraph",
            "b.txt has headings like WikiText, '= A title =', which",
        ),
        ("= A title =\nOne.\n", "line", "b.txt has headings like WikiText"),
        ("a = b = c\n\n= = Section = =\n\n= =\n", "paragraph", None),
        ("= A title =\n", "file", None),
    ],
)
def test_hint(tmp_path: Path, content: str, unit: Unit, hint: str | None) -> None:
    write(tmp_path / "a.jsonl", '{"text": "One"}')
    assert LocalFiles(tmp_path, unit=unit).hint() is None
    write(tmp_path / "b.txt", content)
    found = LocalFiles(tmp_path, unit=unit).hint()
    assert (found or "").startswith(hint or "")
    assert (found is None) is (hint is None)
