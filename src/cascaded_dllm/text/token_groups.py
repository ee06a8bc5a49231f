"""Tokens in the smallest groups that are text by themselves: a character may be spread over several tokens."""

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


def token_groups(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, int]]:
    """The groups as [start, end) in order; their texts, one after another, are the text of all tokens.

    Args:
        ids: any tokens, also ones that begin or end inside a character.
        decode: the text of some tokens, with the replacement character for bytes that are no whole one.
    """
    is_whole = [_REPLACEMENT not in decode([token_id]) for token_id in ids]
    groups: list[tuple[int, int]] = []
    start = 0
    while start < len(ids):
        # Whole tokens are text wherever they stand, so only the run up to the next one matters.
        run = next((place for place in range(start, len(ids)) if is_whole[place]), len(ids))
        end = start + 1
        if run > start:
            text = decode(ids[start:run])
            while decode(ids[start:end]) + decode(ids[end:run]) != text:
                end += 1
        groups.append((start, end))
        start = end
    return groups
