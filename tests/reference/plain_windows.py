"""Documents cut into windows, one token after another, and the stages of one window after another.

Nothing here imports the package.
"""

from collections.abc import Sequence

Pair = tuple[int, float]
"""A token and its importance."""


def plain_windows(
    documents: Sequence[Sequence[Pair]], length: int, *, eos: Pair, packing: str
) -> tuple[list[list[Pair]], list[Pair]]:
    """All windows, and the tokens at the end that fill none."""
    windows: list[list[Pair]] = []
    begun: list[Pair] = []
    for document in documents:
        for pair in [*document, eos] if packing == "stream" else document:
            begun.append(pair)
            if len(begun) == length:
                windows.append(begun)
                begun = []
        while packing == "document" and begun:
            begun.append(eos)
            if len(begun) == length:
                windows.append(begun)
                begun = []
    return windows, begun
