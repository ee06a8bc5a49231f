"""The built-in corpus: short stories from a grammar that knows its exact entropy and recognises its own texts.

A model trained on it can be judged without another model: its bound lies above `StoryGrammar.entropy`, and the grammar
either accepts a text that it writes or does not.
"""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.rng import numpy_generator
from cascaded_dllm.text.document import Document, Dropped, Part
from cascaded_dllm.text.story_lexicon import STORIES
from cascaded_dllm.text.story_template import PUNCTUATION, WORD, Lexicon, Mismatch, Template, join_words, split_words
from cascaded_dllm.text.tokenizer import Tokenizer

_SPLITS = {"train": 20_000, "valid": 1_000, "test": 1_000}


class Derivation(NamedTuple):
    """The draws that give a story: its template, and the word for each slot in the order of the draws."""

    template: str
    choices: dict[str, str]


@final
class StoryGrammar:
    """Stories made of independent draws: a template, then one word per slot.

    Draws of one story from the same class are without replacement. No text has two derivations: within a template the
    drawn words stand at known places, and any two templates differ in length or at a place where they share no word,
    which the constructor checks. So the probability of a text is that of its derivation.

    Args:
        lexicon: words and patterns; tests pass smaller ones than the built-in.

    Raises:
        ConfigError: a word is not made of letters, or two templates may give the same text.

    Attributes:
        entropy: nats per text, exact.
        num_texts: number of distinct texts.
        words: all words, capitalised ones counted apart, without punctuation.
        tags: word or punctuation mark -> (Penn Treebank tag, whether it is a stop word).
    """

    def __init__(self, lexicon: Lexicon = STORIES) -> None:
        _check_words(lexicon)
        self._lexicon = lexicon
        self._templates = tuple(Template(name, lexicon) for name in lexicon.templates)
        _check_distinct(self._templates)
        vocabulary = {word for template in self._templates for words in template.vocabularies() for word in words}
        self.words: frozenset[str] = frozenset(vocabulary - PUNCTUATION)
        self.tags: Mapping[str, tuple[str, bool]] = lexicon.tags
        draws = [Counter(template.draws.values()) for template in self._templates]
        self.num_texts: int = sum(
            math.prod(math.perm(len(lexicon.classes[name]), num) for name, num in counts.items()) for counts in draws
        )
        entropies = [
            math.fsum(_draws_entropy(lexicon.classes[name], num) for name, num in counts.items()) for counts in draws
        ]
        self.entropy: float = math.log(len(entropies)) + math.fsum(entropies) / len(entropies)

    def sample(self, generator: np.random.Generator) -> str:
        """A random story; all templates are equally likely."""
        template = self._templates[int(generator.integers(len(self._templates)))]
        choices = template.draw(generator.random(len(template.draws)).tolist())
        return join_words(template.render(choices))

    def documents(self, num: int, seed: int) -> Iterator[Document]:
        """Stories 0 .. `num` - 1 of this seed; story i does not depend on `num`."""
        return (self.document(index, seed) for index in range(num))

    def document(self, index: int, seed: int) -> Document:
        """Story `index` of this seed."""
        return Document(f"story-{index}", self.sample(numpy_generator(seed, "story", index)))

    def parse(self, text: str) -> Derivation | None:
        """The only derivation of `text`, or None if the grammar does not accept it."""
        words = split_words(text)
        if join_words(words) != text:
            return None
        for template in self._templates:
            if template.num_words == len(words):
                choices, mismatch = template.match(words)
                if mismatch is None:
                    return Derivation(template.name, {slot: choices[slot] for slot in template.draws})
        return None

    def accepts(self, text: str) -> bool:
        """Whether the grammar can write exactly this text."""
        return self.parse(text) is not None

    def log_prob(self, text: str) -> float:
        """Natural log of the probability of `text`; minus infinity if the grammar does not accept it."""
        derivation = self.parse(text)
        if derivation is None:
            return -math.inf
        template = next(template for template in self._templates if template.name == derivation.template)
        return template.log_prob(derivation.choices) - math.log(len(self._templates))

    def explain(self, text: str) -> str | None:
        """Where a rejected text leaves the template that it follows furthest; None for an accepted text."""
        words = split_words(text)
        if join_words(words) != text:
            unknown = WORD.sub("", text).strip()
            return f"it holds {unknown[:20]!r}" if unknown else "it has blanks or punctuation in unusual places"
        furthest: tuple[str, Mismatch] | None = None
        for template in self._templates:
            _, mismatch = template.match(words)
            if mismatch is None:
                return None
            if furthest is None or mismatch.position > furthest[1].position:
                furthest = (template.name, mismatch)
        assert furthest is not None
        name, (position, found, expected) = furthest
        return f"word {position + 1} is {found} where the template {name!r} has {expected}"


