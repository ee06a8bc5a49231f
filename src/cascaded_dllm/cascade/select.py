"""Which tokens of a window every stage keeps: nested, in text order, by importance.

All stages are cut from one order of the tokens: stage k keeps its first stage_lengths[k-1] tokens. So every stage
contains the one before, however many there are.
"""

from collections.abc import Sequence

from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.checks import one_of
from cascaded_dllm.errors import ConfigError, DataError

# "constituency" keeps small labels first; the others keep large importance first.
SELECTION_METHODS: tuple[str, ...] = ("constituency", "keybert_no_stopword", "keybert", "tfidf", "random", "custom")
# Part-of-speech label of a token outside all words: never kept by a shortened stage; without `unique`, kept last.
INELIGIBLE_LABEL = -100
# The importance of a word is at most 1. Only the full stop is above, which structures a text and so may repeat.
REPEATABLE_ABOVE = 1
# The user chooses the scale of these methods, so the limit above has no meaning for them.
WITHOUT_REPEATABLE = ("custom",)


def check_method(method: str) -> None:
    """Checks that `method` is one of SELECTION_METHODS.

    Raises:
        ConfigError: it is not.
    """
    one_of("the selection method", method, SELECTION_METHODS)


def select_positions(
    token_ids: Sequence[int],
    importance: Sequence[float | int],
    stage_lengths: Sequence[int],
    *,
    method: str,
    unique: bool = True,
) -> list[list[int]] | None:
    """The positions that each stage keeps, in text order; None if the window cannot fill every stage.

    A token id is kept once, so that a short stage is not spent on copies of one word. The caller drops a window that
    cannot fill every stage: padding would teach a stage to write fillers. Without `unique`, importance alone decides,
    tokens outside all words come last, and every window can be used.

    Args:
        token_ids: the window.
        importance: one value per token, in the unit of `method`.
        stage_lengths: strictly increasing. A stage as long as the window keeps all of it.
        method: one of SELECTION_METHODS. "constituency" takes tokens by rising label, the others by falling
            importance; ties are taken in text order. Importance above 1 lets a token id repeat, except for
            "constituency" and "custom".
        unique: whether a token id is kept once.

    Raises:
        ConfigError: the method is unknown, the lengths do not strictly increase, or one is longer than the window.
        DataError: `token_ids` and `importance` differ in length.
    """
    spec = CascadeSpec(tuple(stage_lengths))
    check_method(method)
    if len(importance) != len(token_ids):
        raise DataError(
            f"{len(token_ids)} token ids came with {len(importance)} importance values; every token needs exactly one"
        )
    if spec.window_length > len(token_ids):
        raise ConfigError(
            f"stage length {spec.window_length} is longer than the window of {len(token_ids)} tokens; "
            "shorten the stage or cut longer windows"
        )
    shortened = [length for length in spec.stage_lengths if length < len(token_ids)]
    order = _kept_order(token_ids, importance, shortened[-1] if shortened else 0, method=method, unique=unique)
    if order is None:
        return None
    positions = [sorted(order[:length]) for length in shortened]
    if len(shortened) < spec.num_stages:
        positions.append(list(range(len(token_ids))))
    return positions


def select_stages(
    token_ids: Sequence[int],
    importance: Sequence[float | int],
    stage_lengths: Sequence[int],
    *,
    method: str,
    unique: bool = True,
) -> list[list[int]] | None:
    """The token ids of each stage, in text order; None if the window cannot fill them. See `select_positions`."""
    stages = select_positions(token_ids, importance, stage_lengths, method=method, unique=unique)
    if stages is None:
        return None
    return [[token_ids[position] for position in positions] for positions in stages]


def _kept_order(
    token_ids: Sequence[int], importance: Sequence[float | int], count: int, *, method: str, unique: bool
) -> list[int] | None:
    """The `count` positions that are kept first, in that order; None if fewer can be kept."""
    by_label = method == "constituency"
    # sorted() is stable, also in reverse: equal importance stays in text order.
    order = sorted(range(len(token_ids)), key=importance.__getitem__, reverse=not by_label)
    if not unique:
        return sorted(order, key=lambda position: by_label and importance[position] == INELIGIBLE_LABEL)[:count]
    kept: list[int] = []
    seen: set[int] = set()
    for position in order:
        if len(kept) == count:
            break
        token_id, value = token_ids[position], importance[position]
        if by_label:
            if value == INELIGIBLE_LABEL:
                continue
        elif value > REPEATABLE_ABOVE and method not in WITHOUT_REPEATABLE:
            # Not added to `seen`: the same id may still be kept once as an ordinary word.
            kept.append(position)
            continue
        if token_id not in seen:
            seen.add(token_id)
            kept.append(position)
    return kept if len(kept) == count else None
