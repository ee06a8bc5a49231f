"""Taggers that need no model: the shipped one by name, and one of one's own from corpus to preprocessed data."""

import io
import random
import re
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from cascaded_dllm.assemble.scorers import make_tagger
from cascaded_dllm.data.preprocessed import PreprocessedDataset
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.pos import PosLabel
from cascaded_dllm.text.tokenizer import Tokenizer
from tests.pipeline.commands import success

for library in ("spacy", "textblob", "scipy"):
    pytest.importorskip(library, reason=f"{library} is not installed")

SCRIPTS = Path(__file__).parents[2] / "scripts"
TEXT = "Ada Lovelace quickly wrote a long program.\n\nThe old fox was asleep."


class Finished(NamedTuple):
    """How a script ended and what it said."""

    code: int
    stdout: str
    stderr: str


def run(script, *arguments):
    """Runs a script in this process, which has imported what it needs already."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
    return Finished(code, out.getvalue(), err.getvalue())


def labels(folder):
    """Of each document, the words and the labels of their tokens, which must agree."""
    tokenizer = Tokenizer.load(folder)
    found = []
    for record in PreprocessedDataset.open(folder).records():
        of_character = [
            int(label)
            for token, label in zip(record.token_ids.tolist(), record.importance.tolist(), strict=True)
            for _ in tokenizer.decode([token])
        ]
        words = re.finditer(r"\w+", tokenizer.decode(record.token_ids.tolist()))
        of_words = {word.group(): set(of_character[word.start() : word.end()]) for word in words}
        found.append({word: PosLabel(label) for word, (label,) in of_words.items()})
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Every adverb ends in -ly and every adjective in -ous, in any order; all else is no class."""
    path = tmp_path_factory.mktemp("corpus") / "words.tsv"
    draws, lines = random.Random(0), []
    for stem in ["glor", "nerv", "fam", "jeal", "cur", "danger", "fur", "glam"] * 10:
        words = [f"{stem}ous\tJJ\n", f"{stem}ly\tRB\n", "it\tPRP\n", "was\tIN\n", "and\tCC\n"]
        draws.shuffle(words)
        lines += [*words, ".\t.\n\n"]
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def weights(corpus):
    path = corpus.with_name("own.npz")
    done = run("train_tagger.py", corpus, "--out", path, "--iterations", 20)
    assert done.code == 0, done.stderr
    assert "iteration 1: " in done.stderr
    assert f"{path}: linear (" in done.stdout
    return path


@pytest.mark.slow
def test_shipped_tagger(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    flags = ["--dataset", tmp_path / "corpus.txt", "--train-tokenizer", 300, "--workers", 1, "--out", tmp_path]
    success("preprocess", "constituency", "--tagger", "english", *flags)
    folder = tmp_path / "constituency" / "corpus_train"
    first, second = labels(folder)
    assert first == {
        "Ada": PosLabel.PROPER_NOUN,
        "Lovelace": PosLabel.HEAD_PROPER_NOUN,
        "quickly": PosLabel.ADVERB,
        "wrote": PosLabel.VERB,
        "a": PosLabel.OTHER,
        "long": PosLabel.ADJECTIVE,
        "program": PosLabel.NOUN,
    }
    assert second["was"] == PosLabel.OTHER, "a stop word"
    assert PreprocessedDataset.open(folder).settings.scorer["tagger"].startswith("english (")


def test_tagger_of_ones_own(weights):
    """It knows nothing but endings."""
    (words,) = make_tagger(str(weights)).tag(["Lovelace was curious and slowly wrote"])
    assert [word.tag for word in words] == ["XX", "XX", "JJ", "XX", "RB", "XX"]


def test_accuracy_of_taggers(corpus, weights):
    done = run("tagger_accuracy.py", weights, "lexicon", "--corpus", corpus)
    assert done.code == 0, done.stderr
    own, lexicon = done.stdout.splitlines()
    assert re.fullmatch(r"1\.0000 of 480 words of words\.tsv: linear \(.*\)", own)
    assert re.fullmatch(r"0\.\d{4} of 480 words of words\.tsv: lexicon 2 \(.*\)", lexicon)


@pytest.mark.slow
def test_repairs_of_masc(tmp_path):
    """MASC has symbols as nouns, and i as one; repaired, they are not learnt as such."""
    path = tmp_path / "masc.tsv"
    path.write_text("*\tNN\ni\tNN\nsaw\tVBD\nfoxes\tNNS\n\n" * 5)
    outputs = []
    for flags in ([], ["--repair-masc"]):
        out = tmp_path / "tagger.npz"
        done = run("train_tagger.py", path, "--out", out, *flags)
        assert done.code == 0, done.stderr
        (words,) = LinearTagger.load(out).tag(["* i saw foxes"])
        outputs.append([word.tag for word in words])
    assert outputs == [["NN", "NN", "VB", "NN"], ["XX", "XX", "VB", "NN"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_tagger.py", "{corpus}", "--out", "tagger.bin"], "--out is tagger.bin; it must end in .npz, by which"),
        (["train_tagger.py", "{corpus}", "--out", "a.npz", "--iterations", "0"], "--iterations is 0; it must be at"),
        (["train_tagger.py", "nowhere.tsv", "--out", "a.npz"], "nowhere.tsv is missing or broken"),
        (["tagger_accuracy.py", "nowhere.npz", "--corpus", "{corpus}"], "nowhere.npz holds no tagger, or is missing"),
        (["tagger_accuracy.py", "lexicon", "--corpus", "nowhere.txt"], "nowhere.txt is not a tagged corpus"),
    ],
)
def test_mistakes(corpus, arguments, message):
    done = run(*(argument.format(corpus=corpus) for argument in arguments))
    assert done.code == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
