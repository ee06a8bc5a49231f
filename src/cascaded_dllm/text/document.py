"""The one thing every corpus yields."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the name by which its shard record, its errors and its samples refer to it."""

    id: str
    text: str
