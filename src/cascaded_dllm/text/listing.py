"""Texts in one readable file, as samples are written wherever they are drawn."""

from collections.abc import Iterable

SEPARATOR = "=" * 80
"""The line after every text."""


def listing(texts: Iterable[str]) -> str:
    """The content of a file with all texts, each followed by a line of 80 "="."""
    return "".join(f"{text}\n{SEPARATOR}\n" for text in texts)


def texts_of_listing(content: str) -> list[str]:
    """The texts of such a file; without a separator it is one text, whose last line need not end."""
    pieces = f"{content}\n".split(f"\n{SEPARATOR}\n")
    if len(pieces) == 1:
        return [content.removesuffix("\n")]
    # Behind the last separator there is a line that a person has added, or nothing.
    return pieces[:-1] if not pieces[-1].strip() else [*pieces[:-1], pieces[-1].rstrip("\n")]
