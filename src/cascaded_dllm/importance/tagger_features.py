"""The features of the linear tagger: of single words by their place, and of several neighbouring words.

A feature is a hash; there is no list of features. Features of single words are computed once for each distinct word,
the others with NumPy for all words of a text together.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Int64, UInt64

from cascaded_dllm.importance.english import ADDRESS

VERSION = 1
"""Version of the features; weights that were trained for another version are useless."""

BOUNDARY = ""
"""Stands for the places before and after a paragraph; it is not a word of a text."""
REACH = 2
"""Number of words on each side that are looked at."""

Hashes: TypeAlias = UInt64[np.ndarray, " features"]


class Role(NamedTuple):
    """A place around the word to be tagged, `offset` words after it, with features of its own."""

    name: str
    offset: int


CENTRE, FIRST = Role("centre", 0), Role("first", 0)
ROLES = (CENTRE, FIRST, Role("left", -1), Role("right", 1), Role("left 2", -2), Role("right 2", 2))
"""FIRST is the word itself again, if it is the first of a sentence, where a capital says little."""

WORD, ENDING, SHAPE, ENTRY = range(4)
"""The properties of a word that are combined with those of its neighbours."""
NUM_PROPERTIES = 4

JOINT = (
    ((WORD, -1), (WORD, 0)),
    ((WORD, 0), (WORD, 1)),
    ((WORD, -1), (WORD, 1)),
    ((ENDING, -1), (ENDING, 0)),
    ((ENDING, 0), (ENDING, 1)),
    ((ENDING, -1), (ENDING, 1)),
    ((WORD, -1), (ENDING, 0)),
    ((ENDING, 0), (WORD, 1)),
    ((SHAPE, -1), (SHAPE, 0)),
    ((SHAPE, 0), (SHAPE, 1)),
    ((WORD, -2), (WORD, -1)),
    ((WORD, 1), (WORD, 2)),
    ((ENTRY, -1), (ENTRY, 0)),
    ((ENTRY, 0), (ENTRY, 1)),
    ((ENTRY, -1), (ENTRY, 1)),
    ((ENTRY, -2), (ENTRY, -1)),
    ((ENTRY, 1), (ENTRY, 2)),
    ((ENTRY, -1), (WORD, 0)),
    ((WORD, 0), (ENTRY, 1)),
)
"""Features of several words: pairs of a property and the offset of the word that has it."""

_LONGEST = 20
_REPEATED = re.compile(r"(.)\1+")
_DIGIT = re.compile(r"\d")
_BEGINS = tuple(zlib.crc32(f"{role.name}|".encode()) for role in ROLES)
_PROPERTY = zlib.crc32(b"property|")
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@final
@dataclass(frozen=True, slots=True)
class WordFeatures:
    """The features of single words.

    Attributes:
        hashes: of the features, word by word, and for each word role by role.
        counts: number of features of each word in each of ROLES; at least 1.
        properties: hashes of the properties of each word, for JOINT.
    """

    hashes: Hashes
    counts: Int64[np.ndarray, "words roles"]
    properties: UInt64[np.ndarray, "words properties"]


def word_features(words: Sequence[str], lexicon: Mapping[str, str]) -> WordFeatures:
    """The features of words, or of BOUNDARY.

    Args:
        words: as they stand in texts; at least one.
        lexicon: word -> its usual tag.
    """
    checksums, counts, properties = [], [], []
    for word in words:
        known = _known(word, lexicon)
        by_role = [[b""]] * len(ROLES) if word == BOUNDARY else _by_role(known)
        for begin, features in zip(_BEGINS, by_role, strict=True):
            checksums += [zlib.crc32(feature, begin) for feature in features]
            counts.append(len(features))
        ending = f"{known.form[-3:]} {known.shape[:2]}"
        properties += _encoded([known.form, ending, known.shape[:3], known.entry])
    return WordFeatures(
        _spread(checksums),
        np.array(counts, dtype=np.int64).reshape(len(words), len(ROLES)),
        _spread([zlib.crc32(value, _PROPERTY) for value in properties]).reshape(len(words), NUM_PROPERTIES),
    )


def joint_hash(number: int, parts: Sequence[UInt64[np.ndarray, " words"]]) -> UInt64[np.ndarray, " words"]:
    """The hash of feature `number` of JOINT for each of many words, from the hashes of its properties."""
    mixed = np.full_like(parts[0], number + 1)
    for part in parts:
        mixed = (mixed ^ part) * _ODD
        mixed ^= mixed >> _SHIFT
    return mixed


class _Known(NamedTuple):
    """What features of a word are made of.

    Attributes:
        word: with plain apostrophes.
        form: the first characters of the word in lower case, with 0 for every digit.
        shape: the kinds of its characters, see `_shape`.
        entry: its tag in the lexicon, and that of its lower-case form.
    """

    word: str
    form: str
    shape: str
    entry: str


def _known(word: str, lexicon: Mapping[str, str]) -> _Known:
    plain = word.replace("\u2019", "'")
    low = plain.lower()
    form = _DIGIT.sub("0", low)[:_LONGEST]
    return _Known(plain, form, _shape(plain), f"{lexicon.get(plain, '-')} {lexicon.get(low, '-')}")


def _by_role(known: _Known) -> list[list[bytes]]:
    """The features of a word in each of ROLES."""
    word, form, shape, entry = known
    endings = [f"e{length} {form[-length:]}" for length in range(1, 6) if len(form) >= length]
    beginnings = [f"b{length} {form[:length]}" for length in range(1, 5) if len(form) > length]
    rest = [f"w {form}", f"W {word[:_LONGEST]}", f"s {shape}", f"3s {form[-3:]} {shape[:3]}", f"n {min(len(form), 8)}"]
    lexical = [f"l {entry}", f"ls {entry} {shape[:2]}", f"ll {entry.split()[1]}"]
    first = ["", f"w {form}", f"s {shape}", f"3 {form[-3:]}", f"2s {form[-2:]} {shape[:3]}", f"l {entry}"]
    near = _encoded([f"w {form}", f"s {shape}", f"3 {form[-3:]}", f"2 {form[-2:]}", f"e {entry}"])
    return [_encoded(["", *endings, *beginnings, *rest, *lexical]), _encoded(first), near, near, near, near]


def _shape(word: str) -> str:
    """The kinds of the characters of a word, with runs shortened to two; "@" for addresses."""
    if ADDRESS.search(word):
        return "@"
    return _REPEATED.sub(r"\1\1", "".join(map(_kind, word[:30])))[:6]


def _kind(character: str) -> str:
    if character.isupper():
        return "X"
    if character.islower():
        return "x"
    if character.isdigit():
        return "d"
    return "o" if character.isalpha() else character


def _encoded(features: list[str]) -> list[bytes]:
    return [feature.encode() for feature in features]


def _spread(checksums: list[int]) -> Hashes:
    """64-bit hashes from 32-bit checksums, with well-mixed leading bits; the same on every machine."""
    return np.array(checksums, dtype=np.uint64) * _ODD
