import gzip
import json
import lzma
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.local import Unit
from cascaded_dllm.text.local_files import ROWS_LOOKED_AT, LocalFiles
from cascaded_dllm.text.parquet_rows import BATCH_ROWS


def zst(plain: bytes) -> bytes:
    """Two frames, as tools that compress on several threads write them."""
    half = len(plain) // 2
    codec = pa.Codec("zstd")
    return codec.compress(plain[:half], asbytes=True) + codec.compress(plain[half:], asbytes=True)


COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zst}
EACH_COMPRESSION = pytest.mark.parametrize("suffix", COMPRESSIONS)


def write(path: Path, content: str | bytes) -> Path:
    """A file with this content, compressed as its suffix says."""
    plain = content.encode() if isinstance(content, str) else content
    compress: Callable[[bytes], bytes] = COMPRESSIONS.get(path.suffix, bytes)
    path.write_bytes(compress(plain))
    return path


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=10)
    return path


def documents(path: Path, *, text_field: str = "text", unit: Unit = "paragraph") -> Iterator[Document]:
    return Corpus(path.name, LocalFiles(path, text_field, unit)).documents()


def records(path: Path) -> list[Document | Dropped]:
    return list(LocalFiles(path).records(Part()))


def texts(path: Path, *, text_field: str = "text", unit: Unit = "paragraph") -> list[str]:
    return [document.text for document in documents(path, text_field=text_field, unit=unit)]


@EACH_COMPRESSION
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("paragraph", ["  One\ntwo.", "Three."]),
        ("line", ["  One", "two.", "Three."]),
        ("file", ["\n  One\ntwo.\n \t\n\nThree.\n"]),
    ],
)
def test_txt_units(tmp_path: Path, suffix: str, unit: Unit, expected: list[str]) -> None:
    path = write(tmp_path / f"a.txt{suffix}", "\n  One\ntwo.\n \t\n\nThree.\n")
    assert texts(path, unit=unit) == expected


def test_txt_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "One.\n\n\nTwo.")
    assert list(documents(path)) == [Document("a.txt:0", "One."), Document("a.txt:1", "Two.")]
    assert [document.id for document in documents(path, unit="line")] == ["a.txt:0", "a.txt:3"]


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.TXT", "\ufeffOne\r\ntwo\u2028three\x0bfour\r\n\r\nFive\ufeff.")
    assert texts(path) == ["One\r\ntwo\u2028three\x0bfour", "Five\ufeff."]


@EACH_COMPRESSION
def test_jsonl(tmp_path: Path, suffix: str) -> None:
    lines = [
        '{"text": "One", "id": "first"}',
        "",
        '{"text": "Two\\n\\ntwo", "id": null}',
        '{"text": " "}',
        '{"text":"3"}',
    ]
    path = write(tmp_path / f"a.jsonl{suffix}", "\n".join(lines))
    name = path.name
    expected = [Document("first", "One"), Document(f"{name}:2", "Two\n\ntwo"), Document(f"{name}:4", "3")]
    assert list(documents(path)) == expected


def test_jsonl_text_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "One", "text": 1, "id": 7}')
    assert list(documents(path, text_field="body")) == [Document("7", "One")]


def test_parquet(tmp_path: Path) -> None:
    num = BATCH_ROWS + 5
    path = write_parquet(tmp_path / "a.parquet", body=[f"Text {index}" for index in range(num)], other=[0] * num)
    assert list(documents(path, text_field="body")) == [
        Document(f"a.parquet:{index}", f"Text {index}") for index in range(num)
    ]


def test_parquet_with_ids_and_blanks(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=["One", " ", "Two", "Three"], id=["x", "y", None, "z"])
    expected = [Document("x", "One"), Document("a.parquet:2", "Two"), Document("z", "Three")]
    assert list(documents(path)) == expected
    assert texts(write_parquet(tmp_path / "b.parquet", id=["One"]), text_field="id") == ["One"]


def test_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl.gz", '{"text": "Two"}')
    write(tmp_path / "a.txt", "One")
    write_parquet(tmp_path / "c.parquet", text=["Three"])
    write(tmp_path / ".hidden", "no text")
    (tmp_path / ".folder").mkdir()
    assert texts(tmp_path) == ["One", "Two", "Three"]


def test_folder_inside_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "One")
    (tmp_path / "z").mkdir()
    with pytest.raises(DataError, match=rf"holds the folder z; give a pattern, {re.escape(str(tmp_path))}/\* for"):
        texts(tmp_path)


