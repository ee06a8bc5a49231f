"""Time preprocessing: importance against what others compute it with, and the pipeline against itself.

The parts, each interleaved in one run of its own process:

    constituency    the taggers, against spaCy's whole pipeline, see bench_preprocess_constituency.py
    keybert         KeyBERT's scores against the KeyBERT library, see bench_preprocess_keybert.py
    workers         documents a second of the whole pipeline on 1, 2, ... processes, and the memory of the largest
                    process for a corpus and one that is four times as long

    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python benchmarks/bench_preprocess.py --data ../shared/data --save
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from documents import WORDS, novels, stories
from measure import Report, Work, arguments, ratios, spread, table, take_turns

from cascaded_dllm.processes import usable_cores
from cascaded_dllm.text.stories import story_tokenizer

PARTS = ("constituency", "keybert", "workers")
LONGER = 4


def write_corpus(path: Path, documents: list[str]) -> None:
    """One document a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")


def run_pipeline(corpus: Path, tokenizer: Path, workers: int) -> None:
    """The command, as a user gives it, into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        flags = ["--dataset", str(corpus), "--tokenizer", str(tokenizer), "--tagger", "english", "--out", out]
        command = ["preprocess", "constituency", *flags, "--shards", "8", "--workers", str(workers)]
        script = "from cascaded_dllm.cli.main import app; app()"
        subprocess.run([sys.executable, "-c", script, *command], check=True, stdout=subprocess.DEVNULL)


def peak_megabytes(corpus: Path, tokenizer: Path) -> float:
    """Memory of the largest process of one run, measured by a process that has no other children."""
    script = (
        "import resource, sys; sys.path[:0] = [sys.argv[1]]; import bench_preprocess as b; from pathlib import Path; "
        "b.run_pipeline(Path(sys.argv[2]), Path(sys.argv[3]), 1); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(corpus), str(tokenizer)]
    kilobytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return kilobytes / 1024 if sys.platform != "darwin" else kilobytes / 1024**2


def compare_workers(report: Report, documents: list[str], *, rounds: int) -> None:
    """Time the pipeline on 1, 2, ... processes, twice as many each time."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus, longer, folder = (Path(temporary, name) for name in ("corpus.jsonl", "longer.jsonl", "tokenizer"))
        write_corpus(corpus, documents)
        write_corpus(longer, documents * LONGER)
        story_tokenizer().save(folder)

        def prepare(workers: int) -> Callable[[], Work]:
            def work() -> float:
                run_pipeline(corpus, folder, workers)
                return float(len(documents))

            return lambda: work

        numbers = [1 << power for power in range(usable_cores().bit_length())]
        seconds = take_turns({str(workers): prepare(workers) for workers in numbers}, rounds=rounds)
        rows = []
        for workers in numbers:
            walls = [taken.wall for taken in seconds[str(workers)]]
            gain = ratios([taken.wall for taken in seconds["1"]], walls)
            rows.append((workers, f"{1 / spread(walls).median:.1f}", gain))
            report.record(part="workers", workers=workers, documents_per_second=1 / spread(walls).median, speedup=gain)
        report.text(f"{len(documents)} documents of {WORDS} words, tagger english, start of the command included.\n")
        report.text(table(["workers", "documents a second", "speed-up (wall)"], rows) + "\n")
        short, long = peak_megabytes(corpus, folder), peak_megabytes(longer, folder)
        report.record(part="memory", peak_megabytes=short, peak_megabytes_longer=long, longer=LONGER)
        report.text(f"Largest process: {short:.0f} MB; for a corpus {LONGER} times as long {long:.0f} MB.\n")


def main() -> None:
    """Run the parts that the command line names."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the novels; not needed for --quick")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--documents", type=int, default=2048, help="of the part workers (default 2048)")
    options = parser.parse_args()
    if not options.quick and options.data is None:
        parser.error("--data is needed, or --quick")
    passed = ["--repeats", str(options.repeats), *(["--quick"] if options.quick else ["--data", str(options.data)])]
    for part in options.part or PARTS:
        if part == "workers":
            report = Report("Preprocessing", save=options.save)
            documents = stories(8) if options.quick else novels(options.data, options.documents)
            compare_workers(report, documents, rounds=options.repeats)
            report.close()
            continue
        script = Path(__file__).with_name(f"bench_preprocess_{part}.py")
        saved = ["--save"] if options.save else []
        subprocess.run([sys.executable, str(script), *passed, *saved], check=True, env=os.environ.copy())


if __name__ == "__main__":
    main()
