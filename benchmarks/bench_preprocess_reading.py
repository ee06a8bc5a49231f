"""Time reading a corpus for many shards: by each shard for itself, or once for all of them.

    each    every shard reads the corpus and takes its part, as a task of a job array does
    once    one pass stores the records by shard, and every shard reads its own, as `cdllm preprocess` does

Both give the same records. The text is that of novels, as compressed lines of JSON and as plain paragraphs.

    OMP_NUM_THREADS=1 python benchmarks/bench_preprocess_reading.py --data ../shared/data --save
"""

import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

from documents import novels, require_data, stories
from measure import Report, Work, arguments, ratios, spread, table, take_turns

from cascaded_dllm.preprocess.parts import read_part, write_parts
from cascaded_dllm.text.corpora import open_corpus
from cascaded_dllm.text.corpus import Corpus


def write_corpora(folder: Path, documents: list[str]) -> list[Path]:
    """Writes the documents in several forms, and returns the files."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
    contents = {
        "novels.jsonl.xz": lzma.compress(lines, preset=3),
        "novels.jsonl.gz": gzip.compress(lines),
        "novels.txt": "\n\n".join(documents).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def each(corpus: Corpus, shards: int) -> int:
    """The number of records that all shards find, each for itself."""
    return sum(1 for shard in range(shards) for _ in corpus.part(shard, shards))


def once(corpus: Corpus, shards: int) -> int:
    """The number of records that all shards find after one pass."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "parts")
        write_parts(corpus, shards, range(shards), folder, lambda _: None)
        parts = (read_part(folder, shard) for shard in range(shards))
        return sum(1 for part in parts if part is not None for _ in part)


def main() -> None:
    """Compare both for every form."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the novels; not needed for --quick")
    parser.add_argument(
        "--documents", type=int, default=4096, metavar="N", help="how many, of 700 words (default 4096)"
    )
    parser.add_argument("--shards", type=int, default=64, metavar="N", help="shards of the dataset (default 64)")
    options = parser.parse_args()
    require_data(parser, options)
    documents = stories(40) if options.quick else novels(options.data, options.documents)
    megabytes = sum(map(len, documents)) / 1e6
    report = Report("Reading a corpus for many shards", save=options.save)
    report.text(f"{len(documents)} documents, {megabytes:.1f} million characters, {options.shards} shards.\n")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for path in write_corpora(Path(temporary), documents):
            corpus = open_corpus(str(path), split="train")
            found: dict[str, int] = {}

            def prepare(
                name: str, read: Callable[[Corpus, int], int], corpus: Corpus = corpus, found: dict[str, int] = found
            ) -> Callable[[], Work]:
                def work() -> float:
                    found[name] = read(corpus, options.shards)
                    return 1.0

                return lambda: work

            seconds = take_turns({"each": prepare("each", each), "once": prepare("once", once)}, rounds=options.repeats)
            assert found["each"] == found["once"]
            apart, together = ([taken.cpu for taken in seconds[name]] for name in ("each", "once"))
            gain = ratios(apart, together)
            rows.append((path.name, f"{spread(apart).median:.2f}", f"{spread(together).median:.2f}", gain))
            report.record(
                form=path.name, shards=options.shards, megacharacters=megabytes, cpu_seconds_each=spread(apart).median,
                cpu_seconds_once=spread(together).median, gain=gain,
            )  # fmt: skip
    report.text(table(["form", "each: CPU seconds", "once: CPU seconds", "gain"], rows) + "\n")
    report.close()


if __name__ == "__main__":
    main()
