"""Readers give back what was written, in every format and compression."""

import gzip
import json
import lzma
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.text.corpora import Corpus
from cascaded_dllm.text.document import Document
from cascaded_dllm.text.local import LocalFiles, Unit

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
DOCUMENTS = st.lists(TEXTS.filter(lambda text: bool(text.strip())), min_size=1, max_size=6)
# What a line holds: no line feed, and no carriage return at its end, which would belong to the line's end.
LINES = st.lists(TEXTS.map(lambda text: text.replace("\n", " ").rstrip("\r")).filter(str.strip), min_size=1, max_size=6)
COMPRESSIONS = st.sampled_from([("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])


def documents(path: Path, unit: Unit = "paragraph") -> Iterator[Document]:
    return Corpus("a", LocalFiles(path, unit=unit)).documents()


@given(DOCUMENTS, COMPRESSIONS, st.booleans())
def test_jsonl(texts: list[str], compression: tuple[str, type[bytes]], is_ascii: bool) -> None:
    suffix, compress = compression
    lines = [json.dumps({"text": text}, ensure_ascii=is_ascii) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.jsonl{suffix}"
        path.write_bytes(compress("\n".join(lines).encode()))
        assert [document.text for document in documents(path)] == texts


@given(DOCUMENTS)
def test_parquet(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(pa.table({"text": texts}), path)
        assert [document.text for document in documents(path)] == texts


@given(LINES, COMPRESSIONS, st.sampled_from(["\n", "\r\n"]))
def test_lines_and_paragraphs(lines: list[str], compression: tuple[str, type[bytes]], line_end: str) -> None:
    suffix, compress = compression
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.txt{suffix}"
        path.write_bytes(compress(("x" + line_end + line_end.join(lines)).encode()))
        assert [document.text for document in documents(path, "line")] == ["x", *lines]
        path.write_bytes(compress(("x" + 2 * line_end + (2 * line_end).join(lines)).encode()))
        assert [document.text for document in documents(path)] == ["x", *lines]
        (whole,) = documents(path, "file")
        assert whole.text == "x" + 2 * line_end + (2 * line_end).join(lines)
