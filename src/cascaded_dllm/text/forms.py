"""The forms in which benchmark corpora are distributed: what one of their records is, and how it becomes plain text."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cascaded_dllm.text.detokenize import DETOKENIZERS, VERSION
from cascaded_dllm.text.document import Document, Dropped, Part

Form = Literal["wikitext", "ptb", "lm1b", "lambada"]
FORMS: tuple[Form, ...] = ("wikitext", "ptb", "lm1b", "lambada")


@dataclass(frozen=True, slots=True)
class _Article:
    """The lines of one WikiText article that are not blank.

    Attributes:
        headings: of the article and its sections.
        paragraphs: all other lines.
        dropped: rows among its lines that have no text.
    """

    headings: tuple[Document, ...]
    paragraphs: tuple[Document, ...]
    dropped: tuple[Dropped, ...]

    def records(self) -> Iterator[Document | Dropped]:
        """Its headings, as dropped, and then the article, which is dropped too if it has no paragraph."""
        for heading in self.headings:
            yield Dropped(heading.id, "heading", len(heading.text.strip()))
        yield from self.dropped
        if not self.headings and not self.paragraphs:
            return
        name = (*self.headings, *self.paragraphs)[0].id
        text = "\n\n".join(DETOKENIZERS["wikitext"](paragraph.text).strip() for paragraph in self.paragraphs)
        yield Document(name, text) if text else Dropped(name, "empty", 0)


def records_of(
    rows: Callable[[Part], Iterator[Document | Dropped]], form: Form | None, part: Part
) -> Iterator[Document | Dropped]:
    """The wanted records of a corpus that is stored as rows; a row is a record, except in WikiText, where it is a line.

    Args:
        rows: returns the wanted rows, blank ones included; a row without a text is a `Dropped`.
        form: None for texts as people write them.
        part: which records are wanted.
    """
    return (record for _, record in numbered_records(rows, form, part))


def numbered_records(
    rows: Callable[[Part], Iterator[Document | Dropped]], form: Form | None, part: Part
) -> Iterator[tuple[int, Document | Dropped]]:
    """`records_of`, each with its number; the headings of a WikiText article have the number of the article."""
    numbers = part.numbers()
    if form == "wikitext":
        for number, article in zip(numbers, part.of(_articles(rows(Part()))), strict=False):
            yield from ((number, record) for record in article.records())
        return
    detokenize = DETOKENIZERS[form] if form else str
    for number, row in zip(numbers, rows(part), strict=False):
        yield number, _detokenized(row, detokenize)


def _detokenized(row: Document | Dropped, detokenize: Callable[[str], str]) -> Document | Dropped:
    """The detokenized row; a blank one is dropped."""
    if isinstance(row, Dropped):
        return row
    is_blank = not row.text.strip()
    return Dropped(row.id, "empty", len(row.text)) if is_blank else Document(row.id, detokenize(row.text))


def described(form: Form | None) -> dict[str, object] | None:
    """The name of the form and the version of its rules, as JSON values."""
    return {"name": form, "version": VERSION} if form else None


def _articles(lines: Iterable[Document | Dropped]) -> Iterator[_Article]:
    """Articles, each from its title to the next; lines before the first title are an article too."""
    headings: list[Document] = []
    paragraphs: list[Document] = []
    dropped: list[Dropped] = []
    for line, is_heading in _marked(lines):
        if isinstance(line, Dropped):
            dropped.append(line)
            continue
        if is_heading and _is_title(line.text) and (headings or paragraphs or dropped):
            yield _Article(tuple(headings), tuple(paragraphs), tuple(dropped))
            headings, paragraphs, dropped = [], [], []
        (headings if is_heading else paragraphs).append(line)
    if headings or paragraphs or dropped:
        yield _Article(tuple(headings), tuple(paragraphs), tuple(dropped))


def _marked(lines: Iterable[Document | Dropped]) -> Iterator[tuple[Document | Dropped, bool]]:
    """The lines that are not blank, each with whether it is a heading.

    A heading stands between blank lines. Legends such as " = Points ; A = " do not, so they are text. A row without a
    text counts as a blank line, since many programs store a blank line as null.
    """
    waiting: Document | None = None
    is_alone = True
    for line in lines:
        is_blank = isinstance(line, Dropped) or not line.text.strip()
        if waiting is not None:
            yield waiting, is_alone and is_blank and _is_heading(waiting.text)
        is_alone = waiting is None
        if isinstance(line, Dropped):
            yield line, False
        waiting = None if isinstance(line, Dropped) or is_blank else line
    if waiting is not None:
        yield waiting, is_alone and _is_heading(waiting.text)


def is_title(line: str) -> bool:
    """Whether a line is the title of an article of WikiText, " = Title = "."""
    return _is_heading(line) and _is_title(line)


def _is_heading(line: str) -> bool:
    words = line.split()
    return len(words) > 2 and words[0] == words[-1] == "="


def _is_title(heading: str) -> bool:
    """Whether a heading is " = Title = ", not " = = Section = = "."""
    words = heading.split()
    return words[1] != "=" and words[-2] != "="