def test_pattern(tmp_path: Path) -> None:
    """Files are called by the way to them from where the pattern begins, so that no two are called the same."""
    for name, text in {"a.txt": "One", "z/a.txt": "Two", "z/b.txt": "Three", "z/.c.txt": "-", ".y/a.txt": "-"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text)
    write(tmp_path / "readme.md", "-")
    found = {
        pattern: [(document.id, document.text) for document in documents(tmp_path / pattern)]
        for pattern in ("*.txt", "**/*.txt", "*/[ab].txt", "z/?.txt")
    }
    one, two, three = ("a.txt:0", "One"), ("z/a.txt:0", "Two"), ("z/b.txt:0", "Three")
    assert found == {
        "*.txt": [one],
        "**/*.txt": [one, two, three],
        "*/[ab].txt": [two, three],
        "z/?.txt": [("a.txt:0", "Two"), ("b.txt:0", "Three")],
    }
    assert LocalFiles(tmp_path / "*.txt").source() == LocalFiles(tmp_path / "a.txt").source()
    names = [file["name"] for file in LocalFiles(tmp_path / "**/*.txt").source()["files"]]  # type: ignore[attr-defined]
    assert names == ["a.txt", "z/a.txt", "z/b.txt"]
    assert texts(tmp_path / "z" / "**") == ["Two", "Three"]
    with pytest.raises(DataError, match=r"has a\*\*\.txt; \*\* must stand between two slashes"):
        texts(tmp_path / "a**.txt")
    with pytest.raises(DataError, match=r"no file matches .*/\*\.jsonl; check the pattern"):
        texts(tmp_path / "*.jsonl")


def test_link_to_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "a.txt", "One")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    with pytest.raises(DataError, match=r"linked is a link to a folder, which \*\* does not follow"):
        texts(tmp_path / "**" / "*.txt")
    assert texts(tmp_path / "*" / "*.txt") == ["One", "One"]


def test_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "all [old]"
    folder.mkdir()
    write(folder / "what?.txt", "One")
    write(folder / "what2.txt", "Two")
    assert sorted(texts(folder)) == ["One", "Two"]
    assert texts(folder / "what?.txt") == ["One"]
    assert texts(folder / "*2.txt") == ["Two"]
    assert LocalFiles(folder / "what?.txt").source() != LocalFiles(folder / "what2.txt").source()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("z.csv", "a,b", r"z\.csv is of an unknown kind"), ("z.txt", "", r"z\.txt is empty \(0 bytes\)")],
)
def test_every_file_of_a_folder_is_checked_before_the_first_is_read(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    write(tmp_path / "a.txt", "One")
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        next(documents(tmp_path))


def test_nothing_is_read_ahead(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "One"}\n{"text": "Two"}\nbroken')
    stream = documents(path)
    assert next(stream).text == "One"
    assert next(stream).text == "Two"
    with pytest.raises(DataError, match=r"a\.jsonl line 3 is not JSON \(.*\); repair or remove the line"):
        next(stream)


@EACH_COMPRESSION
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str, suffix: str) -> None:
    line = {"txt": "x" * 39_998 + "\n\n", "jsonl": json.dumps({"text": "x" * 39_980}) + "\n"}[kind]
    path = write(tmp_path / f"a.{kind}{suffix}", line * 400)
    tracemalloc.start()
    assert sum(1 for _ in documents(path)) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (10_000_000 if suffix == ".xz" else 1_000_000)  # Of 16 MB; xz itself needs its dictionary of 8 MB.


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file or folder .*nowhere\.txt; check the name"):
        texts(tmp_path / "nowhere.txt")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 0 files; put at least one of \.txt"):
        texts(tmp_path)


