import importlib.metadata
import lzma
import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance import taggers
from cascaded_dllm.importance.tagged_corpora import read_tagged
from cascaded_dllm.importance.taggers import LexiconTagger, SpacyTagger

spacy = pytest.importorskip("spacy", reason="the extra `preprocess` is not installed")

SENTENCES = [
    ("The cat sleeps .", ["DT", "NN", "VBZ", "."]),
    ("Ada Lovelace wrote the first program .", ["NNP", "NNP", "VBD", "DT", "JJ", "NN", "."]),
    ("The first dog barks loudly .", ["DT", "JJ", "NN", "VBZ", "RB", "."]),
]


@pytest.fixture(scope="module")
def trained_pipeline(tmp_path_factory):
    """A spaCy pipeline like the downloadable ones, trained on three sentences: tok2vec, tagger and one more."""
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("tok2vec", config={"model": {"@architectures": "spacy.HashEmbedCNN.v2", **SMALL_NETWORK}})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "tok2vec"}
    pipeline.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}})
    pipeline.add_pipe("sentencizer")
    examples = [Example.from_dict(pipeline.make_doc(text), {"tags": tags}) for text, tags in SENTENCES]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(40):
        pipeline.update(examples, sgd=optimizer)
    pipeline.meta["name"], pipeline.meta["version"] = "three_sentences", "1.2.3"
    folder = tmp_path_factory.mktemp("spacy") / "pipeline"
    pipeline.to_disk(folder)
    return folder


SMALL_NETWORK = {
    "width": 16,
    "depth": 1,
    "embed_size": 200,
    "window_size": 1,
    "maxout_pieces": 2,
    "subword_features": True,
    "pretrained_vectors": None,
}


def test_spacy_tags_with_only_what_its_tagger_needs(trained_pipeline):
    tagger = SpacyTagger(trained_pipeline)
    assert re.fullmatch(rf"spacy {re.escape(spacy.__version__)}: en_three_sentences-1\.2\.3 \(\w{{16}}\)", tagger.name)
    for text, tags in SENTENCES:
        assert [word.tag for word in tagger.tag([text])[0]] == tags
    assert tagger._pipeline.pipe_names == ["tok2vec", "tagger"]


def test_spacy_pipelines_of_one_name_are_told_apart(trained_pipeline, tmp_path):
    """By what they hold: those that people train are all called the same."""
    assert SpacyTagger(trained_pipeline).name == SpacyTagger(trained_pipeline).name
    other = spacy.load(trained_pipeline)
    network = other.get_pipe("tagger").model
    for node in network.walk():
        for name in node.param_names:
            if node.has_param(name):
                node.set_param(name, node.get_param(name) + 1)
    other.to_disk(tmp_path / "other")
    assert SpacyTagger(tmp_path / "other").name != SpacyTagger(trained_pipeline).name


def test_spacy_words_are_characters_of_the_text(trained_pipeline):
    text = "  The cat\n\nsleeps . "
    words = SpacyTagger(trained_pipeline).tag(["", text, " \n "])
    assert words[0] == words[2] == []
    assert [(word.start, word.end, word.text) for word in words[1]] == [
        (2, 5, "The"),
        (6, 9, "cat"),
        (11, 17, "sleeps"),
        (18, 19, "."),
    ]
    assert [word.is_stop for word in words[1]] == [True, False, False, False]


def test_spacy_pipeline_by_name_that_is_not_installed():
    remedy = r"spacy download en_core_web_none; or choose --tagger english, which needs no download$"
    with pytest.raises(DataError, match=rf"'en_core_web_none' is not installed .*{remedy}"):
        SpacyTagger("en_core_web_none")


def test_spacy_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(DataError, match="is not installed or broken"):
        SpacyTagger(tmp_path)


def test_spacy_pipeline_without_tagger(tmp_path):
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.to_disk(tmp_path)
    with pytest.raises(DataError, match=r"has the components \['sentencizer'\] but no tagger"):
        SpacyTagger(tmp_path)


def test_spacy_pipeline_of_another_language(tmp_path):
    """German names are NE and verbs VVFIN, so both would count as the rest."""
    from spacy.training import Example

    pipeline = spacy.blank("de")
    pipeline.add_pipe("tagger")
    tags = {"tags": ["NE", "VVFIN", "ADJD", "."]}
    pipeline.initialize(lambda: [Example.from_dict(pipeline.make_doc("Ada schreibt gut ."), tags)])
    pipeline.to_disk(tmp_path)
    with pytest.raises(DataError, match=r"has the tags .*VVFIN.* which models of English have; .* such as tfidf"):
        SpacyTagger(tmp_path)


