import errno
import gzip
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
from cascaded_dllm.text.rows import BadRecordError


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


BAD_LINES = (
    b'{"text": "One"}\n{"text": \n["Two"]\ncaf\xe9\n{"text": 3, "id": "x"}\n{"body": "Six"}\n{"text": "Seven"}\n'
)


def test_bad_records_of_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(BAD_LINES)
    with pytest.raises(DataError, match=r"a\.jsonl line 2 is not JSON"):
        list(LocalFiles(path).records(Part()))
    expected = [
        Document("a.jsonl:0", "One"),
        Dropped("a.jsonl:1", "not JSON", 9),
        Dropped("a.jsonl:2", "not an object", 7),
        Dropped("a.jsonl:3", "not UTF-8", 4),
        Dropped("a.jsonl:4", "text not a string", 0),
        Dropped("a.jsonl:5", "no text field", 0),
        Document("a.jsonl:6", "Seven"),
    ]
    corpus = open_corpus(str(path), split="train", bad_records="drop")
    assert list(corpus.part(0, 1)) == expected
    # Whatever is wrong with a record, it has its number.
    assert [list(corpus.part(index, 3)) for index in range(3)] == [expected[index::3] for index in range(3)]
    assert list(corpus.dealt(3)) == [(number % 3, record) for number, record in enumerate(expected)]
    assert corpus.first(4).source["bad_records"] == "drop"
    assert corpus.hint() is None


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (
            "line",
            [
                Document("a.txt:0", "One"),
                Dropped("a.txt:1", "not UTF-8", 4),
                Document("a.txt:2", "Three"),
                Dropped("a.txt:3", "empty", 0),
                Document("a.txt:4", "Four"),
            ],
        ),
        ("paragraph", [Dropped("a.txt:0", "not UTF-8", 14), Document("a.txt:1", "Four")]),
        ("file", [Dropped("a.txt:0", "not UTF-8", 20)]),
    ],
)
def test_bad_records_of_txt(tmp_path: Path, unit: Unit, expected: list[Document | Dropped]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"One\ncaf\xe9\nThree\n\nFour\n")
    files = LocalFiles(path, unit=unit, bad_records="drop")
    assert list(files.records(Part())) == expected
    assert files.hint() is None
    for read in (lambda: list(LocalFiles(path, unit=unit).records(Part())), lambda: LocalFiles(path).hint()):
        with pytest.raises(DataError, match=r"a\.txt line 2 is not UTF-8 at byte 7 \(0xe9\)"):
            read()


def test_bad_lines_of_an_article(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b" = A = \n\n One . \n caf\xe9 \n Two . \n")
    files = LocalFiles(tmp_path, unit="line", form="wikitext", bad_records="drop")
    assert [(type(record), record.id) for record in files.records(Part())] == [
        (Dropped, "a.txt:0"),
        (Dropped, "a.txt:3"),
        (Document, "a.txt:0"),
    ]


def test_what_is_wrong_with_a_file_is_no_fault_of_a_record(tmp_path: Path) -> None:
    faults = {
        "binary.jsonl": (b'{"text": "One"}\nPK\x00\n', "line 2 has a NUL byte at byte 18"),
        "short.jsonl.gz": (gzip.compress(b'{"text": "One"}\n' * 99)[:-9], "cannot be read to its end"),
        "no.jsonl": (b"a,b\n1,2\n" * 999, r"none of 1,000 lines checked can be read; the first error: .*line 1 is not"),
        "field.jsonl": (b'{"body": "One"}\n{\n', r"line 1 has no field 'text'; its fields are 'body'"),
    }
    for name, (content, message) in faults.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            list(LocalFiles(tmp_path / name, bad_records="drop").records(Part()))
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "One"}')
    files = LocalFiles(tmp_path / "[ab].*", bad_records="drop")
    with pytest.raises(DataError, match=r"a\.parquet row 0 has a int in the field 'text', not a string"):
        list(files.records(Part()))


def test_bad_records_are_a_part_of_the_source_where_they_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "One")
    assert "bad_records" not in LocalFiles(path).source()
    assert LocalFiles(path, bad_records="drop").source() == LocalFiles(path).source() | {"bad_records": "drop"}


def test_a_fault_of_a_record_comes_back_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(BadRecordError("line 1", reason="not JSON", characters=7)))
    assert (str(error), error.reason, error.characters) == ("line 1", "not JSON", 7)


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


@pytest.mark.parametrize("pattern", ["**/*.txt", "**", "*/*.txt", "l*/*.txt"])
def test_pattern_that_reaches_into_a_folder_that_may_not_be_read(
    visible: Path, pattern: str, request: pytest.FixtureRequest
) -> None:
    """Its files would be missing, and nobody would know."""
    for name in ("open", "locked", ".hidden"):
        (visible / name).mkdir()
        write(visible / name / "a.txt", name)
    for name in ("locked", ".hidden"):
        (visible / name).chmod(0)
    request.getfixturevalue("without_rights")
    with pytest.raises(DataError, match="locked" + NO_RIGHTS):
        LocalFiles(visible / pattern).files()
    assert LocalFiles(visible / "o*/*.txt").files() == [visible / "open" / "a.txt"]


def test_wrong_field_beside_a_text_file(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One")
    write(tmp_path / "b.jsonl", '{"body": "Two"}')
    with pytest.raises(DataError, match=r"b.jsonl line 1 has no field 'text'; its fields are 'body'"):
        list(LocalFiles(tmp_path).records(Part()))
    assert [document.id for document in LocalFiles(tmp_path, text_field="body").records(Part())] == [
        "a.txt:0",
        "b.jsonl:0",
    ]


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
            "all 2 lines of b.txt are one document, as no blank line separates them; --unit line",
        ),
        ("One.\n" * (HINT_LINES + 1) + "\nTwo", "paragraph", "the first 1,000 lines of b.txt are one document"),
        ("One.\n\nTwo.\n", "paragraph", None),
        ("One.\n", "paragraph", None),
        ("One.\nTwo.\n", "line", None),
        (
            "\n = A title = \n\nOne.\n",
            "paragraph",
            "b.txt has headings like those of WikiText, such as '= A title =', which",
        ),
        ("= A title =\nOne.\n", "line", "b.txt has headings like those of WikiText"),
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


def test_name_that_is_no_text(tmp_path):
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.txt"))
    try:
        path.write_text("a text\n")
    except OSError:
        pytest.skip("the file system takes no such name")
    with pytest.raises(DataError, match=r"the name of the file '.*\\udcff\.txt' is not UTF-8; rename it"):
        open_corpus(str(tmp_path), split="train")


def test_json_lines_with_txt_in_their_name_are_no_text(tmp_path):
    (tmp_path / "a.txt.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert open_corpus(str(tmp_path / "a.txt.jsonl"), split="train").hint() is None
