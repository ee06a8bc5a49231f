from collections.abc import Iterator
from pathlib import Path

import pytest

from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.forms import Form, numbered_records, records_of
from cascaded_dllm.text.local_files import LocalFiles

LINES = """
 = First = \n
 One , two .
 Key : Pld
 = Played , W =
 Wins . \n
 = = Section = = \n

 = = = Below = = = \n
 Three @-@ four . \n

 = Second = \n
 = Third = \n
 Five = 5 = \n
""".splitlines()


def records(lines: list[str], form: Form | None, part: Part) -> list[Document | Dropped]:
    def rows(wanted: Part) -> Iterator[Document]:
        return wanted.of(Document(str(index), line) for index, line in enumerate(lines))

    return list(records_of(rows, form, part))


def test_wikitext_articles() -> None:
    assert records(LINES, "wikitext", Part()) == [
        Dropped("1", "heading", 9),
        Dropped("8", "heading", 15),
        Dropped("11", "heading", 17),
        Document("1", "One, two.\n\nKey: Pld\n\n= Played, W =\n\nWins.\n\nThree-four."),
        Dropped("16", "heading", 10),
        Dropped("16", "empty", 0),
        Dropped("18", "heading", 9),
        Document("18", "Five = 5 ="),
    ]


def test_wikitext_without_a_title_at_its_head_or_a_blank_line_at_its_end() -> None:
    lines = ["One .", "", "= Two =", "", "Three .", "", "= Four ="]
    assert [record.id for record in records(lines, "wikitext", Part())] == ["0", "2", "2", "6", "6"]
    assert records([], "wikitext", Part()) == []
    assert records(["", " "], "wikitext", Part()) == []


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
def test_parts_of_wikitext_are_articles(num_parts: int) -> None:
    whole = records(LINES, "wikitext", Part())
    articles = [whole[:4], whole[4:6], whole[6:]]
    for index in range(num_parts):
        part = records(LINES, "wikitext", Part(index, num_parts))
        assert part == [record for article in articles[index::num_parts] for record in article]
    assert records(LINES, "wikitext", Part(stop=2)) == whole[:6]


def test_rows_without_text() -> None:
    """In WikiText they stand where blank lines do, and belong to the article around them."""
    dropped = {index: Dropped(str(index), "null text", 0) for index in (0, 2, 4)}
    lines = ["", "= One =", "", "Two .", "", "= Three =", "", "Four ."]

    def rows(wanted: Part) -> Iterator[Document | Dropped]:
        return wanted.of(dropped.get(index, Document(str(index), line)) for index, line in enumerate(lines))

    whole = list(records_of(rows, "wikitext", Part()))
    assert whole == [
        dropped[0],
        Dropped("1", "heading", 7),
        dropped[2],
        dropped[4],
        Document("1", "Two."),
        Dropped("5", "heading", 9),
        Document("5", "Four."),
    ]
    assert [number for number, _ in numbered_records(rows, "wikitext", Part())] == [0, 1, 1, 1, 1, 2, 2]
    assert list(records_of(rows, "wikitext", Part(1, 2))) == whole[1:5]
    assert list(records_of(rows, "wikitext", Part(stop=1))) == [dropped[0]]
    assert list(records_of(rows, "lm1b", Part(0, 3))) == [dropped[0], Document("3", "Two."), Dropped("6", "empty", 0)]
    assert [number for number, _ in numbered_records(rows, "lm1b", Part(1, 3))] == [1, 4, 7]


def test_rows_are_records_of_the_other_forms() -> None:
    lines = ["it 's N", " ", "\u201cNo\u201d"]
    assert records(lines, "ptb", Part()) == [
        Document("0", "it's N"),
        Dropped("1", "empty", 1),
        Document("2", "\u201cNo\u201d"),
    ]
    assert records(lines, "lambada", Part(2, 3)) == [Document("2", '"No"')]
    assert records(lines, None, Part(0, 3)) == [Document("0", "it 's N")]


def test_real_wikitext_has_the_known_number_of_articles(shared: Path) -> None:
    files = LocalFiles(shared / "data" / "wikitext2" / "test.txt.xz", unit="line", form="wikitext")
    *headings, last = files.records(Part(59, 60))  # Merity et al. 2016, table 1, count 60.
    assert isinstance(last, Document)
    assert headings[0].id == last.id
    assert " @-@ " not in last.text
    assert list(files.records(Part(60, 61))) == []
