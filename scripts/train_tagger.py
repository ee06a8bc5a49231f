"""Train an offline tagger on tagged text.

A corpus is a .conllu file with Penn tags in column 5, or a .tsv file with a word and its tag a line, also compressed
as .gz or .xz. `cdllm preprocess constituency --tagger FILE` takes what this writes, and
scripts/tagger_accuracy.py says how good it is. The tagger "english" was made from MASC, in a minute and with 2 GB of
memory:

    python scripts/train_tagger.py masc_tagged.tsv.xz --repair-masc --out english_tagger.npz
"""

import argparse
import sys
from pathlib import Path

from cascaded_dllm.errors import CascadeError, ConfigError
from cascaded_dllm.importance.linear_tagger import LinearTagger
from cascaded_dllm.importance.masc import repaired
from cascaded_dllm.importance.tagged_corpora import read_tagged
from cascaded_dllm.importance.tagger_examples import examples, with_other_cases
from cascaded_dllm.importance.tagger_training import train
from cascaded_dllm.importance.tagger_weights import save_weights


def show(iteration: int, loss: float) -> None:
    """Writes the progress over the line before."""
    sys.stderr.write(f"\riteration {iteration}: {loss:.4f} nats a word")
    sys.stderr.flush()


def make(options: argparse.Namespace) -> str:
    """Trains, writes the weights, and returns the name of the tagger that has them.

    Raises:
        CascadeError: an option is out of range, a corpus is damaged, or the output cannot be written.
    """
    if options.out.suffix != ".npz":
        raise ConfigError(f"--out is {options.out}; it must end in .npz, by which --tagger knows it")
    if options.iterations < 1:
        raise ConfigError(f"--iterations is {options.iterations}; it must be at least 1")
    sentences = list(examples(text for path in options.corpora for text in read_tagged(path)))
    if options.repair_masc:
        sentences = repaired(sentences)
    weights = train(with_other_cases(sentences), iterations=options.iterations, progress=show)
    save_weights(weights, options.out)
    return LinearTagger.load(options.out).name


def main() -> None:
    """Train on the corpora that the command line names, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="for instance tagger.npz")
    parser.add_argument("--iterations", type=int, default=60, metavar="N", help="of L-BFGS (default 60)")
    parser.add_argument("--repair-masc", action="store_true", help="correct the known faults of MASC's tags")
    options = parser.parse_args()
    try:
        name = make(options)
    except CascadeError as error:
        parser.exit(2, f"error: {error}\n")
    sys.stdout.write(f"\n{options.out}: {name}\n")


if __name__ == "__main__":
    main()
