"""The samples of a snapshot, with the texts they were made from and figures about them.

`assemble.snapshot` draws and measures them; the logs of a run show them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cascaded_dllm.atomic import write_json, write_text
from cascaded_dllm.text.listing import listing


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledText:
    """One text, with the texts of the stages before that it was made from.

    Attributes:
        stages: texts by stage number, in order; the network in training wrote the last one.
        truth: the true text of the same window, if the prefix is a true one.
        multiset_overlap: for every stage but the first of `stages`, the share of the tokens of the stage before that it
            kept.
        ordered_coverage: the same for tokens that were kept in their order.
    """

    stages: Mapping[int, str]
    truth: str | None
    multiset_overlap: tuple[float, ...]
    ordered_coverage: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGroup:
    """Samples of one kind.

    Attributes:
        samples: one entry a text.
        figures: numbers about all samples; their names say the unit or the reduction.
    """

    samples: tuple[SampledText, ...]
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """Samples of a stage with the averaged weights at one step.

    Attributes:
        step: optimizer steps done.
        groups: samples by kind. `conditional`: the prefix is a true one. `unconditional`: all stages are generated.
            `truth`, without samples: the figures of the true texts of the conditional samples.
    """

    step: int
    groups: Mapping[str, SampleGroup]

    def figures(self) -> dict[str, float]:
        """All figures, by names such as "conditional/multiset_overlap_mean_stage1_in_stage2"."""
        return {f"{kind}/{name}": value for kind, group in self.groups.items() for name, value in group.figures.items()}

    def write(self, run: Path) -> None:
        """Write samples/step_<n>.json and then step_<n>.txt into the folder of a run.

        Raises:
            OutputError: they cannot be written.
        """
        file = samples_file(run, self.step)
        write_json(file.with_suffix(".json"), asdict(self))
        write_text(file, self.listing())

    def listing(self) -> str:
        """The report as text: the figures, then one block for each sample, each followed by a line of 80 "="."""
        head = [f"step {self.step}", *(f"{name}: {value:.4g}" for name, value in self.figures().items())]
        blocks = (block for texts in self.texts().values() for block in texts)
        return listing(["\n".join(head), *blocks])

    def texts(self) -> dict[str, list[str]]:
        """By kind, one block for each sample: its number, its stages and, if there is one, the true text."""
        return {
            kind: [_block(f"{kind} {number}", sample) for number, sample in enumerate(group.samples)]
            for kind, group in self.groups.items()
            if group.samples
        }


def samples_file(run: Path, step: int) -> Path:
    """The file that lists the samples of a step in the folder of a run."""
    return run / "samples" / f"step_{step}.txt"


def _block(title: str, sample: SampledText) -> str:
    stages = [f"[stage {stage}] {text}" for stage, text in sample.stages.items()]
    truth = [] if sample.truth is None else [f"[truth] {sample.truth}"]
    return "\n".join([title, *stages, *truth])
