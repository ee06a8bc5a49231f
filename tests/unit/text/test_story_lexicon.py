"""The built-in words: one part of speech each, the right article, and an agreeing form for every name."""

from collections import Counter

from cascaded_dllm.text import story_lexicon
from cascaded_dllm.text.story_lexicon import BOYS, CLASSES, GIRLS, STORIES
from cascaded_dllm.text.story_template import PUNCTUATION, Template

TEMPLATES = [Template(name, STORIES) for name in STORIES.templates]
SILENT_H = {"honest"}


def test_every_word_has_one_tag() -> None:
    tags_of: dict[str, set[str]] = {}
    for table in (story_lexicon._CONTENT_TAGS, story_lexicon._STOP_TAGS):
        for tag, words in table.items():
            for word in words.split():
                tags_of.setdefault(word, set()).add(tag)
    for tag, names in story_lexicon._CLASS_TAGS.items():
        for word in (word for name in names for word in CLASSES[name]):
            tags_of.setdefault(word, set()).add(tag)
    assert {word: tags for word, tags in tags_of.items() if len(tags) > 1} == {}
    assert sorted(name for names in story_lexicon._CLASS_TAGS.values() for name in names) == sorted(CLASSES)


def test_exactly_the_words_of_the_stories_are_tagged() -> None:
    used = {word for template in TEMPLATES for words in template.vocabularies() for word in words}
    assert used == set(STORIES.tags)


def test_function_words_are_stop_words() -> None:
    stop = {word for word, (_, is_stop) in STORIES.tags.items() if is_stop}
    assert {"was", "were", "is", "are", "he", "she", "the", "a", "an", *PUNCTUATION} <= stop
    assert stop.isdisjoint(set().union(*CLASSES.values()))


def test_articles() -> None:
    vowels = {word for word in STORIES.tags if word[0] in "aeiou"}
    following: set[str] = set()
    for template in TEMPLATES:
        vocabularies = template.vocabularies()
        for place, words in enumerate(vocabularies):
            if {"a", "an"} <= words or {"A", "An"} <= words:
                following |= vocabularies[place + 1]
    assert {word for word in following if word in vowels or word in SILENT_H} == following & STORIES.an_words
    assert STORIES.an_words <= following


def test_forms() -> None:
    assert set(CLASSES["name"]) == set(BOYS) | set(GIRLS)
    assert Counter(STORIES.forms["boy"].values()) == {"boy": len(BOYS), "girl": len(GIRLS)}
    for name, he, him, his in [("Tom", "he", "him", "his"), ("Mia", "she", "her", "her")]:
        assert [STORIES.forms[form][name] for form in ("he", "him", "his")] == [he, him, his]
        assert STORIES.forms["His"][name] == his.capitalize()


def test_every_class_is_drawn_from() -> None:
    assert {name for template in TEMPLATES for name in template.draws.values()} == set(CLASSES)
