import pytest

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.pos import PosLabel, TaggedWord, Tagger, pos_labels
from cascaded_dllm.importance.stories_tagger import StoriesTagger
from cascaded_dllm.text.stories import StoryGrammar
from cascaded_dllm.text.story_template import split_words

STORY = (
    "There was a clever boy called Hugo. One sunny morning, he lost his odd flute near the cave. "
    "A curious hen noticed it and helped him. Hugo praised the hen and they sang together."
)


def test_is_a_tagger() -> None:
    tagger = StoriesTagger()
    assert isinstance(tagger, Tagger)
    assert tagger.name == "stories"


def test_words_of_a_text() -> None:
    (words,) = StoriesTagger().tag(["  The fox,\nwas Max."])
    assert words == [
        TaggedWord(2, 5, "The", "DT", True),
        TaggedWord(6, 9, "fox", "NN", False),
        TaggedWord(9, 10, ",", ",", True),
        TaggedWord(11, 14, "was", "VBD", True),
        TaggedWord(15, 18, "Max", "NNP", False),
        TaggedWord(18, 19, ".", ".", True),
    ]


def test_labels_of_a_story() -> None:
    (words,) = StoriesTagger().tag([STORY])
    labels = pos_labels([word.tag for word in words], [word.is_stop for word in words])
    by_label = {label: [w.text for w, found in zip(words, labels, strict=True) if found == label] for label in PosLabel}
    assert by_label[PosLabel.HEAD_PROPER_NOUN] == ["Hugo", "Hugo"]
    assert by_label[PosLabel.PROPER_NOUN] == []
    assert by_label[PosLabel.NOUN] == ["boy", "morning", "flute", "cave", "hen", "hen"]
    assert by_label[PosLabel.VERB] == ["called", "lost", "noticed", "helped", "praised", "sang"]
    assert by_label[PosLabel.ADJECTIVE] == ["clever", "sunny", "odd", "curious"]
    assert by_label[PosLabel.ADVERB] == ["together"]
    assert {"was", "he", "."} <= set(by_label[PosLabel.OTHER])


def test_every_story_can_be_tagged() -> None:
    texts = [document.text for document in StoryGrammar().documents(200, seed=5)]
    for text, words in zip(texts, StoriesTagger().tag(texts), strict=True):
        assert [word.text for word in words] == split_words(text)
        assert all(text[word.start : word.end] == word.text for word in words)


def test_batches_do_not_matter() -> None:
    tagger = StoriesTagger()
    assert tagger.tag([STORY, "", " ", STORY]) == [*tagger.tag([STORY]), [], [], *tagger.tag([STORY])]
    assert tagger.tag([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The wolf was here.", "the word 'wolf' at character 4 is in no built-in story"),
        ("The FOX was", "the word 'FOX' at character 4"),
        ("The fox - was", "'-' at character 8 is in no built-in story, .* choose --tagger english, or a spaCy model"),
        ("The fox?!", r"'\?!' at character 7"),
        ("The f\u00f6x", "the word 'f' at character 4"),
    ],
)
def test_other_texts(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        StoriesTagger().tag(["The fox", text])