@pytest.mark.parametrize("missing", ["spacy", "textblob"])
def test_missing_library(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"the tagger lexicon needs {missing}.*'cascaded-dllm\[preprocess\]'"):
        LexiconTagger()


def test_missing_spacy_for_its_tagger(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match="a spaCy model as the tagger needs spacy"):
        SpacyTagger("en_core_web_sm")


@pytest.fixture(scope="module")
def lexicon():
    pytest.importorskip("textblob", reason="the extra `preprocess` is not installed")
    return LexiconTagger()


def test_lexicon_name_tells_the_versions_of_what_decides_the_tags(lexicon):
    versions = [importlib.metadata.version(library) for library in ("textblob", "spacy")]
    assert lexicon.name == "lexicon 2 (textblob {}, spacy {})".format(*versions)


def test_lexicon_tags_a_sentence(lexicon):
    words = lexicon.tag(["John Smith quickly painted the old house."])[0]
    assert [(word.text, word.tag) for word in words] == [
        ("John", "NNP"),
        ("Smith", "NNP"),
        ("quickly", "RB"),
        ("painted", "VBN"),
        ("the", "DT"),
        ("old", "JJ"),
        ("house", "NN"),
        (".", "."),
    ]
    assert [word.text for word in words if word.is_stop] == ["the"]


def test_typographic_apostrophes_are_those_of_the_lexicon(lexicon):
    """They were unknown words, which count as nouns."""
    plain = "It's John's, and they're sure he don't; the dogs' bone we've, I'll, I'm, he'd."
    typeset = plain.replace("'", "\u2019")
    words = lexicon.tag([typeset])[0]
    assert [word.tag for word in words] == [word.tag for word in lexicon.tag([plain])[0]]
    assert all(word.text == typeset[word.start : word.end] for word in words)


def test_a_mark_that_the_lexicon_lacks_is_no_noun(lexicon):
    marks = "\u2014 \u2026 \u2022 ~ \u00ab \u00bb \u2018 \u20ac | \\ \U0001f600"
    assert {(word.text, word.tag) for word in lexicon.tag([marks])[0]} == {(mark, "SYM") for mark in marks.split()}
    # The Penn Treebank itself has it as a noun.
    assert [word.tag for word in lexicon.tag(["5 % ."])[0]] == ["CD", "NN", "."]


@pytest.mark.parametrize(
    "before", ["", "It rained. ", 'He said "no!" ', "A title\n\n", "( It rained. ) ", "\u201cNo.\u201d \u201c"]
)
def test_capital_of_a_first_word_is_no_name(lexicon, before):
    words = lexicon.tag([f"{before}Walked dogs ran."])[0]
    assert [word.tag for word in words if word.text == "Walked"] == ["VBD"]


def test_capital_inside_a_sentence_is_a_name(lexicon):
    words = lexicon.tag(["we saw\nWalked."])[0]
    assert [word.tag for word in words if word.text == "Walked"] == ["NNP"]


def test_lexicon_words_are_characters_of_the_text(lexicon):
    text = " A b\n\n\n \U0001f600 don't, (e\u0301) "
    tagged = lexicon.tag(["", text, "\n"])
    assert tagged[0] == tagged[2] == []
    assert [text[word.start : word.end] for word in tagged[1]] == [word.text for word in tagged[1]]
    assert "".join(word.text for word in tagged[1]) == "".join(text.split())


ORACLE_PIECES = ["The", "fox", "Ada", "barks", "Blorg", "don't", "42", "U.S.", ".", "!", '"', "(", "\n", "\n\n"]


@given(st.lists(st.sampled_from(ORACLE_PIECES), max_size=20).map(" ".join))
@example('"Ada." barks "the fox ." ( Blorg ) Ada')
def test_lexicon_tags_are_those_of_textblob_for_whole_sentences(lexicon, text):
    assert [(word.text, word.tag) for word in lexicon.tag([text])[0]] == textblob_tags(text)


def textblob_tags(text):
    """TextBlob's tags of spaCy's words, one sentence at a time; marks that its lexicon lacks are no nouns."""
    from textblob.en import parser

    def tags(sentence):
        tagged = parser.find_tags([word.replace("\u2019", "'") for word in sentence])
        for word, (plain, tag) in zip(sentence, tagged, strict=True):
            is_known = plain in parser.lexicon or any(character.isalnum() for character in plain)
            yield word, tag if is_known else "SYM"

    sentences, has_ended = [[]], True
    for token in ENGLISH(text):
        if token.is_space:
            has_ended = has_ended or token.text.count("\n") > 1
            continue
        is_word = any(character.isalnum() for character in token.text)
        if has_ended and is_word:
            sentences.append([])
            has_ended = False
        sentences[-1].append(token.text)
        has_ended = has_ended or (not is_word and token.text[-1] in ".!?")
    return [pair for sentence in sentences if sentence for pair in tags(sentence)]


