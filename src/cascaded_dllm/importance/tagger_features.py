"""What the linear tagger looks at: features of single words by their place, and of words in a row.

A feature is a number, a hash; no list of them is kept. Everything about a single word is computed once for each
distinct word, and the rest with NumPy for all words of a text together.
"""

import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt64

from cascaded_dllm.importance.english import ADDRESS, SENTENCE_END, is_word

VERSION = 1
"""Of the features: weights that were learnt for others are of no use."""

BOUNDARY = ""
"""Stands for what is before and after a paragraph; it is no word of a text."""
REACH = 2
"""How many words to each side are looked at."""

Hashes: TypeAlias = UInt64[np.ndarray, " features"]


class Role(NamedTuple):
    """A place around the word to be tagged: `offset` words on, with features of its own."""

    name: str
    offset: int


CENTRE, FIRST = Role("centre", 0), Role("first", 0)
ROLES = (CENTRE, FIRST, Role("left", -1), Role("right", 1), Role("left 2", -2), Role("right 2", 2))
"""FIRST is the word itself once more, if it is the first of a sentence, where a capital says little."""

WORD, ENDING, SHAPE, ENTRY = range(4)
"""The properties of a word that are looked at together with those of its neighbours."""
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
"""Features of several words: properties, and how many words on."""

_LONGEST = 20
_REPEATED = re.compile(r"(.)\1+")
_DIGIT = re.compile(r"\d")
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


class WordFeatures(NamedTuple):
    """What is known of a word by itself.

    Attributes:
        by_role: hashes of its features in each of ROLES.
        properties: hashes of its properties, for JOINT.
        is_word: whether it holds a letter or a digit.
        ends_sentence: whether it is a mark that ends a sentence.
    """

    by_role: tuple[Hashes, ...]
    properties: UInt64[np.ndarray, " properties"]
    is_word: bool
    ends_sentence: bool


def word_features(word: str, lexicon: Mapping[str, str]) -> WordFeatures:
    """The features of a word, or of BOUNDARY.

    Args:
        word: as it stands in the text.
        lexicon: the usual tag of a word.
    """
    form, shape = _form(word), _shape(word)
    entry = f"{lexicon.get(word, '-')} {lexicon.get(word.lower(), '-')}"
    ending = f"{form[-3:]} {shape[:2]}"
    near = [f"w {form}", f"s {shape}", f"3 {form[-3:]}", f"2 {form[-2:]}", f"e {entry}"]
    by_role = {CENTRE: _centre(word, form, shape, entry), FIRST: _first(form, shape, entry)}
    is_mark = not is_word(word)
    return WordFeatures(
        tuple(_hashes(role.name, by_role.get(role, near) if word else [""]) for role in ROLES),
        _hashes("property", [form, ending, shape[:3], entry]),
        not is_mark,
        is_mark and word[-1:] in SENTENCE_END,
    )


def joint_hash(number: int, parts: list[UInt64[np.ndarray, " words"]]) -> UInt64[np.ndarray, " words"]:
    """The hashes of feature `number` of JOINT for many words, from the hashes of its properties."""
    mixed = np.full_like(parts[0], number + 1)
    for part in parts:
        mixed = (mixed ^ part) * _ODD
        mixed ^= mixed >> _SHIFT
    return mixed


def _centre(word: str, form: str, shape: str, entry: str) -> list[str]:
    endings = [f"e{length} {form[-length:]}" for length in range(1, 6) if len(form) >= length]
    beginnings = [f"b{length} {form[:length]}" for length in range(1, 5) if len(form) > length]
    rest = [f"w {form}", f"W {word[:_LONGEST]}", f"s {shape}", f"3s {form[-3:]} {shape[:3]}", f"n {min(len(form), 8)}"]
    lexical = [f"l {entry}", f"ls {entry} {shape[:2]}", f"ll {entry.split()[1]}"]
    return ["", *endings, *beginnings, *rest, *lexical]


def _first(form: str, shape: str, entry: str) -> list[str]:
    return ["", f"w {form}", f"s {shape}", f"3 {form[-3:]}", f"2s {form[-2:]} {shape[:3]}", f"l {entry}"]


def _form(word: str) -> str:
    """The word in lower case, without what makes equal words different."""
    return _DIGIT.sub("0", word.lower().replace("\u2019", "'"))[:_LONGEST]


def _shape(word: str) -> str:
    """The kinds of the characters of a word, runs cut short; "@" for addresses."""
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


def _hashes(kind: str, features: list[str]) -> Hashes:
    """A hash of each feature, the same on every machine."""
    checksums = [zlib.crc32(f"{kind}|{feature}".encode(errors="surrogatepass")) for feature in features]
    return np.array(checksums, dtype=np.uint64) * _ODD
