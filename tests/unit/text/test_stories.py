import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.rng import numpy_generator
from cascaded_dllm.text.stories import StoryGrammar, story_tokenizer
from cascaded_dllm.text.story_lexicon import STORIES
from cascaded_dllm.text.story_template import Lexicon, Template, join_words, split_words

# Small enough to write down every text: forms, articles, skewed weights, draws without replacement, equal lengths.
SMALL = Lexicon(
    templates={
        "meet": "{one:animal} met {two:animal} and {three:animal}. {two.He} was {a} {kind:trait} beast.",
        "sleep": "{A} {kind:trait} {one:animal} slept near the {place:place}, and {one.he} was it.",
        "walk": "The {one:animal} ran to the {place:place} and sat.",
    },
    classes={"animal": {"owl": 3, "cat": 2, "dog": 1, "hen": 1}, "trait": {"old": 1, "shy": 4}, "place": {"mill": 1}},
    forms={
        "he": {"owl": "it", "cat": "she", "dog": "he", "hen": "she"},
        "He": {"owl": "It", "cat": "She", "dog": "He", "hen": "She"},
    },
    an_words=frozenset({"old", "owl"}),
    tags={},
)


@pytest.fixture(scope="module")
def grammar() -> StoryGrammar:
    return StoryGrammar()


@pytest.fixture(scope="module")
def stories(grammar: StoryGrammar) -> list[str]:
    return [document.text for document in grammar.documents(4_000, seed=0)]


def every_text(lexicon: Lexicon) -> dict[str, float]:
    """All texts with their probabilities, by going through all draws; knows nothing of entropies or parsing."""
    probabilities: dict[str, float] = {}
    for name in lexicon.templates:
        template = Template(name, lexicon)
        classes = list(template.draws.values())
        for words in itertools.product(*(lexicon.classes[word_class] for word_class in classes)):
            drawn: set[tuple[str, str]] = set()
            probability = 1 / len(lexicon.templates)
            for word_class, word in zip(classes, words, strict=True):
                weights = lexicon.classes[word_class]
                left = sum(weight for other, weight in weights.items() if (word_class, other) not in drawn)
                probability *= 0 if (word_class, word) in drawn else weights[word] / left
                drawn.add((word_class, word))
            if probability:
                text = join_words(template.render(dict(zip(template.draws, words, strict=True))))
                assert text not in probabilities, "two derivations"
                probabilities[text] = probability
    return probabilities


def test_small_grammar_against_enumeration() -> None:
    grammar = StoryGrammar(SMALL)
    probabilities = every_text(SMALL)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-12)
    assert grammar.num_texts == len(probabilities) == 4 * 3 * 2 * 2 + 2 * 4 + 4
    entropy = -sum(probability * math.log(probability) for probability in probabilities.values())
    assert grammar.entropy == pytest.approx(entropy, abs=1e-12)
    for text, probability in probabilities.items():
        assert grammar.log_prob(text) == pytest.approx(math.log(probability), abs=1e-12)


def test_small_grammar_accepts_only_its_texts() -> None:
    """Every fourth text of each template with one word replaced by any other word of the grammar."""
    grammar = StoryGrammar(SMALL)
    probabilities = every_text(SMALL)
    chosen = list(probabilities)[::4]
    assert {grammar.parse(text).template for text in chosen} == set(SMALL.templates)  # type: ignore[union-attr]
    for text in chosen:
        words = split_words(text)
        for place, word in itertools.product(range(len(words)), [*sorted(grammar.words), ",", "."]):
            changed = join_words([*words[:place], word, *words[place + 1 :]])
            assert grammar.accepts(changed) is (changed in probabilities)
            assert (grammar.explain(changed) is None) is (changed in probabilities)


def test_small_grammar_samples_by_probability() -> None:
    grammar = StoryGrammar(SMALL)
    probabilities = every_text(SMALL)
    generator = np.random.default_rng(1)
    counts = Counter(grammar.sample(generator) for _ in range(5_000))
    assert set(counts) <= set(probabilities)
    observed = [counts[text] for text in probabilities]
    expected = np.array(list(probabilities.values())) * 5_000
    assert stats.chisquare(observed, expected).pvalue > 1e-6
    # Power: ignoring the weights would be seen.
    assert stats.chisquare(observed, np.full(len(observed), 5_000 / len(observed))).pvalue < 1e-6


