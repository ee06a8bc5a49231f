import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.pos import TaggedWord
from cascaded_dllm.importance.tagged_corpora import GoldWord, TaggedText, accuracy, read_tagged

CONLLU = """\
# newdoc id = a
# newpar id = a-1
# text = I don't know.
1	I	I	PRON	PRP	_	4	nsubj	_	_
2-3	don't	_	_	_	_	_	_	_	_
2	do	do	AUX	VBP	_	4	aux	_	_
3	n't	not	PART	RB	_	4	advmod	_	_
4	know	know	VERB	VB	_	0	root	_	SpaceAfter=No
5	.	.	PUNCT	.	_	4	punct	_	_

# text = Gone
1	Gone	go	VERB	VBN	_	0	root	_	_
1.1	he	he	PRON	PRP	_	_	_	_	CopyOf=-1

# newpar id = a-2
1-2	can't	_	_	_	_	_	_	_	SpaceAfter=No
1	ca	can	AUX	MD	_	0	root	_	_
2	n't	not	PART	RB	_	1	advmod	_	_
3	!	!	PUNCT	.	_	1	punct	_	Foreign=Yes|SpaceAfter=No

# newdoc id = b
# newpar id = b-1
1	Paris	Paris	PROPN	NNP	_	0	root	_	_
"""
TSV = """\
# doc = a
# category = letters
A	DT
title	NN

The	DT
#	NN
ran	VBD
.	.
"	''

Again	RB
!	.

# doc = b
Paris	NNP
"""


def spans(text):
    return [(text.text[start:end], tag) for start, end, tag in text.words]


@pytest.mark.parametrize("suffix", [".conllu", ".conllu.gz", ".conllu.xz"])
def test_conllu(tmp_path, suffix):
    path = tmp_path / f"corpus.v1{suffix}"
    compress = {"gz": gzip.compress, "xz": lzma.compress}.get(suffix[-2:], bytes)
    path.write_bytes(compress(CONLLU.encode()))
    first, second = read_tagged(path)
    assert first.text == "I don't know. Gone\n\ncan't!"
    assert spans(first) == [
        ("I", "PRP"),
        ("do", "VBP"),
        ("n't", "RB"),
        ("know", "VB"),
        (".", "."),
        ("Gone", "VBN"),
        ("ca", "MD"),
        ("n't", "RB"),
        ("!", "."),
    ]
    assert second == TaggedText("Paris ", (GoldWord(0, 5, "NNP"),))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tsv(tmp_path, newline):
    path = tmp_path / "corpus.tsv"
    path.write_bytes(TSV.replace("\n", newline).encode())
    first, second = read_tagged(path)
    # An empty line behind a full stop adds nothing: the mark tells that the sentence ends.
    assert first.text == 'A title\n\nThe # ran . " Again ! '
    assert spans(first)[2:6] == [("The", "DT"), ("#", "NN"), ("ran", "VBD"), (".", ".")]
    assert second.words == (GoldWord(0, 5, "NNP"),)


@pytest.mark.slow
def test_real_corpora(shared):
    texts = read_tagged(shared / "data" / "ud_ewt" / "en_ewt-ud-test.conllu.xz")
    assert sum(len(text.words) for text in texts) == 25_094
    assert texts[0].text.startswith("What if Google Morphed Into GoogleOS? What if Google expanded on its search")
    masc = read_tagged(shared / "data" / "pos" / "masc_tagged.tsv.xz")
    assert len(masc) == 323


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", None, r"a\.tsv is missing or broken \(.*No such file.*; name a \.conllu file, or a \.tsv file with"),
        ("a.txt", b"fox\tNN\n", r"a\.txt is not a tagged corpus of a known kind; name a \.conllu"),
        ("a.gz", gzip.compress(b"fox\tNN\n", mtime=0), r"a\.gz is not a tagged corpus"),
        ("a.tsv.gz", gzip.compress(b"fox\tNN\n" * 99, mtime=0)[:-9], r"a\.tsv\.gz is missing or broken"),
        ("a.tsv.gz", b"fox\tNN\n", r"a\.tsv\.gz is missing or broken \(Not a gzipped file"),
        ("a.tsv.xz", lzma.compress(b"fox\tNN\n" * 99)[:-20], r"a\.tsv\.xz is missing or broken"),
        ("a.tsv.xz", b"fox\tNN\n", r"a\.tsv\.xz is missing or broken \(Input format not supported"),
        ("a.tsv", b"caf\xe9\tNN\n", r"a\.tsv is missing or broken \(.*utf-8"),
        ("a.tsv", b"fox\tNN\nhare\n", r"\(the line 'hare' is not a word with a tag\)"),
        ("a.tsv", b"fox\t\n", r"\(the line 'fox' is not a word with a tag\)"),
        ("a.conllu", b"1\tfox\tfox\tNOUN\tNN\n", r"a\.conllu is missing or broken \(not enough values"),
        ("a.conllu", b"1\tfox\t_\tNOUN\t_\t_\t_\t_\t_\t_\n", r"a\.conllu holds no words with Penn tags; name"),
        ("a.tsv", b"", r"a\.tsv holds no words with Penn tags"),
    ],
)
def test_no_corpus(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tagged(tmp_path / name)


class Fixed:
    """A tagger with the same words for every text."""

    name = "fixed"

    def __init__(self, *words):
        self.words = [TaggedWord(start, end, "", tag, False) for start, end, tag in words]

    def tag(self, texts):
        return [self.words for _ in texts]


def test_accuracy_is_of_classes_by_characters():
    text = TaggedText("ab-cd efg h", (GoldWord(0, 5, "NNS"), GoldWord(6, 9, "VBD"), GoldWord(10, 11, "MD")))
    assert accuracy(Fixed((0, 5, "NN"), (6, 9, "VB"), (10, 11, "XX")), [text]) == 1
    # "ab" and "cd" share as much of the first word: the earlier counts. "ef" has more of the second one than "g".
    assert accuracy(Fixed((0, 2, "NN"), (2, 3, "XX"), (3, 5, "JJ"), (6, 8, "VBG"), (8, 9, "RB")), [text]) == 2 / 3
    # A proper noun is another class than a noun; what has no word is wrong, even where all else is meant.
    assert accuracy(Fixed((0, 5, "NNP"), (5, 6, "XX")), [text, text]) == 0


@given(st.lists(st.tuples(st.sampled_from(["NN", "NNP", "VBD", "JJ", "RBR", "IN"]), st.booleans()), min_size=1))
def test_accuracy_of_the_same_words_is_the_part_of_equal_classes(words):
    text = TaggedText("a" * len(words), tuple(GoldWord(i, i + 1, tag) for i, (tag, _) in enumerate(words)))
    tagger = Fixed(*((i, i + 1, tag if right else "CD+") for i, (tag, right) in enumerate(words)))
    assert accuracy(tagger, [text]) == sum(right or tag == "IN" for tag, right in words) / len(words)
