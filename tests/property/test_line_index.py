"""Who finds lines by an index reads what everybody reads: the same records, and the same errors."""

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError
from cascaded_dllm.text import line_index, lines
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped, Holdout
from cascaded_dllm.text.line_index import LineNotes
from cascaded_dllm.text.local_files import LocalFiles

LONG_AGO = 10**18
GOOD = [
    b'{"text": "One"}',
    b'{"text": "Two", "id": "b"}',
    '{"text": "n\u00e4\u2028ive"}'.encode(),
    b'{"text": "' + b"x" * 99 + b'"}',
]
BLANK = [b"", b"  ", b"\xe3\x80\x80", b'{"text": null}', b'{"other": 1}', b'{"text": ""}']
BAD = [b"{", b"[]", b'{"text": 3}', b"\xff{}", b"\0"]
LINES = st.lists(
    st.tuples(st.sampled_from([*GOOD, *BLANK, *BAD, *GOOD]), st.sampled_from([b"\n", b"\r\n"])), min_size=1, max_size=40
)
FILES = st.lists(st.tuples(LINES, st.booleans()), min_size=1, max_size=3)


@pytest.fixture(scope="module", autouse=True)
def _small_files() -> Iterator[None]:
    """What is far in a large file is far in these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_BINARY_WITHIN_BYTES", 20)
        patch.setattr(line_index, "_WORTH_BYTES", 0)
        patch.setattr(line_index, "_SPACING_BYTES", 30)
        patch.setattr(line_index, "_LEAST_BYTES", 0)
        yield


def found(corpus: Corpus, index: int, num_parts: int) -> tuple[list[Document | Dropped], str]:
    """The records of a part, up to an error, and what that says."""
    records: list[Document | Dropped] = []
    try:
        for record in corpus.part(index, num_parts):
            records.append(record)
    except DataError as error:
        return records, str(error)
    return records, ""


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


@given(
    FILES,
    st.sampled_from([".jsonl", ".json", ".txt"]),
    st.sampled_from(["refuse", "drop"]),
    st.integers(2, 7),
    st.none() | st.integers(1, 60),
    st.none() | st.builds(Holdout, st.integers(2, 4), st.booleans()),
)
@example([([(GOOD[0], b"\n")] * 200, False)], ".jsonl", "refuse", 5, None, None)
@example([([(GOOD[3], b"\r\n")] * 9 + [(BAD[0], b"\n")], True)] * 2, ".txt", "refuse", 4, 15, Holdout(3, False))
@example([([(b"x", b"\n"), (b"\0", b"\n"), *[(GOOD[3], b"\n")] * 9], True)], ".txt", "refuse", 5, None, None)
def test_records_are_the_same(
    files: Sequence[tuple[Sequence[tuple[bytes, bytes]], bool]],
    suffix: str,
    bad_records: Literal["refuse", "drop"],
    num_parts: int,
    stop: int | None,
    holdout: Holdout | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, (content, is_ended) in enumerate(files):
            whole = b"".join(line + end for line, end in content)
            write(Path(folder, f"{number}{suffix}"), (whole if is_ended else whole.rstrip(b"\r\n")) or b"x")
        plain = Corpus("a", LocalFiles(Path(folder), unit="line", bad_records=bad_records), stop, holdout)
        with tempfile.TemporaryDirectory() as prepared:
            indexed = plain.with_indexes(Path(prepared, "lines"))
            # Noted when they are hashed, which they are only once.
            assert indexed.source == plain.source
            indexed.keep_indexes(num_parts)
            reader = indexed.reader
            assert isinstance(reader, LocalFiles)
            assert len(reader._kept_indexes(reader.files())) == len(files)
            for index in range(num_parts):
                assert found(indexed, index, num_parts) == found(plain, index, num_parts)
            everything = dataclasses.replace(plain, num_records=None, holdout=None)
            records, error = found(everything, 0, 1)
            if not error:
                assert reader.num_rows() == len(records)


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_every_part_finds_that_a_file_is_binary(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", b"\n" + GOOD[0] + b"\n\0\n" + (GOOD[3] + b"\n") * 50)
    plain = Corpus("a", LocalFiles(tmp_path, unit="line"))
    indexed = plain.with_indexes(tmp_path.parent / f"lines{suffix}")
    assert indexed.source
    indexed.keep_indexes(9)
    for index, corpus in itertools.product(range(9), (plain, indexed)):
        assert "line 3 has a NUL byte at byte 17" in found(corpus, index, 9)[1]


@given(st.lists(st.binary(max_size=50), max_size=60), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_places_are_those_of_lines(pieces: list[bytes], sizes: list[int]) -> None:
    content = b"\n".join(pieces) or b"x"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes(content)
        with path.open("rb") as stream:
            notes = LineNotes(stream)
            for size in itertools.cycle(sizes):
                if not notes.readinto(bytearray(size)):
                    break
    index = notes.index()
    begins = list(itertools.accumulate(map(len, _lines(content)), initial=0))
    assert (index.num_lines, index.num_bytes) == (len(begins) - 1, len(content))
    for number, begin in index.places.T.tolist():
        assert begins[number] == begin
    for line in range(len(begins) - 1):
        number, begin = index.before(line)
        assert number <= line
        assert begins[line] - begin < 30 + 51
    assert index.before(len(begins) + 5) == (len(begins) - 1, len(content))
    assert index.places.dtype == np.uint64
    # To search numbers that are apart would copy them all, every time.
    assert index.places.flags.c_contiguous


def _lines(content: bytes) -> list[bytes]:
    pieces = content.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + [pieces[-1]] * bool(pieces[-1])
