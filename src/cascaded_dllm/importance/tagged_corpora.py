"""Texts whose words somebody has tagged: read from files, aligned with our words, and compared with a tagger's."""

import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.english import SENTENCE_END, is_word
from cascaded_dllm.importance.pos import Tagger

CLASSES = ("NNP", "NN", "VB", "JJ", "RB", "XX")
"""What importance distinguishes, each by the Penn tag that stands for it: proper nouns, nouns, verbs, adjectives,
adverbs, and all else."""
OTHER = CLASSES.index("XX")

NO_TAG = ""
"""Of a word whose tag is not known."""
PARAGRAPH = "\n\n"

_COMPRESSED = (".gz", ".xz")
_REMEDY = "name a .conllu file, or a .tsv file with a word and its Penn tag on each line (also .gz or .xz)"


class GoldWord(NamedTuple):
    """A word `text[start:end]` with its Penn Treebank tag."""

    start: int
    end: int
    tag: str


@final
@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text with its tagged words, in text order."""

    text: str
    words: tuple[GoldWord, ...]


def class_of(tag: str) -> int:
    """The place in CLASSES of a Penn tag, as `pos_labels` groups them; stop words and heads make no difference."""
    return next((number for number, prefix in enumerate(CLASSES[:OTHER]) if tag.startswith(prefix)), OTHER)


def read_tagged(path: Path) -> list[TaggedText]:
    """The texts of a file: `.conllu`, or `.tsv` with a word and its tag a line; also with `.gz` or `.xz` behind it.

    A `.conllu` file tells the raw text; its paragraphs get an empty line between them. A `.tsv` file says nothing of
    white space: words have a blank between them, and an empty line is put behind a sentence that no mark ends. An empty
    line of such a file ends a sentence, a comment that begins with "# doc" begins a text.

    Raises:
        DataError: it is missing or broken, holds no Penn tags, or its name has another ending.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED]
    readers = {".conllu": _conllu_texts, ".tsv": _tsv_texts}
    if not suffixes or suffixes[-1] not in readers:
        raise DataError(f"{path} is no kind of tagged corpus that can be read; {_REMEDY}")
    try:
        lines = _content(path).decode().split("\n")
        texts = [_joined(tokens) for tokens in readers[suffixes[-1]](lines) if tokens]
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is missing or broken ({error}); {_REMEDY}") from error
    if all(class_of(word.tag) == OTHER for text in texts for word in text.words):
        raise DataError(f"{path} holds no words with Penn tags; {_REMEDY}")
    return texts


def accuracy(tagger: Tagger, texts: Sequence[TaggedText]) -> float:
    """The part of the tagged words whose class, see CLASSES, a tagger finds in the raw text.

    The tagger splits the text by itself. A tagged word is given the class of the tagger's word that shares most of its
    characters, the earliest of equals, as a token of a tokenizer is given its importance. One without any is wrong.
    """
    found = tagger.tag([text.text for text in texts])
    right = total = 0
    for text, words in zip(texts, found, strict=True):
        owners = owners_of(text.words, [(word.start, word.end) for word in words])
        total += len(text.words)
        right += sum(
            owner is not None and class_of(words[owner].tag) == class_of(gold.tag)
            for owner, gold in zip(owners, text.words, strict=True)
        )
    return right / total


def owners_of(spans: Iterable[tuple[int, int] | GoldWord], others: Sequence[tuple[int, int]]) -> list[int | None]:
    """For every span, the place of the one of `others` that shares most characters with it, the earliest of equals.

    Args:
        spans: in text order, without overlaps.
        others: likewise.
    """
    owners: list[int | None] = []
    first = 0
    for span in spans:
        start, end = span[:2]
        while first < len(others) and others[first][1] <= start:
            first += 1
        best, owner, place = 0, None, first
        while place < len(others) and others[place][0] < end:
            shared = min(end, others[place][1]) - max(start, others[place][0])
            if shared > best:
                best, owner = shared, place
            place += 1
        owners.append(owner)
    return owners


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(content)
        case ".xz":
            return lzma.decompress(content)
    return content


class _Token(NamedTuple):
    """A tagged word, and the white space behind it."""

    form: str
    tag: str
    space: str


def _joined(tokens: Iterable[_Token]) -> TaggedText:
    """The text of a document."""
    parts: list[str] = []
    words: list[GoldWord] = []
    end = 0
    for form, tag, space in tokens:
        words.append(GoldWord(end, end + len(form), tag))
        parts += [form, space]
        end += len(form) + len(space)
    return TaggedText("".join(parts), tuple(words))


def _conllu_texts(lines: Iterable[str]) -> Iterator[list[_Token]]:
    """The documents of a treebank. The words of a contraction, such as "do" and "n't", are written together."""
    document: list[_Token] = []
    contraction, space_behind = 0, " "
    for line in lines:
        if line.startswith("# newdoc"):
            yield document
            document = []
        elif line.startswith("# newpar") and document:
            document[-1] = document[-1]._replace(space=PARAGRAPH)
        elif line[:1].isdecimal():
            number, form, _, _, tag, _, _, _, _, rest = line.rstrip("\r").split("\t")
            space = "" if "SpaceAfter=No" in rest else " "
            if "-" in number:
                contraction, space_behind = int(number.partition("-")[2]), space
            elif "." not in number:
                place = int(number)
                behind = space if place > contraction else space_behind if place == contraction else ""
                document.append(_Token(form, tag, behind))
        elif not line.strip():
            contraction = 0
    yield document


def _tsv_texts(lines: Iterable[str]) -> Iterator[list[_Token]]:
    """The documents of a list of words and tags."""
    document: list[_Token] = []
    for line in lines:
        word, has_tag, tag = line.rstrip("\r").partition("\t")
        if word and has_tag:
            document.append(_Token(word, tag, " "))
        elif line.startswith("# doc"):
            yield document
            document = []
        elif not line.strip() and document and not _is_ended(document):
            document[-1] = document[-1]._replace(space=PARAGRAPH)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"the line {line.strip()[:40]!r} is no word with a tag")
    yield document


def _is_ended(document: Sequence[_Token]) -> bool:
    """Whether a mark that ends sentences is behind the last word."""
    for token in reversed(document):
        if is_word(token.form):
            return False
        if token.form[-1:] in SENTENCE_END:
            return True
    return False
