"""Exact tags for the built-in stories, from their grammar; there is nothing to install or download."""

from collections.abc import Sequence
from typing import final

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.pos import TaggedWord
from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.story_template import WORD


@final
class StoriesTagger:
    """Tagger of texts made of the words of the built-in stories, each of which has only one part of speech."""

    name = "stories"

    def __init__(self) -> None:
        self._tags = StoryGrammar().tags

    def tag(self, texts: Sequence[str]) -> list[list[TaggedWord]]:
        """The words and punctuation marks of every text, in text order; an empty text has none.

        Args:
            texts: built-in stories or parts of them.

        Raises:
            DataError: a text contains a word or a character that no story has.
        """
        return [self._tag_text(text) for text in texts]

    def _tag_text(self, text: str) -> list[TaggedWord]:
        words: list[TaggedWord] = []
        end = 0
        for found in WORD.finditer(text):
            self._check_between(text, end, found.start())
            start, end = found.span()
            if found.group() not in self._tags:
                raise _foreign(f"the word {found.group()!r}", start)
            tag, is_stop = self._tags[found.group()]
            words.append(TaggedWord(start, end, found.group(), tag, is_stop))
        self._check_between(text, end, len(text))
        return words

    def _check_between(self, text: str, start: int, end: int) -> None:
        foreign = text[start:end].strip()
        if foreign:
            raise _foreign(repr(foreign[:20]), text.index(foreign, start))


def _foreign(what: str, position: int) -> DataError:
    return DataError(
        f"{what} at character {position} is in no built-in story, and the tagger 'stories' knows only those; "
        "choose --tagger english, or a spaCy model, for other texts"
    )
