"""Readers give back what was written, in every format and compression, whole and in parts."""

import gzip
import json
import lzma
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus
from cascaded_dllm.text.document import Document, Dropped
from cascaded_dllm.text.forms import FORMS
from cascaded_dllm.text.local_files import LocalFiles

# Everything that a text can hold: letters of every script, emoji, control characters, line ends of every kind.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DOCUMENTS = st.lists(TEXTS, max_size=12)
LONG = ["x" * 200_000, "", "語" * 200_000, "\u200b", "👩‍👩‍👧‍👦 \x07\x1b[0m", "\0", "a\0b"]
# What JSON can say and nobody can write: half of a surrogate pair.
BROKEN = st.tuples(TEXTS, st.characters(categories=["Cs"]), TEXTS).map("".join)
# What a line holds: no line feed, and no carriage return at its end, which would belong to the line's end. A NUL at the
# head of a file makes it a binary one.
LINES = DOCUMENTS.map(lambda texts: [text.translate({0: "?", 10: " "}).rstrip("\r") for text in texts])
COMPRESSIONS = st.sampled_from([("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
Compression = tuple[str, Callable[[bytes], bytes]]
PARTS = st.integers(1, 15)


@contextmanager
def written(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def as_parquet(texts: Sequence[str | None], row_group_size: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), sink, row_group_size=row_group_size)
    return bytes(sink.getvalue())


def records(path: Path, num_parts: int, unit: str | None = None, form: str | None = None) -> list[Document | Dropped]:
    """All records, after a check that any number of parts gives each of them once and in order."""
    corpus = open_corpus(str(path), split="train", unit=unit, form=form)
    whole = list(corpus.part(0, 1))
    parts = [list(corpus.part(index, num_parts)) for index in range(num_parts)]
    assert sum(map(len, parts)) == len(whole)
    dealt = list(corpus.dealt(num_parts))
    assert [record for _, record in dealt] == whole
    assert [[record for part, record in dealt if part == index] for index in range(num_parts)] == parts
    if form != "wikitext":  # There, an article also brings its headings.
        assert [parts[number % num_parts][number // num_parts] for number in range(len(whole))] == whole
        for num in (1, len(whole) // 2, len(whole) + 1):
            if num:
                assert list(corpus.first(num).part(0, 1)) == whole[:num]
                assert list(corpus.first(num).part(num_parts - 1, num_parts)) == whole[:num][num_parts - 1 :: num_parts]
    return whole


def expected(texts: Sequence[str | None], name: str) -> list[Document | Dropped]:
    return [
        Dropped(f"{name}:{index}", "null text", 0)
        if text is None
        else Document(f"{name}:{index}", text)
        if text.strip()
        else Dropped(f"{name}:{index}", "empty", len(text))
        for index, text in enumerate(texts)
    ]


@given(st.lists(st.none() | TEXTS, max_size=12), COMPRESSIONS, st.booleans(), PARTS)
@example([*LONG, None], ("", bytes), True, 2)
def test_jsonl(texts: list[str | None], compression: Compression, is_ascii: bool, num_parts: int) -> None:
    suffix, compress = compression
    lines = [json.dumps({"text": text}, ensure_ascii=is_ascii) for text in texts]
    with written(f"a.jsonl{suffix}", compress("\n".join(["", *lines, ""]).encode())) as path:
        assert records(path, num_parts) == expected(["", *texts], path.name)


@given(st.lists(st.one_of(TEXTS, BROKEN), max_size=12), PARTS)
@example(["\ud83d\ude00", "\ude00\ud83d"], 2)
def test_jsonl_with_lone_surrogates(texts: list[str], num_parts: int) -> None:
    with written("a.jsonl", "\n".join(["", *(json.dumps({"text": text}) for text in texts), ""]).encode()) as path:
        for text, found in zip(["", *texts], records(path, num_parts), strict=True):
            try:
                # Two halves in the right order are one character to JSON.
                whole = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                assert isinstance(found, Dropped)
                assert found.reason == "lone surrogate"
            else:
                (as_expected,) = expected([whole], "a.jsonl")
                assert found == replace(as_expected, id=found.id)


@given(st.lists(st.none() | TEXTS, max_size=12), st.integers(1, 5), PARTS)
@example([*LONG, None], 2, 3)
def test_parquet(texts: list[str | None], row_group_size: int, num_parts: int) -> None:
    with written("a.parquet", as_parquet(texts, row_group_size)) as path:
        assert records(path, num_parts) == expected(texts, path.name)


@given(LINES, COMPRESSIONS, st.sampled_from(["\n", "\r\n"]), PARTS)
@example(LONG, ("", bytes), "\n", 2)
def test_txt(lines: list[str], compression: Compression, line_end: str, num_parts: int) -> None:
    suffix, compress = compression
    name = f"a.txt{suffix}"
    lines = ["x", *lines, "y"]
    with written(name, compress(line_end.join(lines).encode())) as path:
        assert records(path, num_parts, "line") == expected(lines, name)
        (whole,) = records(path, num_parts, "file")
        assert whole == Document(f"{name}:0", line_end.join(lines))
    texts = [line for line in lines if line.strip()]
    with written(name, compress((3 * line_end).join(texts).encode())) as path:
        assert records(path, num_parts) == expected(texts, name)


@pytest.mark.parametrize("form", FORMS)
@given(lines=LINES, num_parts=PARTS)
@example(lines=["= A =", *LONG, "= B =", " = = C = = "], num_parts=2)
def test_forms(form: str, lines: list[str], num_parts: int) -> None:
    with written("a.txt", "\n".join(["x", *lines]).encode()) as path:
        found = records(path, num_parts, form=form)
        assert found
        assert all(record.text.strip() for record in found if isinstance(record, Document))


@given(st.lists(DOCUMENTS, min_size=1, max_size=3), PARTS)
def test_folder_of_all_kinds(documents: list[list[str]], num_parts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, texts in enumerate(documents):
            lines = "\n".join(json.dumps({"text": text}) for text in texts) or " "
            names += [f"{number}.jsonl", f"{number}.parquet"]
            (Path(folder) / names[-2]).write_text(lines)
            (Path(folder) / names[-1]).write_bytes(as_parquet(texts, 2))
        found = records(Path(folder), num_parts)
        assert list(dict.fromkeys(record.id.partition(":")[0] for record in found)) == [
            name
            for name, texts in zip(names, [texts for texts in documents for _ in "12"], strict=True)
            if texts or name.endswith("jsonl")
        ]
        assert Corpus("a", LocalFiles(Path(folder))).source == Corpus("a", LocalFiles(Path(folder))).source
