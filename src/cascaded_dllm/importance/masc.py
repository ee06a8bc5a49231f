"""Repairs of the tags of MASC, which a program gave and people corrected in part.

Its faults are systematic, so that a tagger would learn them: most capitals make a name, symbols are nouns. Tags are
put right where the Penn guidelines leave no doubt, and taken away where a capital may be that of a first word or a
headline.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from cascaded_dllm.importance.english import ADDRESS, SENTENCE_END, is_word
from cascaded_dllm.importance.tagged_corpora import NO_TAG, PARAGRAPH, GoldWord, TaggedText

_ABBREVIATION = re.compile(r"[A-Z][A-Za-z]{0,3}\.")
_NUMBER = re.compile(r"\d[^A-Za-z]*")
_INTERJECTIONS = re.compile(r"hello|hey|hi|huh|oh|ok|okay|please|uh|um|wow|yeah|yes")
_APPROXIMATIONS = frozenset({"about", "around", "over", "nearly", "almost"})
# With a larger part of capitals, a sentence is a headline.
_HEADLINE = 0.6
# A word that is written so many times as often in small letters is hardly a name for its capital alone.
_COMMON = 10


def repaired(texts: Sequence[TaggedText]) -> list[TaggedText]:
    """The texts with better tags, or NO_TAG, for their words."""
    forms = Counter(form for text in texts for form in _forms(text))
    small, capital = Counter[str](), Counter[str]()
    for form, count in forms.items():
        (capital if form[0].isupper() else small)[form.lower()] += count
    common = {form for form, count in small.items() if count > _COMMON * capital[form]}
    return [TaggedText(text.text, tuple(_repaired(text, small.keys(), common))) for text in texts]


def _forms(text: TaggedText) -> Iterator[str]:
    return (text.text[start:end] for start, end, _ in text.words)


def _repaired(text: TaggedText, small: Collection[str], common: Collection[str]) -> Iterator[GoldWord]:
    """The words of a text with better tags.

    Args:
        text: as MASC has it.
        small: words that are somewhere written in small letters.
        common: those of them that hardly ever have a capital.
    """
    for sentence in _sentences(text):
        forms = [text.text[start:end] for start, end, _ in sentence]
        initials = [form[0].isupper() for form in forms if form[0].isalpha()]
        is_headline = len(initials) > 1 and sum(initials) > _HEADLINE * len(initials)
        first = next((place for place, form in enumerate(forms) if is_word(form)), 0)
        for place, (word, form) in enumerate(zip(sentence, forms, strict=True)):
            next_form, next_tag = (forms[place + 1], sentence[place + 1].tag) if place + 1 < len(forms) else ("", "")
            low = form.lower()
            is_doubtful = low in common or ((is_headline or place == first) and low in small)
            if is_doubtful and form[0].isupper() and word.tag.startswith("NNP"):
                yield word._replace(tag=NO_TAG)
            else:
                yield word._replace(tag=_tag(form, word.tag, next_form.lower(), next_tag))


def _tag(form: str, tag: str, next_form: str, next_tag: str) -> str:
    """The tag that the Penn guidelines give, where MASC's is mostly another."""
    low = form.lower()
    if not is_word(form):
        return "NN" if form == "%" else "SYM"
    if low == "i":
        return "PRP"
    if _INTERJECTIONS.fullmatch(low):
        return "UH"
    if ADDRESS.search(form):
        return "ADD"
    if _NUMBER.fullmatch(form):
        return "CD"
    if tag == "NN" and _ABBREVIATION.fullmatch(form):
        return "NNP"
    if tag == "NNP" and low in ("am", "pm"):
        return "NN"
    if (tag == "IN" and low == "so" and next_form != "that") or (low in _APPROXIMATIONS and next_tag == "CD"):
        return "RB"
    return tag


def _sentences(text: TaggedText) -> Iterator[list[GoldWord]]:
    sentence: list[GoldWord] = []
    has_ended = False
    for word in text.words:
        form = text.text[word.start : word.end]
        between = text.text[sentence[-1].end : word.start] if sentence else ""
        if sentence and (PARAGRAPH in between or (has_ended and is_word(form))):
            yield sentence
            sentence, has_ended = [], False
        sentence.append(word)
        has_ended = not is_word(form) and (has_ended or form[-1] in SENTENCE_END)
    if sentence:
        yield sentence