ENGLISH = spacy.blank("en").tokenizer


def test_lexicon_tags_are_those_of_textblob_on_real_text(shared, lexicon):
    path = shared / "data" / "ud_ewt" / "en_ewt-ud-dev.conllu.xz"
    for text in read_tagged(path)[:80]:
        assert [(word.text, word.tag) for word in lexicon.tag([text.text])[0]] == textblob_tags(text.text)


def test_long_texts_are_cut_at_paragraphs(trained_pipeline, monkeypatch):
    text = "".join(f"The first dog number {i} barks loudly .\n\n" for i in range(30))
    tagger = SpacyTagger(trained_pipeline)
    whole = tagger.tag([text, "The cat"])
    monkeypatch.setattr(taggers, "PIECE_CHARACTERS", 100)
    assert tagger.tag([text, "The cat"]) == whole


@pytest.mark.parametrize("most", [1, 12, 30, 10_000])
def test_batches_change_nothing(trained_pipeline, monkeypatch, most):
    """An empty text, a long one and many short ones, however many are tagged together."""
    texts = ["The cat", "", "The first dog barks loudly . " * 4, *(f"A dog number {i}" for i in range(9))]
    tagger = SpacyTagger(trained_pipeline)
    expected = [tagger.tag([text])[0] for text in texts]
    sizes, pipe = [], tagger._pipeline.pipe
    monkeypatch.setattr(taggers, "BATCH_CHARACTERS", most)
    monkeypatch.setattr(
        tagger._pipeline, "pipe", lambda batch, batch_size: sizes.append(list(map(len, batch))) or pipe(batch)
    )
    assert tagger.tag(texts) == expected
    assert all(len(batch) == 1 or sum(batch) <= most for batch in sizes)
    assert sum(map(sum, sizes)) == sum(map(len, texts))
    assert (len(sizes) == 1) is (most == 10_000)


def test_long_runs_are_cut(trained_pipeline):
    """Without the cut, spaCy takes 20 minutes for this."""
    (words,) = SpacyTagger(trained_pipeline).tag(["(" * 100_000 + " cat"])
    assert len(words) == 100_001
    assert words[-1][:3] == (100_001, 100_004, "cat")


def test_runs_are_cut():
    text = f"a {'b' * 805} c{'d' * 399} {'e' * 400}"
    assert [piece for _, piece in taggers._pieces(text)] == [
        f"a {'b' * 400}",
        "b" * 400,
        f"bbbbb c{'d' * 399} {'e' * 400}",
    ]
    assert [start for start, _ in taggers._pieces(text)] == [0, 402, 802]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("aaa\n\nbbb\n\nccc", [(0, "aaa\n\nbbb\n\n"), (10, "ccc")]),
        ("aaaa\nbbb cccc", [(0, "aaaa\n"), (5, "bbb cccc")]),
        ("aaaa bbb cccc", [(0, "aaaa bbb "), (9, "cccc")]),
        ("abcdefghijkl", [(0, "abcdefghij"), (10, "kl")]),
        ("0123456789", [(0, "0123456789")]),
        ("", []),
    ],
)
def test_pieces(monkeypatch, text, pieces):
    monkeypatch.setattr(taggers, "PIECE_CHARACTERS", 10)
    assert list(taggers._pieces(text)) == pieces


def test_lexicon_agrees_with_a_treebank(shared, lexicon):
    """83.1 % exact tags on the words of EWT test; here the words are spaCy's, so only sentences that match count."""
    path = shared / "data" / "ud_ewt" / "en_ewt-ud-test.conllu.xz"
    blocks = lzma.decompress(path.read_bytes()).decode().split("\n\n")
    agree = compared = 0
    for block in blocks[:600]:
        rows = [line.split("\t") for line in block.split("\n") if line and not line.startswith("#")]
        rows = [row for row in rows if row[0].isdecimal()]
        words = lexicon.tag([" ".join(row[1] for row in rows)])[0]
        if [word.text for word in words] != [row[1] for row in rows]:
            continue
        compared += len(rows)
        agree += sum(word.tag == row[4] for word, row in zip(words, rows, strict=True))
    assert compared > 5000
    assert 0.80 < agree / compared < 0.88
