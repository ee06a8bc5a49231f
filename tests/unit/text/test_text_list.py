import gzip
import re

import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.text.listing import listing
from cascaded_dllm.text.text_list import read_text_list


def test_a_line_is_a_text(tmp_path):
    """Blank ones too, so that the number of texts is that of the lines; a line need not end."""
    path = tmp_path / "texts.txt"
    path.write_text("one two\n\nthree", encoding="utf-8")
    assert read_text_list(path) == ["one two", "", "three"]
    with gzip.open(tmp_path / "texts.txt.gz", "wt", encoding="utf-8") as file:
        file.write("nächst\n")
    assert read_text_list(tmp_path / "texts.txt.gz") == ["nächst"]


def test_a_listing_has_texts_of_several_lines(tmp_path):
    path = tmp_path / "sample_stage2.txt"
    texts = ["one\n\ntwo", "", "three"]
    path.write_text(listing(texts), encoding="utf-8")
    assert read_text_list(path) == texts


def test_a_listing_keeps_the_carriage_returns_of_its_texts(tmp_path):
    """Unless all lines end in one, as in an editor of Windows."""
    path = tmp_path / "sample_stage2.txt"
    texts = ["one\r\ntwo\rthree\r", "\r", "four"]
    path.write_bytes(listing(texts).encode())
    assert read_text_list(path) == texts
    path.write_bytes(listing(["one\ntwo\rthree", ""]).replace("\n", "\r\n").encode())
    assert read_text_list(path) == ["one\ntwo\rthree", ""]


def test_a_listing_with_a_nul(tmp_path):
    """A network that has learnt little writes every byte; the ids of the run are whole."""
    path = tmp_path / "sample_stage2.txt"
    path.write_text(listing(["one\0two"]), encoding="utf-8")
    with pytest.raises(DataError, match=r"NUL byte at byte 3; .* that cdllm sample wrote by the folder of the run"):
        read_text_list(path)


def test_a_paragraph_is_a_text_where_that_is_asked(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text(f"one\ntwo\n\n{'=' * 80}\n\nthree\n", encoding="utf-8")
    assert read_text_list(path, "paragraph") == ["one\ntwo", "=" * 80, "three"]
    assert read_text_list(path, "file") == [path.read_text()]


def test_json_lines(tmp_path):
    """A text may hold line ends there, and a line of separators is a text like any other."""
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a\\nb", "id": 7}\n{"text": ""}\n' + f'{{"text": "{"=" * 80}"}}\n', encoding="utf-8")
    assert read_text_list(path) == ["a\nb", "", "=" * 80]


def test_a_row_without_a_text(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n{"text": null}\n')
    with pytest.raises(DataError, match=r"texts.jsonl:1 has no text to measure \(null text\); write one, or remove"):
        read_text_list(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", r"empty.txt is empty \(0 bytes\); give a file with text"),
        ("latin.txt", b"one\ncaf\xe9\n", r"latin.txt line 2 is not UTF-8 at byte 7 \(0xe9\); convert"),
        ("texts.md", b"one", r"texts.md is of an unknown kind; it must end in one of .txt, "),
        ("texts.jsonl", b'{"words": "a"}\n', r"has no field 'text'; its fields are 'words'"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text_list(tmp_path / name)


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.txt"):
        with pytest.raises(
            DataError, match=rf"{re.escape(str(path))} is not a file; give a text file with one text a line"
        ):
            read_text_list(path)
