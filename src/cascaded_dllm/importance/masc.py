"""Repairs of the tags of MASC, which come from a program and were partly corrected by people.

Their faults are systematic, so a tagger would learn them: most capitalised words are names, and symbols are nouns. A
tag is corrected if the Penn guidelines leave no doubt, and removed if the capital may be that of a first word or of a
headline.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from cascaded_dllm.importance.english import ADDRESS, is_word
from cascaded_dllm.importance.tagger_examples import NO_TAG, Example

_ABBREVIATION = re.compile(r"[A-Z][A-Za-z]{0,3}\.")
_NUMBER = re.compile(r"\d[^A-Za-z]*")
_INTERJECTIONS = re.compile(r"hello|hey|hi|huh|oh|ok|okay|please|uh|um|wow|yeah|yes")
_APPROXIMATIONS = frozenset({"about", "around", "over", "nearly", "almost"})
# A sentence with a larger share of capitalised words is a headline.
_HEADLINE = 0.6
# A word that is this many times more frequent in small letters is probably not a name when it has a capital.
_COMMON = 10


def repaired(sentences: Sequence[list[Example]]) -> list[list[Example]]:
    """The sentences with corrected tags, or NO_TAG for doubtful ones."""
    small, capital = Counter[str](), Counter[str]()
    for text in (word.text for sentence in sentences for word in sentence):
        (capital if text[0].isupper() else small)[text.lower()] += 1
    common = {text for text, count in small.items() if count > _COMMON * capital[text]}
    return [list(_repaired(sentence, small.keys(), common)) for sentence in sentences]


def _repaired(sentence: Sequence[Example], small: Collection[str], common: Collection[str]) -> Iterator[Example]:
    """The words of a sentence with corrected tags, or NO_TAG for doubtful ones.

    Args:
        sentence: with the tags of MASC.
        small: words that occur in small letters somewhere.
        common: those of them that hardly ever have a capital.
    """
    initials = [word.text[0].isupper() for word in sentence if word.text[0].isalpha()]
    is_headline = len(initials) > 1 and sum(initials) > _HEADLINE * len(initials)
    for word, follower in zip(sentence, [*sentence[1:], None], strict=True):
        low = word.text.lower()
        is_doubtful = low in common or ((is_headline or word.begins_sentence) and low in small)
        if is_doubtful and word.text[0].isupper() and word.tag.startswith("NNP"):
            yield word._replace(tag=NO_TAG)
        elif word.tag != NO_TAG:
            yield word._replace(tag=_tag(word, follower))
        else:
            yield word


def _tag(word: Example, follower: Example | None) -> str:
    """The tag by the Penn guidelines for words that MASC mostly tags otherwise; MASC's own for all others."""
    text, tag, low = word.text, word.tag, word.text.lower()
    next_text, next_tag = (follower.text.lower(), follower.tag) if follower else ("", NO_TAG)
    if not is_word(text):
        return "NN" if text == "%" else "SYM"
    if low == "i":
        return "PRP"
    if _INTERJECTIONS.fullmatch(low):
        return "UH"
    if ADDRESS.search(text):
        return "ADD"
    if _NUMBER.fullmatch(text):
        return "CD"
    if tag == "NN" and _ABBREVIATION.fullmatch(text):
        return "NNP"
    if tag == "NNP" and low in ("am", "pm"):
        return "NN"
    if (tag == "IN" and low == "so" and next_text != "that") or (low in _APPROXIMATIONS and next_tag == "CD"):
        return "RB"
    return tag
