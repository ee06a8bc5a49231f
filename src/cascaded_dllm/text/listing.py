"""Texts in one readable file, as samples are written wherever they are drawn."""

from collections.abc import Iterable

SEPARATOR = "=" * 80
"""The line after every text."""


def listing(texts: Iterable[str]) -> str:
    """The content of a file with all texts, each followed by a line of 80 "="."""
    return "".join(f"{text}\n{SEPARATOR}\n" for text in texts)
