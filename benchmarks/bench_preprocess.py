"""Time preprocessing: importance against other programs, and the pipeline against itself.

The parts, each a process of its own in which the variants take turns:

    constituency    the taggers, against spaCy's whole pipeline, see bench_preprocess_constituency.py
    keybert         KeyBERT's scores against the KeyBERT library, see bench_preprocess_keybert.py
    reading         a corpus in which a part costs as much to read as the whole, read for 64 shards, see
                    bench_preprocess_reading.py
    workers         documents a second of the whole pipeline on 1, 2, ... processes of one thread, beside as many
                    independent commands at once, which show what the machine allows
    memory          of the largest process, for a shard and one that is four times as long

    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python benchmarks/bench_preprocess.py --data ../shared/data --save
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from documents import WORDS, novels, require_data, stories
from measure import Report, Work, arguments, ratios, spread, table, take_turns

from cascaded_dllm.processes import usable_cores
from cascaded_dllm.text.stories import story_tokenizer

PARTS = ("constituency", "keybert", "reading", "workers", "memory")
LONGER = 4


def write_corpus(path: Path, documents: list[str]) -> None:
    """Writes one document a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")


def start_pipeline(corpus: Path, tokenizer: Path, out: Path, *, shards: int = 8, workers: int = 1) -> subprocess.Popen:
    """Starts the command as a user would, with one thread a process."""
    flags = ["--dataset", str(corpus), "--tokenizer", str(tokenizer), "--tagger", "english", "--out", str(out)]
    command = ["preprocess", "constituency", *flags, "--shards", str(shards), "--workers", str(workers)]
    script = "from cascaded_dllm.cli.main import app; app()"
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-c", script, *command], stdout=subprocess.DEVNULL, env=os.environ | one_thread
    )


def run_pipelines(corpora: list[Path], tokenizer: Path, *, shards: int = 8, workers: int = 1) -> None:
    """Runs commands side by side, one for each corpus, into temporary folders."""
    with tempfile.TemporaryDirectory() as out:
        running = [
            start_pipeline(corpus, tokenizer, Path(out, str(number)), shards=shards, workers=workers)
            for number, corpus in enumerate(corpora)
        ]
        try:
            for process in running:
                if process.wait():
                    raise subprocess.CalledProcessError(process.returncode, process.args)
        finally:
            for process in running:
                process.kill()


def peak_megabytes(corpus: Path, tokenizer: Path) -> float:
    """Peak memory of the largest process that makes one shard, measured by a process without other children."""
    script = (
        "import resource, sys; sys.path[:0] = [sys.argv[1]]; import bench_preprocess as b; from pathlib import Path; "
        "b.run_pipelines([Path(sys.argv[2])], Path(sys.argv[3]), shards=1); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(corpus), str(tokenizer)]
    kilobytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return kilobytes / 1024 if sys.platform != "darwin" else kilobytes / 1024**2


def compare_workers(report: Report, documents: list[str], most: int, *, rounds: int) -> None:
    """Time the pipeline on 1, 2, ... processes, and as many commands at once, up to `most`."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus, folder = Path(temporary, "corpus.jsonl"), Path(temporary, "tokenizer")
        write_corpus(corpus, documents)
        story_tokenizer().save(folder)

        def prepare(workers: int, commands: int) -> Callable[[], Work]:
            def work() -> float:
                run_pipelines([corpus] * commands, folder, workers=workers)
                return float(len(documents) * commands)

            return lambda: work

        numbers = [1 << power for power in range(most.bit_length())]
        ways = {f"{workers} workers": (workers, 1) for workers in numbers}
        ways |= {f"{commands} commands": (1, commands) for commands in numbers[1:]}
        seconds = take_turns({name: prepare(*way) for name, way in ways.items()}, rounds=rounds)
        first = [taken.wall for taken in seconds["1 workers"]]
        rows = []
        for name, (workers, commands) in ways.items():
            walls = [taken.wall for taken in seconds[name]]
            gain, speed = ratios(first, walls), 1 / spread(walls).median
            rows.append((workers, commands, f"{speed:.1f}", gain))
            report.record(part="workers", workers=workers, commands=commands, documents_per_second=speed, speedup=gain)
        report.text(f"{len(documents)} documents of {WORDS} words, tagger english, start of the command included.\n")
        report.text(table(["workers", "commands at once", "documents a second", "speed-up (wall)"], rows) + "\n")


def compare_memory(report: Report, documents: list[str]) -> None:
    """Measure the memory for a shard and for one that is `LONGER` times as long, and report it."""
    with tempfile.TemporaryDirectory() as temporary:
        short, long, folder = (Path(temporary, name) for name in ("short.jsonl", "long.jsonl", "tokenizer"))
        write_corpus(short, documents[: len(documents) // LONGER])
        write_corpus(long, documents)
        story_tokenizer().save(folder)
        found = [peak_megabytes(corpus, folder) for corpus in (short, long)]
        report.record(part="memory", peak_megabytes=found[0], peak_megabytes_longer=found[1], longer=LONGER)
        report.text(
            f"Largest process for a shard of {len(documents) // LONGER} documents of {WORDS} words: {found[0]:.0f} MB; "
            f"of {len(documents)}: {found[1]:.0f} MB.\n"
        )


def main() -> None:
    """Run the parts that the command line names."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the novels; not needed for --quick")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--documents", type=int, default=2048, help="for workers and memory (default 2048)")
    options = parser.parse_args()
    require_data(parser, options)
    passed = ["--repeats", str(options.repeats), *(["--quick"] if options.quick else ["--data", str(options.data)])]
    for part in options.part or PARTS:
        if part in ("workers", "memory"):
            report = Report("Preprocessing", save=options.save)
            documents = stories(8) if options.quick else novels(options.data, options.documents)
            if part == "workers":
                compare_workers(report, documents, 2 if options.quick else usable_cores(), rounds=options.repeats)
            else:
                compare_memory(report, documents)
            report.close()
            continue
        script = Path(__file__).with_name(f"bench_preprocess_{part}.py")
        saved = ["--save"] if options.save else []
        subprocess.run([sys.executable, str(script), *passed, *saved], check=True, env=os.environ.copy())


if __name__ == "__main__":
    main()
