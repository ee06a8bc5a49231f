"""Tagged texts: they are read from files and compared with the tags of a tagger."""

import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.base import Word, align
from cascaded_dllm.importance.english import SENTENCE_END, is_word
from cascaded_dllm.importance.pos import CLASSES, Tagger, class_of

_PARAGRAPH = "\n\n"
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


def read_tagged(path: Path) -> list[TaggedText]:
    """The texts of a file: `.conllu`, or `.tsv` with a word and its tag on each line; also compressed, `.gz` or `.xz`.

    A `.conllu` file contains the white space of the text; between its paragraphs an empty line is put. A `.tsv` file
    does not: words are joined by spaces, and an empty line is put after a sentence that no mark ends. In a `.tsv` file,
    an empty line ends a sentence, and a comment that begins with "# doc" begins a text.

    Raises:
        DataError: it is missing or broken, has no Penn tags, or its name has another ending.
    """
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED]
    readers = {".conllu": _conllu_texts, ".tsv": _tsv_texts}
    if not suffixes or suffixes[-1] not in readers:
        raise DataError(f"{path} is not a tagged corpus of a known kind; {_REMEDY}")
    try:
        lines = _content(path).decode().split("\n")
        texts = [_joined(tokens) for tokens in readers[suffixes[-1]](lines) if tokens]
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is missing or broken ({error}); {_REMEDY}") from error
    if not any(word.tag.startswith(CLASSES[:-1]) for text in texts for word in text.words):
        raise DataError(f"{path} holds no words with Penn tags; {_REMEDY}")
    return texts


def accuracy(tagger: Tagger, texts: Sequence[TaggedText]) -> float:
    """The share of the tagged words for which a tagger finds the right class, see `pos.CLASSES`, in the raw text.

    The tagger splits the text by itself. A tagged word gets the class of the tagger's word with which it shares most
    characters, the first one in a tie, as `align` does for tokens. A tagged word that shares none counts as wrong.
    """
    found = tagger.tag([text.text for text in texts])
    right = total = 0
    for text, words in zip(texts, found, strict=True):
        classes = [Word(word.start, word.end, float(class_of(word.tag))) for word in words]
        of_gold = align(classes, [(gold.start, gold.end) for gold in text.words], background=-1.0)
        right += sum(number == class_of(gold.tag) for number, gold in zip(of_gold, text.words, strict=True))
        total += len(text.words)
    return right / total


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(content)
        case ".xz":
            return lzma.decompress(content)
    return content


class _Token(NamedTuple):
    """A tagged word, and the white space after it."""

    form: str
    tag: str
    space: str


def _joined(tokens: Iterable[_Token]) -> TaggedText:
    """The text of the tokens of a document."""
    parts: list[str] = []
    words: list[GoldWord] = []
    end = 0
    for form, tag, space in tokens:
        words.append(GoldWord(end, end + len(form), tag))
        parts += [form, space]
        end += len(form) + len(space)
    return TaggedText("".join(parts), tuple(words))


def _conllu_texts(lines: Iterable[str]) -> Iterator[list[_Token]]:
    """The documents of a treebank; the words of a contraction, such as "do" and "n't", have no space between them."""
    document: list[_Token] = []
    contraction, space_behind = 0, " "
    for line in lines:
        if line.startswith("# newdoc"):
            yield document
            document = []
        elif line.startswith("# newpar") and document:
            document[-1] = document[-1]._replace(space=_PARAGRAPH)
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
    """The documents of a list of words and tags.

    Raises:
        ValueError: a line is neither a word with a tag, nor a comment, nor empty.
    """
    document: list[_Token] = []
    for line in lines:
        word, _, tag = line.rstrip("\r").partition("\t")
        if word and tag:
            document.append(_Token(word, tag, " "))
        elif line.startswith("# doc"):
            yield document
            document = []
        elif not line.strip() and document and not _is_ended(document):
            document[-1] = document[-1]._replace(space=_PARAGRAPH)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"the line {line.strip()[:40]!r} is not a word with a tag")
    yield document


def _is_ended(document: Sequence[_Token]) -> bool:
    """Whether a mark that ends a sentence follows the last word."""
    for token in reversed(document):
        if is_word(token.form):
            return False
        if token.form[-1:] in SENTENCE_END:
            return True
    return False
