"""Tokens in the smallest groups that are text by themselves, since a character may be spread over several tokens."""

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


def token_groups(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, int]]:
    """The groups as [start, end), in order; their texts joined are the text of all tokens.

    Args:
        ids: any tokens; they may begin or end inside a character.
        decode: the text of tokens, with the replacement character for bytes that do not form a character.
    """
    is_whole = [_REPLACEMENT not in decode([token_id]) for token_id in ids]
    groups: list[tuple[int, int]] = []
    start = 0
    while start < len(ids):
        # A whole token is the same text in any context, so only the run up to the next whole token matters.
        run = next((place for place in range(start, len(ids)) if is_whole[place]), len(ids))
        end = start + 1
        if run > start:
            text = decode(ids[start:run])
            while decode(ids[start:end]) + decode(ids[end:run]) != text:
                end += 1
        groups.append((start, end))
        start = end
    return groups
