import pytest

from cascaded_dllm.importance.tagged_corpora import GoldWord, TaggedText
from cascaded_dllm.importance.tagger_examples import NO_TAG, Example, examples, with_other_cases

pytest.importorskip("spacy", reason="the extra `preprocess` is not installed")

TEXT = TaggedText(
    'The e-mail came. "Go!"\n\nWe went',
    (
        GoldWord(0, 3, "DT"),
        GoldWord(4, 10, "NN"),
        GoldWord(11, 15, "VBD"),
        GoldWord(15, 16, "."),
        GoldWord(17, 18, "``"),
        GoldWord(18, 20, "VB"),
        GoldWord(20, 21, "."),
        GoldWord(24, 26, "PRP"),
    ),
)


def test_sentences_with_the_tags_of_words_that_are_the_same():
    """spaCy splits "e-mail" at the hyphen, so its parts have no tag; "went" has none in the corpus."""
    first, second, third = examples([TEXT])
    assert first == [
        Example("The", "DT", True, True),
        Example("e", NO_TAG, False, False),
        Example("-", NO_TAG, False, False),
        Example("mail", NO_TAG, False, False),
        Example("came", "VBD", False, False),
        Example(".", ".", False, False),
        Example('"', "``", False, False),
    ]
    assert [(word.text, word.tag) for word in second] == [("Go", "VB"), ("!", "."), ('"', NO_TAG)]
    assert third == [Example("We", "PRP", True, True), Example("went", NO_TAG, False, False)]


def test_texts_follow_one_another():
    sentences = list(examples([TEXT, TaggedText("", ()), TEXT]))
    assert sentences == [*examples([TEXT]), *examples([TEXT])]


def words(sentence):
    return [word.text for word in sentence]


def test_other_cases_are_copies_of_some_sentences():
    pairs = [("the", "DT"), ("Fox", "NNP"), ("ran", "VBD")]
    short = [Example(text, tag, False, text == "the") for text, tag in pairs]
    long = [Example(f"word{i}", "NN", False, i == 0) for i in range(20)]
    sentences = [short, long] * 400
    result = with_other_cases(sentences)
    assert result[:800] == sentences
    copies = result[800:]
    texts = [" ".join(words(copy)) for copy in copies]
    counts = {text: texts.count(text) for text in ("the fox ran", "THE FOX RAN", "The Fox Ran")}
    # 400 draws each: 60, 20 and 80 are expected, with standard deviations of 7.1, 4.4 and 8.
    assert abs(counts["the fox ran"] - 60) < 36
    assert abs(counts["THE FOX RAN"] - 20) < 22
    assert abs(counts["The Fox Ran"] - 80) < 40
    for copy in copies:
        assert [word.begins_paragraph for word in copy] == [True, *[False] * (len(copy) - 1)]
        assert [word[1::2] for word in copy] == [word[1::2] for word in (short if len(copy) == 3 else long)]
    assert not [copy for copy in copies if len(copy) == 20 and copy[0].text == "Word0"], "too long for a headline"


def test_other_cases_are_the_same_every_time():
    sentences = [[Example(f"word{i}", "NN", True, True)] for i in range(50)]
    assert with_other_cases(sentences) == with_other_cases(sentences)
