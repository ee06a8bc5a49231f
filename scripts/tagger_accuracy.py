"""Print the share of the words of a tagged corpus that taggers put in the right one of six classes, from raw text.

The classes are proper nouns, nouns, verbs, adjectives, adverbs and all else. A tagger is what `--tagger` of
`cdllm preprocess constituency` takes, a corpus what scripts/train_tagger.py takes.

    python scripts/tagger_accuracy.py english lexicon --corpus en_ewt-ud-test.conllu.xz
"""

import argparse
import sys
from pathlib import Path

from cascaded_dllm.assemble.scorers import make_tagger
from cascaded_dllm.errors import CascadeError
from cascaded_dllm.importance.tagged_corpora import accuracy, read_tagged


def main() -> None:
    """Print a line for each corpus and tagger."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("taggers", nargs="+", metavar="TAGGER")
    parser.add_argument("--corpus", type=Path, action="append", required=True, help="may be repeated")
    options = parser.parse_args()
    try:
        taggers = [make_tagger(name) for name in options.taggers]
        for path in options.corpus:
            texts = read_tagged(path)
            words = sum(len(text.words) for text in texts)
            for tagger in taggers:
                sys.stdout.write(f"{accuracy(tagger, texts):.4f} of {words:,} words of {path.name}: {tagger.name}\n")
                sys.stdout.flush()
    except CascadeError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