def test_size_of_the_grammar(grammar: StoryGrammar) -> None:
    assert len(STORIES.templates) >= 6
    assert grammar.num_texts > 10**12
    assert 27 < grammar.entropy < 40
    assert 150 < len(grammar.words) < 230
    assert {word for words in STORIES.classes.values() for word in words} < grammar.words


def test_num_texts_is_the_product_of_the_lists(grammar: StoryGrammar) -> None:
    total = 0
    for name in STORIES.templates:
        num = Counter(Template(name, STORIES).draws.values())
        product = 1
        for word_class, draws in num.items():
            for earlier in range(draws):
                product *= len(STORIES.classes[word_class]) - earlier
        total += product
    assert grammar.num_texts == total


def test_entropy_is_that_of_all_draws(grammar: StoryGrammar) -> None:
    """Of the draws of a class, by going through all of them in every order; draws of two classes are independent."""
    of_templates = []
    for name in STORIES.templates:
        entropy = 0.0
        for word_class, num in Counter(Template(name, STORIES).draws.values()).items():
            weights = list(STORIES.classes[word_class].values())
            drawn = np.array(list(itertools.permutations(weights, num)), dtype=np.float64)
            left = sum(weights) - np.cumsum(drawn, axis=1) + drawn
            probabilities = (drawn / left).prod(axis=1)
            assert probabilities.sum() == pytest.approx(1, abs=1e-9)
            entropy -= float(probabilities @ np.log(probabilities))
        of_templates.append(entropy)
    expected = math.log(len(of_templates)) + sum(of_templates) / len(of_templates)
    assert grammar.entropy == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_entropy_is_the_mean_surprise(grammar: StoryGrammar, stories: list[str]) -> None:
    surprises = -np.array([grammar.log_prob(text) for text in stories])
    standard_error = surprises.std() / math.sqrt(len(surprises))
    assert standard_error < 0.05
    assert abs(surprises.mean() - grammar.entropy) < 4 * standard_error


def test_stories_are_distinct_and_accepted(grammar: StoryGrammar, stories: list[str]) -> None:
    assert len(set(stories)) == len(stories)
    derivations = [grammar.parse(text) for text in stories[:1_500]]
    assert None not in derivations
    keys = {(found.template, *found.choices.values()) for found in derivations if found is not None}
    assert len(keys) == 1_500
    assert {key[0] for key in keys} == set(STORIES.templates)


def test_parse_gives_back_the_derivation(grammar: StoryGrammar) -> None:
    for name in STORIES.templates:
        template = Template(name, STORIES)
        choices = template.draw([0.3] * len(template.draws))
        derivation = grammar.parse(join_words(template.render(choices)))
        assert derivation is not None
        assert (derivation.template, derivation.choices) == (name, choices)
        assert list(derivation.choices) == list(template.draws)


def test_documents(grammar: StoryGrammar) -> None:
    documents = list(grammar.documents(5, seed=3))
    assert [document.id for document in documents] == [f"story-{index}" for index in range(5)]
    assert list(grammar.documents(9, seed=3))[:5] == documents
    assert documents[4].text == grammar.sample(numpy_generator(3, "story", 4))
    assert list(grammar.documents(5, seed=4)) != documents
    assert list(grammar.documents(0, seed=3)) == []


def test_sizes_of_stories(grammar: StoryGrammar, stories: list[str]) -> None:
    """What stages of 8, 16 and 40 tokens, selected without repetition, need of every story."""
    lengths = [len(split_words(text)) for text in stories]
    assert max(lengths) <= 39
    assert min(lengths) >= 30
    assert min(len(set(split_words(text))) for text in stories) >= 17
    content = [{word for word in split_words(text) if not grammar.tags[word][1]} for text in stories]
    assert min(len(words) for words in content) >= 16


STORY = (
    "There was a clever boy called Hugo. One sunny morning, he lost his odd flute near the cave. "
    "A lonely goat noticed it and helped him. Hugo praised the goat and they sang together."
)
PAIR = (
    "My friends Zoe and Ella are honest and loyal. Last spring they found a green flute near the mill. "
    "A hungry otter wanted the flute, so they shared it and sang happily."
)


