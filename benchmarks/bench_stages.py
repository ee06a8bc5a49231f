"""Time building the training arrays of a preprocessed dataset, against a plain way that takes window by window.

The corpus is random: documents of a few hundred tokens, ids by Zipf's law, labels as frequent as those of English text.
Everything from the shards on disk to the arrays on disk is timed, including the check of the shards' hashes.

    plain          every document cut and every window's stages chosen in Python, written 1,024 windows at a time
    1 process      whole row groups: cut, sorted and written as arrays
    2 processes    the same with a row group a task, on as many processes as --workers says. CPU time is that of the
                   writing process alone, so it shows with how many others that process can keep up

    OMP_NUM_THREADS=1 python benchmarks/bench_stages.py --save
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measure import Report, Work, arguments, ratios, spread, table, take_turns

from cascaded_dllm.cascade.select import select_positions
from cascaded_dllm.cascade.spec import CascadeSpec
from cascaded_dllm.data.array_file import ArrayFile
from cascaded_dllm.data.manifest import Settings
from cascaded_dllm.data.preprocessed import PreprocessedDataset, complete_dataset, shard_folder
from cascaded_dllm.data.shards import SourceHash, write_shard
from cascaded_dllm.data.stages import StageArrays

SPEC = CascadeSpec((32, 64, 128))
VOCAB_SIZE = 50257
EOS_ID = VOCAB_SIZE - 1
LABELS = {1: 0.04, 2: 0.03, 3: 0.2, 4: 0.1, 5: 0.07, 6: 0.05, 7: 0.5, -100: 0.01}
BATCH = 1024


def drawn_dataset(folder: Path, num_tokens: int) -> Path:
    """A preprocessed dataset of one shard with about `num_tokens` random tokens."""
    settings = Settings(
        dataset="drawn", split="train", source={}, num_shards=1, method="constituency", scorer={}, background=-100.0,
        tokenizer="drawn", vocab_size=VOCAB_SIZE, eos_id=EOS_ID,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    with write_shard(shard_folder(folder, 0), settings, 0, SourceHash()) as writer:
        while writer.counts.tokens < num_tokens:
            length = int(draw.integers(100, 1300))
            token_ids = (draw.zipf(1.2, length) % EOS_ID).astype(np.int32)
            labels = draw.choice(np.array(list(LABELS), dtype=np.float32), length, p=list(LABELS.values()))
            writer.add(str(writer.counts.documents), token_ids, labels, num_characters=length)
    (folder / "tokenizer.json").write_text("{}")
    complete_dataset(folder, settings)
    return folder


def plain_windows(dataset: PreprocessedDataset) -> Iterator[tuple[list[int], list[float]]]:
    """The windows of the stream of all documents."""
    token_ids: list[int] = []
    importance: list[float] = []
    for record in dataset.records():
        token_ids += [*record.token_ids.tolist(), EOS_ID]
        importance += [*record.importance.tolist(), dataset.settings.background]
        while len(token_ids) >= SPEC.window_length:
            yield token_ids[: SPEC.window_length], importance[: SPEC.window_length]
            token_ids, importance = token_ids[SPEC.window_length :], importance[SPEC.window_length :]


def plain_build(folder: Path, out: Path) -> list[Path]:
    """Writes the arrays of all stages and of their positions, and returns the files."""
    dataset = PreprocessedDataset.open(folder)
    lengths = [*SPEC.stage_lengths, *SPEC.stage_lengths[:-1]]
    paths = [out / f"{number}.npy" for number in range(len(lengths))]
    files = [ArrayFile(path, length) for path, length in zip(paths, lengths, strict=True)]
    rows: list[list[list[int]]] = [[] for _ in files]
    for token_ids, importance in plain_windows(dataset):
        positions = select_positions(token_ids, importance, SPEC.stage_lengths, method=dataset.settings.method)
        if positions is not None:
            stages = [[token_ids[i] for i in kept] for kept in positions]
            for held, row in zip(rows, [*stages, *positions[:-1]], strict=True):
                held.append(row)
        if len(rows[0]) == BATCH:
            append(files, rows)
            rows = [[] for _ in files]
    append(files, rows)
    for file in files:
        file.__exit__(None, None, None)
    return paths


def append(files: list[ArrayFile], rows: list[list[list[int]]]) -> None:
    """Writes the rows that are held."""
    for file, held in zip(files, rows, strict=True):
        if held:
            file.append(np.array(held, dtype=np.int32))


def same_arrays(folder: Path) -> int:
    """The number of windows, after a check that both ways give the same arrays."""
    with tempfile.TemporaryDirectory() as place:
        plain = [np.load(path) for path in plain_build(folder, Path(place))]
        arrays = StageArrays.build(folder, SPEC, packing="stream", out=Path(place))
        fast: list[npt.NDArray[np.int32]] = [*arrays.stages, *arrays.positions]
        for one, other in zip(plain, fast, strict=True):
            np.testing.assert_array_equal(one, other)
        return arrays.num_windows


def plain(folder: Path, num_windows: int) -> float:
    """Builds once in the plain way."""
    with tempfile.TemporaryDirectory() as out:
        plain_build(folder, Path(out))
    return num_windows


def fast(folder: Path, num_windows: int, workers: int) -> float:
    """Builds once."""
    with tempfile.TemporaryDirectory() as out:
        StageArrays.build(folder, SPEC, packing="stream", out=Path(out), workers=workers)
    return num_windows


def prepared(work: Work) -> Callable[[], Work]:
    """A preparation that does nothing."""
    return lambda: work


def compare(report: Report, folder: Path, *, rounds: int, workers: int) -> None:
    """Time all ways and report them."""
    num_windows = same_arrays(folder)
    report.text(f"{num_windows:,} windows of {SPEC.window_length} tokens; all ways give the same arrays.\n")
    seconds = take_turns(
        {
            "plain": prepared(partial(plain, folder, num_windows)),
            "1 process": prepared(partial(fast, folder, num_windows, 1)),
            f"{workers} processes": prepared(partial(fast, folder, num_windows, workers)),
        },
        rounds=rounds,
    )
    rows = []
    clocks = {name: ([one.cpu for one in taken], [one.wall for one in taken]) for name, taken in seconds.items()}
    for name, (cpu, wall) in clocks.items():
        rate = spread([1 / value for value in wall]).median
        by_cpu, by_wall = (ratios(slow, fast) for slow, fast in zip(clocks["plain"], (cpu, wall), strict=True))
        rows.append((name, f"{1e6 * spread(cpu).median:.1f}", f"{rate:,.0f}", by_cpu, by_wall))
        report.record(
            way=name, windows=num_windows, cpu_seconds_a_window=spread(cpu).median, windows_per_second=rate,
            speedup_cpu=by_cpu, speedup_wall=by_wall,
        )  # fmt: skip
    header = ["way", "CPU us a window", "windows a second", "speed-up (CPU)", "speed-up (wall)"]
    report.text(table(header, rows) + "\n")


def main() -> None:
    """Compare all ways on a corpus of the size that the command line names."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--tokens", type=float, default=16, metavar="M", help="millions of tokens (default 16)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    options = parser.parse_args()
    report = Report("Stages", save=options.save)
    with tempfile.TemporaryDirectory() as place:
        folder = drawn_dataset(Path(place) / "drawn", int(1e6 * (0.05 if options.quick else options.tokens)))
        compare(report, folder, rounds=options.repeats, workers=options.workers)
    report.close()


if __name__ == "__main__":
    main()
