import pytest

from cascaded_dllm.importance.masc import repaired
from cascaded_dllm.importance.tagger_examples import NO_TAG, Example


def sentence(line):
    """Words as "text/TAG", in one sentence."""
    pairs = [item.rsplit("/", 1) for item in line.split()]
    return [Example(text, tag, i == 0, i == 0) for i, (text, tag) in enumerate(pairs)]


def tags(*lines):
    """The tags of the first line, repaired in the company of the others."""
    return [word.tag for word in repaired([sentence(line) for line in lines])[0]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("we/PRP paid/VBD %/JJ */NN 5/CD", ["PRP", "VBD", "NN", "SYM", "CD"]),
        ("so/NN i/NN said/VBD ok/NN Yes/NNP", ["NN", "PRP", "VBD", "UH", "UH"]),
        ("mail/VB me@here.org/NN or/CC www.x.org/NNP", ["VB", "ADD", "CC", "ADD"]),
        ("in/IN 1999/NNP 3.5/JJ 2nd/JJ", ["IN", "CD", "CD", "JJ"]),
        ("by/IN George/NNP W./NN Bush/NNP", ["IN", "NNP", "NNP", "NNP"]),
        ("at/IN 5/CD pm/NNP", ["IN", "CD", "NN"]),
        ("it/PRP was/VBD so/IN cold/JJ so/IN that/IN", ["PRP", "VBD", "RB", "JJ", "IN", "IN"]),
        ("for/IN about/IN ten/CD about/IN me/PRP", ["IN", "RB", "CD", "IN", "PRP"]),
        ("they/PRP ran/VBD quickly/RB", ["PRP", "VBD", "RB"]),
    ],
)
def test_tags_that_are_put_right(line, expected):
    assert tags(line) == expected


def test_what_has_no_tag_gets_none():
    assert [word.tag for word in repaired([[Example("%", NO_TAG, True, True)]])[0]] == [NO_TAG]


def test_the_capital_of_a_first_word_is_no_name_where_small_letters_occur():
    assert tags("Dogs/NNP saw/VBD Rover/NNP", "we/PRP saw/VBD dogs/NNS") == [NO_TAG, "VBD", "NNP"]
    # Never in small letters: it may well be a name.
    assert tags("Rover/NNP saw/VBD dogs/NNS") == ["NNP", "VBD", "NNS"]
    # Not the first word: it is meant.
    assert tags("we/PRP saw/VBD Bush/NNP there/RB", "a/DT bush/NN") == ["PRP", "VBD", "NNP", "RB"]
    # Another tag than a name's needs no doubt.
    assert tags("Dogs/NNS ran/VBD", "dogs/NNS") == ["NNS", "VBD"]


def test_capitals_of_a_headline_are_no_names_where_small_letters_occur():
    headline = "We/PRP Saw/NNP Bush/NNP On/NNP Monday/NNP"
    assert tags(headline, "a/DT bush/NN saw/VBD on/IN") == ["PRP", NO_TAG, NO_TAG, NO_TAG, "NNP"]


def test_a_word_that_hardly_ever_has_a_capital_is_no_name():
    often = "house/NN " * 21
    assert tags("in/IN the/DT White/NNP House/NNP of/IN it/PRP", often) == ["IN", "DT", "NNP", NO_TAG, "IN", "PRP"]
    # Ten times for each one with a capital is not enough.
    assert tags("in/IN the/DT White/NNP House/NNP of/IN it/PRP", "house/NN " * 10)[3] == "NNP"


def test_sentences_keep_their_words():
    sentences = [sentence("Oh/NN no/DT ./."), sentence("Fine/JJ")]
    assert [[word._replace(tag="") for word in words] for words in repaired(sentences)] == [
        [word._replace(tag="") for word in words] for words in sentences
    ]