@pytest.mark.parametrize("name", ["a.md", "txt", "a.parquet.gz", "a.gz"])
def test_unknown_kind(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} is of an unknown kind; it must end in one of \.txt, \.txt\.gz"):
        texts(write(tmp_path / name, "One"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.txt.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"{name} is empty \(0 bytes\)"):
        texts(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [("a.txt", " \n\n"), ("a.jsonl", '{"text": ""}'), ("a.txt.gz", "")])
def test_only_blank_documents(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match="holds 0 documents that are not blank; give one with text in it"):
        texts(write(tmp_path / name, content))


@pytest.mark.parametrize("broken", ['{"text": "One"', "{'text': 1}", "[" * 100_000])
def test_broken_jsonl_line(tmp_path: Path, broken: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl line 2 is not JSON"):
        texts(write(tmp_path / "a.jsonl", f'{{"text": "One"}}\n{broken}\n'))


def test_jsonl_line_that_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl line 1 is a list, not an object; write \{'text': \.\.\.\}"):
        texts(write(tmp_path / "a.jsonl", '["One"]'))


def test_text_field_that_no_row_has_lists_the_fields(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 has no field 'text'; its fields are 'body', 'id': choose one"):
        texts(write(tmp_path / "a.jsonl", '{"body": "One", "id": 1}'))
    with pytest.raises(DataError, match=r"line 1 has no field 'text'; its fields are none"):
        texts(write(tmp_path / "a.jsonl", "{}"))
    with pytest.raises(DataError, match=r"a\.parquet has no field 'text'; its fields are 'body'"):
        texts(write_parquet(tmp_path / "a.parquet", body=["One"]))
    lines = ["", '{"body": "One"}', '{"content": 1}', '{"body": null, "id": 3}']
    with pytest.raises(
        DataError,
        match=r"line 2 has no field 'text', nor has any of the 2 other rows .*; their fields are 'body', 'content',",
    ):
        texts(write(tmp_path / "a.jsonl", "\n".join(lines)))


def test_wrong_text_field_is_found_out_early(tmp_path: Path) -> None:
    """A corpus of a year is not read to its end before the user is told."""
    write(tmp_path / "a.jsonl", '{"body": "One"}\n' * ROWS_LOOKED_AT + "broken")
    with pytest.raises(DataError, match="line 1 has no field 'text', nor has any of the 999 other rows checked"):
        texts(tmp_path / "a.jsonl")
    write(tmp_path / "a.jsonl", '{"body": "One"}\n' * (ROWS_LOOKED_AT - 1) + '{"text": "Two"}')
    assert texts(tmp_path / "a.jsonl") == ["Two"]


def test_rows_without_text_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = [
        '{"text": null, "id": "n"}',
        '{"text": "One"}',
        '{"body": "other"}',
        '{"text": "x\\ud83d"}',
        '{"text": ""}',
        '{"id": "\\udc00", "text": "Two"}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    assert records(path) == [
        Dropped("n", "null text", 0),
        Document("a.jsonl:1", "One"),
        Dropped("a.jsonl:2", "no text field", 0),
        Dropped("a.jsonl:3", "lone surrogate", 2),
        Dropped("a.jsonl:4", "empty", 0),
        # A name that cannot be written is no reason to lose a text.
        Document("a.jsonl:5", "Two"),
    ]
    path = write_parquet(tmp_path / "a.parquet", text=["One", None, "Two"], id=["x", "y", None])
    assert records(path) == [Document("x", "One"), Dropped("y", "null text", 0), Document("a.parquet:2", "Two")]
    assert records(write_parquet(tmp_path / "b.parquet", text=pa.nulls(2))) == [
        Dropped("b.parquet:0", "null text", 0),
        Dropped("b.parquet:1", "null text", 0),
    ]


def test_files_of_a_folder_that_lack_the_field(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"body": "One"}')
    write_parquet(tmp_path / "b.parquet", body=["One", "Two"])
    write_parquet(tmp_path / "c.parquet", body=["One"], id=["c"])
    with pytest.raises(DataError, match=r"a\.jsonl line 1 has no field 'text', nor has any of the 2 other rows"):
        records(tmp_path)
    write_parquet(tmp_path / "d.parquet", text=["Three"])
    assert records(tmp_path) == [
        Dropped("a.jsonl:0", "no text field", 0),
        Dropped("b.parquet:0", "no text field", 0),
        Dropped("b.parquet:1", "no text field", 0),
        Dropped("c", "no text field", 0),
        Document("d.parquet:0", "Three"),
    ]


def test_corpus_of_dropped_rows_says_what_was_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": null}\n{"text": null}\n{"text": " "}\n')
    with pytest.raises(DataError, match=r"holds 0 documents .* \(its records were dropped: 1 empty, 2 null text\)"):
        texts(path)


def test_text_that_is_no_string(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl line 2 has a int in the field 'text', not a string"):
        texts(write(tmp_path / "a.jsonl", '{"text": null}\n{"text": 1}'))
    with pytest.raises(DataError, match=r"a\.jsonl line 1 has a list in the field 'text', not a string"):
        texts(write(tmp_path / "a.jsonl", '{"text": ["One"]}'))
    with pytest.raises(DataError, match=r"a\.parquet row 1 has a float in the field 'text', not a string"):
        texts(write_parquet(tmp_path / "a.parquet", text=[None, 1.5]))


@EACH_COMPRESSION
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_not_utf8(tmp_path: Path, kind: str, suffix: str) -> None:
    path = write(tmp_path / f"a.{kind}{suffix}", b'{"text": "One"}\n{"text": "caf' + b'\xe9"}\n')
    with pytest.raises(DataError, match=r"line 2 is not UTF-8 at byte 29 \(0xe9\); convert the file to UTF-8"):
        texts(path, unit="line")


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_binary(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"line 2 has a NUL byte at byte 6; give UTF-8 text, not a binary file"):
        texts(write(tmp_path / f"a.{kind}", b"\x20\x20\x20\n  \0\x7f"))


def test_text_with_a_nul_far_inside_is_no_binary_file(tmp_path: Path) -> None:
    """A job does not end after hours for one character."""
    lines = ["x" * 7999, "One\0two", "\0"]
    assert texts(write(tmp_path / "a.txt", "\n".join(lines)), unit="line") == lines
    with pytest.raises(DataError, match=r"line 1 has a NUL byte at byte 7999"):
        texts(write(tmp_path / "a.txt", "x" * 7999 + "\0"))


def test_every_control_character_of_a_record_is_kept(tmp_path: Path) -> None:
    text = "x" + "".join(map(chr, [*range(32), *range(127, 160), 0x2028, 0xFEFF, 0xFFFE, 0x10FFFF])) + "y"
    assert texts(write(tmp_path / "a.jsonl", json.dumps({"text": text}))) == [text]
    assert texts(write_parquet(tmp_path / "a.parquet", text=[text])) == [text]


@pytest.mark.parametrize("name", ["text", "id"])
def test_two_columns_of_one_name(tmp_path: Path, name: str) -> None:
    columns = [pa.array(["One"]), pa.array(["a"]), pa.array(["b"])]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "id", name]), path)
    with pytest.raises(DataError, match=rf"a.parquet has 2 columns '{name}'; rename or remove all but one of them"):
        texts(path)


def test_whole_surrogate_pair(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.jsonl", '{"text": "x\\ud83d\\ude00"}')) == ["x😀"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("fault", ["truncated", "foreign", "corrupt"])
def test_broken_compression(tmp_path: Path, suffix: str, fault: str) -> None:
    path = write(tmp_path / f"a.txt{suffix}", "".join(f"Line {index}\n\n" for index in range(2_000)))
    content = bytearray(path.read_bytes())
    if fault == "corrupt":
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes({"truncated": content[:-20], "foreign": b"no archive", "corrupt": content}[fault])
    with pytest.raises(
        DataError, match=rf"a\.txt\{suffix} cannot be read to its end \(.*\); write or download it again"
    ):
        texts(path)


@pytest.mark.parametrize("fault", ["truncated", "foreign", "corrupt"])
def test_broken_parquet(tmp_path: Path, fault: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[f"Text {index}" for index in range(5_000)])
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes({"truncated": content[:-20], "foreign": b"no parquet at all", "corrupt": content}[fault])
    with pytest.raises(DataError, match=r"a\.parquet is not a whole parquet file \(.*; write or download it again"):
        texts(path)


@EACH_COMPRESSION
def test_json_with_an_object_a_line(tmp_path: Path, suffix: str) -> None:
    lines = '{"text": "One"}\n{"text": null}\n\n{"text": "[Two]", "id": "t"}\n'
    name = f"c4-train.00000.json{suffix}"
    assert records(write(tmp_path / name, lines)) == [
        Document(f"{name}:0", "One"),
        Dropped(f"{name}:1", "null text", 0),
        Dropped(f"{name}:2", "empty", 0),
        Document("t", "[Two]"),
    ]
    assert LocalFiles(tmp_path).kinds() == {"jsonl"}


@pytest.mark.parametrize("content", ['[{"text": "One"}]', '\ufeff [\n  {"text": "One"}\n]\n'])
def test_json_that_is_one_array(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.json.gz", content)
    for bad_records in ("refuse", "drop"):
        with pytest.raises(DataError, match=r"a\.json\.gz is one JSON array, but each of its lines must be .*jq -c"):
            list(LocalFiles(path, bad_records=bad_records).records(Part()))
    with pytest.raises(DataError, match=r"a\.jsonl line 1 is a list, not an object"):
        records(write(tmp_path / "a.jsonl", '[{"text": "One"}]'))
