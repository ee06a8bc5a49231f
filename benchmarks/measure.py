"""Timing side by side: variants take turns, and every number is a ratio within one turn.

On a shared machine, seconds of separate runs cannot be compared, but ratios within one turn can. For the same reason
the CPU time of the process is the main measure, with wall-clock time beside it. With more than one thread, it includes
the time in which threads wait for each other.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch

RESULTS = Path(__file__).parent / "results"

Work = Callable[[], float]
"""What is timed; returns how many units of work it did."""


class Seconds(NamedTuple):
    """Seconds for one unit of work."""

    cpu: float
    wall: float


class Spread(NamedTuple):
    """The median and the extremes of a few measurements."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def take_turns(variants: Mapping[str, Callable[[], Work]], *, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of every variant in every round; in a round all variants run once, one after another.

    Args:
        variants: by name, a function that prepares one measurement, untimed, and returns what is to be timed.
        rounds: how many rounds count; one more comes first, to warm up.
    """
    seconds: dict[str, list[Seconds]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, prepare in variants.items():
            work = prepare()
            _finish()
            cpu, wall = time.process_time(), time.perf_counter()
            units = work()
            _finish()
            taken = Seconds((time.process_time() - cpu) / units, (time.perf_counter() - wall) / units)
            if turn > 0:
                seconds[name].append(taken)
    return seconds


def _finish() -> None:
    """Waits for the work of the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest of `values`."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(reference: Sequence[float], variant: Sequence[float]) -> Spread:
    """How many times faster the variant was than the reference, round by round."""
    return spread([slow / fast for slow, fast in zip(reference, variant, strict=True)])


def peak_bytes() -> int:
    """The most memory this process has had at a time."""
    if platform.system() == "Linux":
        # Not ru_maxrss, which a child process inherits from the parent that started it.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> dict[str, str | int]:
    """What the numbers depend on besides the code."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}),
        "instructions": torch.backends.cpu.get_cpu_capability()
        + (" AMX" if re.search(r"\bamx_bf16\b", _cpu_info()) else ""),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_info() -> str:
    """What Linux tells of the processor; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8") if info.is_file() else ""


def _cpu_name() -> str:
    names = re.findall(r"model name\s*: (.*)", _cpu_info())
    return names[0].strip() if names else platform.processor() or platform.machine()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns line up."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def require_device(name: str) -> torch.device:
    """The device of a benchmark; a GPU is in use from now on, so that `machine` names it."""
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.init()
    return device


def arguments(description: str, *, repeats: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, metavar="N", help=f"rounds (default {repeats})")
    parser.add_argument("--quick", action="store_true", help="a toy network and little else, to see that it runs")
    parser.add_argument("--save", action="store_true", help="append the results to benchmarks/results")
    return parser


class Report:
    """Prints results as they come and, if wanted, appends them to benchmarks/results: a page and JSON lines.

    Args:
        title: headline.
        save: write as well as print.
    """

    def __init__(self, title: str, *, save: bool) -> None:
        self._lines: list[str] = []
        self._records: list[dict[str, object]] = []
        self._title, self._save, self._machine = title, save, machine()
        described = ", ".join(f"{name} {value}" for name, value in self._machine.items())
        self.text(f"## {title}\n\n{described}\n")

    def text(self, text: str) -> None:
        """Add a paragraph or a table."""
        print(text, flush=True)
        self._lines.append(text)

    def record(self, **values: object) -> None:
        """Add one measurement for machines to read."""
        self._records.append(values)

    def close(self) -> None:
        """Append everything to the files of today and this CPU, or this GPU."""
        if not self._save:
            return
        RESULTS.mkdir(exist_ok=True)
        name = torch.cuda.get_device_name() if torch.cuda.is_initialized() else _cpu_name()
        short = re.sub(r"\W+", "-", re.sub(r"\(.*?\)|processor|cpu|@.*", "", name, flags=re.I)).strip("-").lower()
        stem = RESULTS / f"{date.today().isoformat()}-{short}"
        with stem.with_suffix(".md").open("a", encoding="utf-8") as page:
            page.write("\n".join(self._lines) + "\n\n")
        whole = {"benchmark": self._title, "date": date.today().isoformat(), "machine": self._machine}
        with stem.with_suffix(".jsonl").open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(whole | record) + "\n" for record in self._records)
