"""Train an offline tagger on tagged text.

A corpus is a .conllu file with Penn tags in column 5, or a .tsv file with a word and its tag a line, also with .gz or
.xz behind the name. `cdllm preprocess constituency --tagger FILE` takes what this writes. The tagger "english" was made
from MASC (anc.org/data/masc), which takes a minute and 2 GB of memory:

    python scripts/train_tagger.py masc_tagged.tsv.xz --repair-masc --out english_tagger.npz
"""

import argparse
import sys
from pathlib import Path

from cascaded_dllm.errors import CascadeError
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.masc import repaired
from cascaded_dllm.importance.tagged_corpora import accuracy, read_tagged
from cascaded_dllm.importance.tagger_training import examples, train, with_other_cases
from cascaded_dllm.importance.tagger_weights import save_weights


def show(iteration: int, loss: float) -> None:
    """One line, written over."""
    sys.stderr.write(f"\riteration {iteration}: {loss:.4f} nats a word")
    sys.stderr.flush()


def main() -> None:
    """Train on the corpora that the command line names, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="for instance tagger.npz")
    parser.add_argument("--iterations", type=int, default=60, metavar="N", help="of L-BFGS (default 60)")
    parser.add_argument("--repair-masc", action="store_true", help="put right the known faults of MASC's tags")
    parser.add_argument("--test", type=Path, metavar="CORPUS", help="say how well it does on this one")
    options = parser.parse_args()
    try:
        texts = [text for path in options.corpora for text in read_tagged(path)]
        sentences = with_other_cases(list(examples(repaired(texts) if options.repair_masc else texts)))
        weights = train(sentences, iterations=options.iterations, progress=show)
        save_weights(weights, options.out)
        tagger = LinearTagger.load(options.out)
        sys.stdout.write(f"\n{options.out}: {tagger.name}\n")
        if options.test is not None:
            found = accuracy(tagger, read_tagged(options.test))
            sys.stdout.write(f"{found:.4f} of the words of {options.test} are in the right one of the six classes\n")
    except CascadeError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
