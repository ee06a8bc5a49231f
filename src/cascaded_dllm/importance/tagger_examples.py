"""Training sentences for a tagger: the words of tagged texts, split by `WordSplitter`, and copies in other cases."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from cascaded_dllm.importance.english import WordSplitter
from cascaded_dllm.importance.tagged_corpora import TaggedText

NO_TAG = ""
"""The tag of a word from which nothing is learnt."""

# Shares of the sentences that are copied in another case, for the names of careless writers and the words of headlines.
# Sentences with more words are not copied as headlines.
_IN_SMALL, _IN_CAPITALS, _AS_TITLE = 0.15, 0.05, 0.2
_LONGEST_TITLE = 13


class Example(NamedTuple):
    """A word of a sentence; see `SplitText` for `begins_paragraph` and `begins_sentence`."""

    text: str
    tag: str
    begins_paragraph: bool
    begins_sentence: bool


def examples(texts: Iterable[TaggedText]) -> Iterator[list[Example]]:
    """The sentences of tagged texts.

    A word has a tag if its characters are exactly those of a tagged word. Other words, such as the parts of "e-mail",
    only serve as neighbours.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    splitter = WordSplitter("training a tagger")
    for text in texts:
        tags = {(start, end): tag for start, end, tag in text.words}
        sentence: list[Example] = []
        split = splitter.split(text.text)
        columns = zip(split.starts, split.words, split.begins_paragraph, split.begins_sentence, strict=True)
        for start, word, begins_paragraph, begins_sentence in columns:
            if begins_sentence and sentence:
                yield sentence
                sentence = []
            tag = tags.get((start, start + len(word)), NO_TAG)
            sentence.append(Example(word, tag, begins_paragraph, begins_sentence))
        if sentence:
            yield sentence


def with_other_cases(sentences: Sequence[list[Example]]) -> list[list[Example]]:
    """The sentences, followed by copies of some of them in small letters, in capitals and as headlines."""
    draws = random.Random(0)
    changes: list[tuple[float, Callable[[str], str], int | None]] = [
        (_IN_SMALL, str.lower, None),
        (_IN_CAPITALS, str.upper, None),
        (_AS_TITLE, lambda word: word[0].upper() + word[1:], _LONGEST_TITLE),
    ]
    result = list(sentences)
    for part, change, longest in changes:
        for sentence in sentences:
            if draws.random() < part and (longest is None or len(sentence) <= longest):
                copy = [word._replace(text=change(word.text)) for word in sentence]
                result.append([copy[0]._replace(begins_paragraph=True), *copy[1:]])
    return result
