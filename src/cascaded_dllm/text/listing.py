"""The readable file of texts in which all samples are written."""

import itertools
import re
from collections.abc import Iterable

from cascaded_dllm.text.tokenizer import Tokenizer

SEPARATOR = "=" * 80
"""The line after every text."""
# With the line ends of some editors too, which a file may have in one part and not in another.
_END_OF_TEXT = re.compile(rf"\r\n{SEPARATOR}\r\n|\n{SEPARATOR}\r?\n")


def listing(texts: Iterable[str]) -> str:
    """The content of a file with all texts, each followed by a line of 80 "="."""
    return "".join(f"{text}\n{SEPARATOR}\n" for text in texts)


def texts_of_listing(content: str) -> list[str]:
    """The texts of such a file; without a separator it is one text, with or without a line end."""
    pieces = _END_OF_TEXT.split(f"{content}\n")
    if len(pieces) == 1:
        return [content.removesuffix("\n")]
    # After the last separator there is nothing, unless a person has added a text.
    return pieces[:-1] if not pieces[-1].strip() else [*pieces[:-1], pieces[-1].rstrip("\n")]


def with_line_feeds(content: str) -> str:
    r"""A text whose lines all end in "\r\n", as some editors write them, with "\n" for it; any other as it is."""
    return content.replace("\r\n", "\n") if content.count("\r\n") == content.count("\n") else content


def shown_ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a text from a file of samples, in which the end of text is spelt out."""
    parts = [tokenizer.encode(part).ids for part in text.split(tokenizer.decode([tokenizer.eos_id]))]
    return tuple(itertools.chain(parts[0], *([tokenizer.eos_id, *ids] for ids in parts[1:])))