@pytest.mark.parametrize(
    ("text", "old", "new", "reason"),
    [
        (STORY, "he lost", "she lost", "word 13 is 'she' where the template 'lost' has 'he'"),
        (STORY, "boy", "girl", "word 5 is 'girl' where the template 'lost' has 'boy'"),
        (STORY, "a clever", "an clever", "word 3 is 'an' where the template 'lost' has 'a'"),
        (STORY, "his odd", "his an odd", "word 16 is 'an' where the template 'lost' has another look"),
        (STORY, "Hugo praised", "Max praised", "word 31 is 'Max' where the template 'lost' has 'Hugo'"),
        (STORY, "praised the goat", "praised the cat", "word 34 is 'cat' where the template 'lost' has 'goat'"),
        (STORY, "A lonely", "A clever", "word 23 is 'clever' where the template 'lost' has another nature"),
        (STORY, "helped him", "helped her", "word 29 is 'her' where the template 'lost' has 'him'"),
        (STORY, "together.", "together. One", "word 40 is 'One' where the template 'lost' has the end"),
        (STORY, " together.", "", "word 38 is the end where the template 'lost' has more words"),
        (STORY, "cave. A", "cave.  A", "it has blanks or punctuation in unusual places"),
        (STORY, "cave. A", "cave! A", "it holds '!'"),
        (PAIR, "are honest", "is honest", "word 6 is 'is' where the template 'friends' has 'are'"),
        (PAIR, "a green", "an green", "word 15 is 'an' where the template 'friends' has 'a'"),
        (PAIR, "the flute, so", "the kite, so", "word 27 is 'kite' where the template 'friends' has 'flute'"),
        (PAIR, "Zoe and Ella", "Zoe and Zoe", "word 5 is 'Zoe' where the template 'friends' has another name"),
        (PAIR, "shared it", "shared them", "word 32 is 'them' where the template 'friends' has 'it'"),
        (PAIR, PAIR, "", "word 1 is the end where the template 'lost' has more words"),
    ],
)
def test_one_wrong_word_is_rejected(grammar: StoryGrammar, text: str, old: str, new: str, reason: str) -> None:
    assert grammar.accepts(text)
    assert grammar.explain(text) is None
    assert text.count(old) == 1
    wrong = text.replace(old, new)
    assert grammar.parse(wrong) is None
    assert not grammar.accepts(wrong)
    assert grammar.log_prob(wrong) == -math.inf
    assert grammar.explain(wrong) == reason


def test_agreement_and_coreference_in_every_story(grammar: StoryGrammar, stories: list[str]) -> None:
    """Exchanging all words of one gender, or one mention of a repeated word, is always noticed."""
    swap = {"he": "she", "him": "her", "his": "her", "His": "Her", "boy": "girl"}
    swap |= {"she": "he", "her": "his", "Her": "His", "girl": "boy", "was": "were", "were": "was", "is": "are"}
    swap |= {"are": "is", "a": "an", "an": "a", "A": "An", "An": "A"}
    repeated = STORIES.classes["name"] | STORIES.classes["thing"] | STORIES.classes["animal"]
    chooser = random.Random(0)
    for text in stories[:150]:
        words = split_words(text)
        for place, word in enumerate(words):
            wrong = swap.get(word)
            if wrong is None and word in repeated and word in words[:place]:
                wrong = chooser.choice([other for other in repeated if other != word])
            if wrong is not None:
                assert not grammar.accepts(join_words([*words[:place], wrong, *words[place + 1 :]]))


def test_two_templates_that_could_give_one_text() -> None:
    lexicon = Lexicon(
        templates={"one": "the {who:animal} sat.", "two": "the {where:place} sat."},
        classes={"animal": {"owl": 1, "crane": 1}, "place": {"mill": 1, "crane": 1}},
        forms={},
        an_words=frozenset(),
        tags={},
    )
    with pytest.raises(ConfigError, match="the templates 'one' and 'two' both have 4 words and may share every one"):
        StoryGrammar(lexicon)


@pytest.mark.parametrize(("word", "weight"), [("two words", 1), ("é", 1), ("", 1), ("fox", 0)])
def test_words_that_cannot_be_drawn(word: str, weight: int) -> None:
    lexicon = Lexicon({"one": "the {who:animal} sat."}, {"animal": {word: weight}}, {}, frozenset(), {})
    with pytest.raises(ConfigError, match=f"the word {word!r} with weight {weight} of the class 'animal' cannot be"):
        StoryGrammar(lexicon)


def test_one_token_per_word(stories: list[str]) -> None:
    tokenizer = story_tokenizer()
    assert tokenizer.vocab_size < 1_000
    for text, encoding in zip(stories[:1_000], tokenizer.encode_batch(stories[:1_000]), strict=True):
        assert [text[start:end].strip() for start, end in encoding.offsets] == split_words(text)
        assert tokenizer.decode(encoding.ids) == text


def test_story_tokenizer_is_always_the_same() -> None:
    assert story_tokenizer().fingerprint == story_tokenizer().fingerprint