@final
@dataclass(frozen=True, slots=True)
class Stories:
    """The stories 0 .. `num` - 1 of a seed, as a `Reader`."""

    num: int
    seed: int

    @classmethod
    def of_split(cls, split: str) -> "Stories":
        """The stories of train, valid or test; each split has a seed of its own."""
        return cls(_SPLITS[split], list(_SPLITS).index(split))

    def records(self, part: Part) -> Iterator[Document | Dropped]:
        """See `Reader`."""
        grammar = StoryGrammar()
        return (grammar.document(index, self.seed) for index in part.of(range(self.num)))

    def source(self) -> dict[str, object]:
        """See `Reader`."""
        words = (STORIES.templates, STORIES.classes, STORIES.forms, sorted(STORIES.an_words))
        grammar = hashlib.sha256(json.dumps(words).encode()).hexdigest()
        return {"kind": "stories", "grammar": grammar, "seed": self.seed, "documents": self.num}


def story_tokenizer() -> Tokenizer:
    """The tokenizer of the built-in stories, for which every word and punctuation mark is one token; always the same.

    It is trained on the words alone, each with the space before it, the words that begin a story also without. Training
    ends by itself when each of them is one token.
    """
    grammar = StoryGrammar()
    first_words = {pattern.split()[0] for pattern in STORIES.templates.values()}
    pieces = sorted({*first_words, *PUNCTUATION, *(f" {word}" for word in grammar.words)})
    tokenizer = Tokenizer.train(pieces, vocab_size=10_000)
    assert all(len(encoding.ids) == 1 for encoding in tokenizer.encode_batch(pieces))
    return tokenizer


def _draws_entropy(weights: Mapping[str, int], num: int) -> float:
    """The entropy in nats of `num` ordered draws without replacement, recursively over the first draw."""
    if num == 0:
        return 0.0
    total = sum(weights.values())
    terms: list[float] = []
    for word, weight in weights.items():
        rest = {other: other_weight for other, other_weight in weights.items() if other != word}
        terms.append(weight / total * (math.log(total / weight) + _draws_entropy(rest, num - 1)))
    return math.fsum(terms)


def _check_words(lexicon: Lexicon) -> None:
    for name, weights in lexicon.classes.items():
        for word, weight in weights.items():
            if not (word.isascii() and word.isalpha()) or weight < 1:
                raise ConfigError(
                    f"the word {word!r} with weight {weight} of the class {name!r} cannot be drawn; "
                    "a word has only the letters A-Z and a-z, and a weight of 1 or more"
                )


def _check_distinct(templates: tuple[Template, ...]) -> None:
    for first, second in itertools.combinations(templates, 2):
        if first.num_words != second.num_words:
            continue
        pairs = zip(first.vocabularies(), second.vocabularies(), strict=True)
        if not any(one.isdisjoint(other) for one, other in pairs):
            raise ConfigError(
                f"the templates {first.name!r} and {second.name!r} both have {first.num_words} words and may share "
                "every one of them, so a text could have two derivations; change a fixed word in one"
            )
