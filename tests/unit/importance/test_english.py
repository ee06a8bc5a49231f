import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError, MissingExtraError
from cascaded_dllm.importance import english
from cascaded_dllm.importance.english import (
    ADDRESS,
    LONGEST_RUN,
    WordSplitter,
    import_parser,
    import_spacy,
    is_word,
    read_lexicon,
    require_libraries,
)
from cascaded_dllm.importance.tagged_corpora import read_tagged

spacy = pytest.importorskip("spacy", reason="the extra `preprocess` is not installed")

WORDS = ["The", "fox", "don't", "e.g.", "U.S.", "3.14", "$5", "a-b", "x.org/a,b", "cafe\u0301", "\u65e5\u672c", ":)"]
MARKS = [".", "!", "?", "...", ",", '"', "\u201d", ")", "("]
SPACES = [" ", "  ", "\n", "\n\n", " \n \n ", "\t", "\r\n\r\n", "\u2003", "\x1f"]
TEXT = st.lists(st.one_of(st.sampled_from([*WORDS, *MARKS, *SPACES]), st.text(max_size=4)), max_size=30).map("".join)


@pytest.fixture(scope="module")
def splitter():
    return WordSplitter("the test")


def words_that(flags, split):
    return [word for word, flag in zip(split.words, flags, strict=True) if flag]


@given(TEXT)
def test_words_are_the_characters_of_the_text(splitter, text):
    split = splitter.split(text)
    assert [
        text[start : start + len(word)] for start, word in zip(split.starts, split.words, strict=True)
    ] == split.words
    assert "".join(split.words) == "".join(text.split())
    assert split.starts == sorted(set(split.starts))


@pytest.fixture(scope="module")
def another_splitter():
    return WordSplitter("the test")


@given(st.lists(TEXT, max_size=4))
def test_what_was_split_before_makes_no_difference(splitter, another_splitter, texts):
    """One has seen the texts one by one, the other their runs all at once, in another order."""
    another_splitter.split(" ".join(reversed(texts)))
    assert [another_splitter.split(text) for text in texts] == [splitter.split(text) for text in texts]


def test_forgetting_makes_no_difference(splitter, monkeypatch):
    texts = [f"The fox no. {i} didn't sleep; it (the fox no. {i + 1}) ran." for i in range(20)]
    expected = [splitter.split(text) for text in texts]
    forgetful = WordSplitter("the test")
    monkeypatch.setattr(english, "MAX_WORDS", 40)
    assert [forgetful.split(text) for text in texts] == expected
    assert len(forgetful._known) < len({run for text in texts for run in text.split()})


def test_words_and_stop_words_are_those_of_spacy(shared, splitter):
    """On real text, where the tokenizer gets whole documents and ours runs of characters without white space."""
    texts = read_tagged(shared / "data" / "ud_ewt" / "en_ewt-ud-dev.conllu.xz")[:100]
    tokenizer = spacy.blank("en").tokenizer
    for text in texts:
        tokens = [token for token in tokenizer(text.text) if not token.is_space]
        split = splitter.split(text.text)
        assert split.words == [token.text for token in tokens]
        assert split.starts == [token.idx for token in tokens]
        assert split.is_stop == [token.is_stop for token in tokens]


@pytest.mark.parametrize(
    ("text", "beginnings"),
    [
        ("", []),
        ("The fox ran.", ["The"]),
        ("It rained. The fox ran! Did it? Yes", ["It", "The", "Did", "Yes"]),
        ('He said "no!" Then he left.', ["He", "Then"]),
        ('\u201cNo.\u201d ( "Yes" )', ["No", "Yes"]),
        ("... And then", ["And"]),
        ("A title\n\nThe text\nand more\n \n(The end)", ["A", "The", "The"]),
        ("Mr. Fox paid $3.50 in the U.S. yesterday", ["Mr."]),
    ],
)
def test_sentences(splitter, text, beginnings):
    split = splitter.split(text)
    assert words_that(split.begins_sentence, split) == beginnings


def test_paragraphs(splitter):
    split = splitter.split("\n\n(A title)\r\n\r\n\u201cA text,\nthe same text.\n \n\nEnd")
    assert words_that(split.begins_paragraph, split) == ["(", "\u201c", "End"]


@pytest.mark.parametrize("character", ["(", ".", "'", "x", "-", "\U0001f600", "\u65e5", "_"])
def test_a_long_run_is_cut(splitter, character):
    """Without the cut, 200,000 brackets take an hour."""
    split = splitter.split(character * 200_000 + " end")
    assert max(map(len, split.words)) <= LONGEST_RUN
    assert "".join(split.words) == character * 200_000 + "end"
    assert sum(split.begins_paragraph) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("fox", True), ("3", True), ("'s", True), ("\u65e5", True), ("...", False), ("\u201d", False)],
)
def test_is_word(text, expected):
    assert is_word(text) is expected


def test_addresses():
    assert all(map(ADDRESS.search, ["me@here.org", "http://x", "WWW.x.org", "ftp://y"]))
    assert not any(map(ADDRESS.search, ["awww.", "either/or", "a:b"]))


def test_missing_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(MissingExtraError, match=r"the test needs spacy, .*'cascaded-dllm\[preprocess\]'"):
        import_spacy("the test")
    with pytest.raises(MissingExtraError, match=r"the test needs textblob, .*'cascaded-dllm\[preprocess\]'"):
        import_parser("the test")


@pytest.mark.parametrize("missing", ["spacy", "textblob"])
def test_libraries_are_looked_for_without_importing_them(missing, monkeypatch):
    require_libraries("the test")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"the test needs {missing}, .*'cascaded-dllm\[preprocess\]'"):
        require_libraries("the test")


def test_lexicon_is_that_of_the_library(tmp_path, monkeypatch):
    lexicon = read_lexicon("the test")
    assert lexicon == dict(import_parser("the test").lexicon)
    assert len(lexicon) > 90_000
    (tmp_path / "textblob").mkdir()
    (tmp_path / "textblob" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "textblob")
    with pytest.raises(DataError, match=r"en-lexicon.txt, which the test reads, does not exist; install the version"):
        read_lexicon("the test")
    monkeypatch.setitem(sys.modules, "textblob", None)
    with pytest.raises(MissingExtraError, match="the test needs textblob"):
        read_lexicon("the test")


@pytest.mark.slow
@pytest.mark.parametrize("tagger", ["english", "lexicon"])
def test_a_tagger_is_named_before_its_libraries_are_imported(tagger):
    """Whoever plans a job need not wait for them."""
    code = f"import sys; from cascaded_dllm.assemble.scorers import make_tagger; name = make_tagger({tagger!r}).name; "
    code += "sys.exit(any(library in sys.modules for library in ('spacy', 'textblob', 'nltk')))"
    subprocess.run([sys.executable, "-c", code], check=True)
