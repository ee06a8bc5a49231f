import math

import pytest

from cascaded_dllm.text.story_template import Lexicon, Mismatch, Template, join_words, split_words

LEXICON = Lexicon(
    templates={"walk": "{a} {beast:animal} met {other:animal}. {beast.It} ran, and {other} sat on {A} log."},
    classes={"animal": {"owl": 2, "cat": 1, "dog": 1}},
    forms={"It": {"owl": "It", "cat": "She", "dog": "He"}},
    an_words=frozenset({"owl"}),
    tags={},
)


@pytest.fixture
def template() -> Template:
    return Template("walk", LEXICON)


def test_render(template: Template) -> None:
    words = template.render({"beast": "owl", "other": "cat"})
    assert join_words(words) == "an owl met cat. It ran, and cat sat on A log."
    assert split_words(join_words(words)) == words
    assert join_words(template.render({"beast": "dog", "other": "owl"})).startswith("a dog met owl. He ran")


def test_shape(template: Template) -> None:
    assert template.draws == {"beast": "animal", "other": "animal"}
    assert template.num_words == 15
    animals = frozenset({"owl", "cat", "dog"})
    vocabularies = template.vocabularies()
    assert vocabularies[:5] == [frozenset({"a", "an"}), animals, frozenset({"met"}), animals, frozenset({"."})]
    assert vocabularies[5] == frozenset({"It", "She", "He"})


@pytest.mark.parametrize(
    ("uniforms", "beast", "other", "prob"),
    [
        ([0.0, 0.0], "owl", "cat", 2 / 4 * 1 / 2),
        ([0.49, 0.49], "owl", "cat", 2 / 4 * 1 / 2),
        ([0.5, 0.66], "cat", "owl", 1 / 4 * 2 / 3),
        ([0.74, 0.67], "cat", "dog", 1 / 4 * 1 / 3),
        ([math.nextafter(1, 0)] * 2, "dog", "cat", 1 / 4 * 1 / 3),
    ],
)
def test_draws(template: Template, uniforms: list[float], beast: str, other: str, prob: float) -> None:
    choices = template.draw(uniforms)
    assert choices == {"beast": beast, "other": other}
    assert math.exp(template.log_prob(choices)) == pytest.approx(prob, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "mismatch"),
    [
        ("an owl met cat. It ran, and cat sat on A log.", None),
        ("a owl met cat. It ran, and cat sat on A log.", Mismatch(0, "'a'", "'an'")),
        ("an fish met cat. It ran, and cat sat on A log.", Mismatch(0, "'an'", "'a'")),
        ("a fish met cat. It ran, and cat sat on A log.", Mismatch(1, "'fish'", "another animal")),
        ("an owl met owl. It ran, and cat sat on A log.", Mismatch(3, "'owl'", "another animal")),
        ("an owl met cat. She ran, and cat sat on A log.", Mismatch(5, "'She'", "'It'")),
        ("an owl met cat. It ran, and dog sat on A log.", Mismatch(9, "'dog'", "'cat'")),
        ("an owl met cat. It ran, and cat", Mismatch(10, "the end", "more words")),
        ("an owl met cat. It ran, and cat sat on A log. An", Mismatch(15, "'An'", "the end")),
    ],
)
def test_match(template: Template, text: str, mismatch: Mismatch | None) -> None:
    choices, found = template.match(split_words(text))
    assert found == mismatch
    if mismatch is None:
        assert choices == {"beast": "owl", "other": "cat"}


def test_form_before_its_draw() -> None:
    lexicon = Lexicon(
        templates={"late": "{who.It} was {who:animal}."},
        classes=LEXICON.classes,
        forms=LEXICON.forms,
        an_words=frozenset(),
        tags={},
    )
    late = Template("late", lexicon)
    assert late.render({"who": "dog"}) == ["He", "was", "dog", "."]
    assert late.match(["It", "was", "dog", "."])[1] == Mismatch(0, "'It'", "'He'")
    assert late.match(["It", "was", "fish", "."])[1] == Mismatch(2, "'fish'", "another animal")


def test_spacing() -> None:
    assert join_words(["One", ",", "two", ".", "Three", "."]) == "One, two. Three."
    assert join_words([]) == ""
    assert split_words("One,two .  3 Three!") == ["One", ",", "two", ".", "Three"]
