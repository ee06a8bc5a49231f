"""A template of stories: a sequence of words, some fixed, some drawn and then repeated or agreed with.

Every part is exactly one word or punctuation mark, so it has the same place in every story of its template. A drawn
word is visible at the place of its draw, so different choices never give the same story.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PUNCTUATION = frozenset({",", "."})
WORD = re.compile(r"[A-Za-z]+|[,.]")
_PART = re.compile(r"\{(\w+)(?::(\w+)|\.(\w+))?\}|([A-Za-z]+|[,.])")


@dataclass(frozen=True)
class Lexicon:
    """Everything a story grammar knows about words.

    Attributes:
        templates: name -> pattern of words and braces: `{girl:name}` draws from the class "name" a word that no other
            draw of that class took, `{girl}` repeats it, `{girl.she}` is its form "she", `{a}` or `{A}` is an article.
        classes: name -> word -> weight, a positive integer; probabilities are weights over their sum.
        forms: name -> drawn word -> the word that agrees with it.
        an_words: words that take "an".
        tags: every word and punctuation mark -> (Penn Treebank tag, whether it is a stop word).
    """

    templates: Mapping[str, str]
    classes: Mapping[str, Mapping[str, int]]
    forms: Mapping[str, Mapping[str, str]]
    an_words: frozenset[str]
    tags: Mapping[str, tuple[str, bool]]


class Part(NamedTuple):
    """One place of a template: a fixed word, a draw, a repeated or agreeing word, or an article."""

    literal: str = ""
    slot: str = ""
    drawn_from: str = ""
    form: str = ""
    article: str = ""


class Mismatch(NamedTuple):
    """The first word that a template does not allow: its place, the word, and what is allowed; words are in quotes."""

    position: int
    found: str
    expected: str


class Template:
    """A compiled pattern of a lexicon.

    Args:
        name: the pattern's name in the lexicon.
        lexicon: the words.

    Attributes:
        draws: slot -> word class, in the order of the draws.
        num_words: number of words and punctuation marks of each of its stories.
    """

    def __init__(self, name: str, lexicon: Lexicon) -> None:
        self.name = name
        self._lexicon = lexicon
        self._parts = tuple(_parts(lexicon.templates[name]))
        self.draws = {part.slot: part.drawn_from for part in self._parts if part.drawn_from}
        self.num_words = len(self._parts)
        self._draw_places = [
            (place, part.slot, part.drawn_from) for place, part in enumerate(self._parts) if part.drawn_from
        ]

    def vocabularies(self) -> list[frozenset[str]]:
        """The words that each place can hold."""
        return [self._vocabulary(part) for part in self._parts]

    def render(self, choices: Mapping[str, str]) -> list[str]:
        """The words of the story with these choices, one per slot of `draws`."""
        words: list[str] = []
        # Backwards, because an article agrees with the word after it.
        for part in reversed(self._parts):
            words.append(part.literal or self._word(part, choices, words[-1] if words else ""))
        return words[::-1]

    def match(self, words: Sequence[str]) -> tuple[dict[str, str], Mismatch | None]:
        """The choices that can be read off `words`, and the first mismatch with the template, if there is one."""
        choices: dict[str, str] = {}
        for place, slot, word_class in self._draw_places:
            if place < len(words) and words[place] in self._lexicon.classes[word_class]:
                is_taken = any(
                    words[place] == word for other, word in choices.items() if self.draws[other] == word_class
                )
                if not is_taken:
                    choices[slot] = words[place]
        followers = [*words[1:], ""]
        for position, (part, word, follower) in enumerate(zip(self._parts, words, followers, strict=False)):
            if word == part.literal:
                continue
            # A form may stand before its draw. If the draw is wrong, the draw is reported, not the form.
            is_known = not part.slot or part.slot in choices
            if is_known and word != (expected := self._word(part, choices, follower)):
                return choices, Mismatch(position, repr(word), repr(expected))
            if part.drawn_from and not is_known:
                return choices, Mismatch(position, repr(word), f"another {part.drawn_from}")
        if len(words) != self.num_words:
            shorter = min(len(words), self.num_words)
            found = repr(words[shorter]) if len(words) > shorter else "the end"
            return choices, Mismatch(shorter, found, "more words" if len(words) == shorter else "the end")
        return choices, None

    def draw(self, uniforms: Sequence[float]) -> dict[str, str]:
        """The choices that are drawn by these uniform numbers in [0, 1), one per slot of `draws`."""
        choices: dict[str, str] = {}
        taken: dict[str, set[str]] = {}
        for (slot, name), uniform in zip(self.draws.items(), uniforms, strict=True):
            earlier = taken.setdefault(name, set())
            weights = [pair for pair in self._lexicon.classes[name].items() if pair[0] not in earlier]
            left = uniform * sum(weight for _, weight in weights)
            for word, weight in weights:
                choices[slot] = word
                left -= weight
                if left < 0:
                    break
            earlier.add(choices[slot])
        return choices

    def log_prob(self, choices: Mapping[str, str]) -> float:
        """Natural log of the probability of these choices, one per slot of `draws`, given the template."""
        terms: list[float] = []
        taken: dict[str, int] = {}
        for slot, name in self.draws.items():
            weights = self._lexicon.classes[name]
            weight = weights[choices[slot]]
            terms.append(math.log(weight / (sum(weights.values()) - taken.get(name, 0))))
            taken[name] = taken.get(name, 0) + weight
        return math.fsum(terms)

    def _word(self, part: Part, choices: Mapping[str, str], follower: str) -> str:
        if part.literal:
            return part.literal
        if part.article:
            return part.article + ("n" if follower in self._lexicon.an_words else "")
        word = choices[part.slot]
        return self._lexicon.forms[part.form][word] if part.form else word

    def _vocabulary(self, part: Part) -> frozenset[str]:
        if part.literal:
            return frozenset({part.literal})
        if part.article:
            return frozenset({part.article, part.article + "n"})
        words = self._lexicon.classes[self.draws[part.slot]]
        return frozenset(self._lexicon.forms[part.form][word] for word in words) if part.form else frozenset(words)


def _parts(pattern: str) -> Iterator[Part]:
    for slot, drawn_from, form, literal in _PART.findall(pattern):
        if literal:
            yield Part(literal=literal)
        elif slot in {"a", "A"}:
            yield Part(article=slot)
        else:
            yield Part(slot=slot, drawn_from=drawn_from, form=form)


def split_words(text: str) -> list[str]:
    """The words and punctuation marks of `text`; all else is left out, so compare `join_words` of them with `text`."""
    return WORD.findall(text)


def join_words(words: Sequence[str]) -> str:
    """The text of a story: a space before every word but the first, none before punctuation."""
    return "".join(word if word in PUNCTUATION else f" {word}" for word in words).removeprefix(" ")
