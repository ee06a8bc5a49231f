"""What a way of sampling costs in quality: texts of a trained story cascade, judged by the grammar they come from.

    cdllm quickstart training.num_steps=2000
    cd runs/quickstart && OMP_NUM_THREADS=1 python ../../benchmarks/sampling_quality.py stage1 stage2 stage3 --save

The grammar knows the probability of every text, so all that has to be estimated is the share of texts that it accepts,
and the mean surprisal of those, which is shown beside the entropy of the grammar. A sampler that only writes probable
texts is found out by a surprisal below the entropy and by fewer distinct texts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from measure import Report, arguments, table

from cascaded_dllm import Cascade, StoryGrammar
from cascaded_dllm.evaluate.overlap import ordered_coverage_per_text


@dataclass(frozen=True, slots=True)
class Way:
    """A way of sampling.

    Attributes:
        name: for reports.
        options: of `Cascade.generate`.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of some texts under the grammar.

    Attributes:
        calls: network calls a text.
        accepted_share: share of texts that the grammar accepts.
        accepted_error: standard error of this share.
        surprisal: mean -log p of the accepted texts, in nats; nan if there are none.
        distinct_share: number of different texts over that of all.
        coverage: share of the prefix that the last stage keeps in its order.
    """

    calls: float
    accepted_share: float
    accepted_error: float
    surprisal: float
    distinct_share: float
    coverage: float

    @property
    def accepted(self) -> str:
        """The accepted share with its error, for reports."""
        return f"{self.accepted_share:.1%} +- {self.accepted_error:.1%}"


WAYS = (
    Way("analytic, 1,024 steps", {"predictor": "analytic", "steps": 1024}),
    Way("analytic, 128 steps", {"predictor": "analytic", "steps": 128}),
    Way("analytic, 16 steps", {"predictor": "analytic", "steps": 16}),
    Way("remask 0.1, 128 steps", {"predictor": "remask", "steps": 128}),
    Way("first_hitting", {}),
    Way("first_hitting, 1, 1 and 4 a call", {"tokens_per_call": [1, 1, 4]}),
    Way("first_hitting, 2 a call", {"tokens_per_call": 2}),
    Way("first_hitting, 4 a call", {"tokens_per_call": 4}),
    Way("first_hitting, 8 a call", {"tokens_per_call": 8}),
    Way("confidence", {"predictor": "confidence"}),
    Way("confidence, 1, 1 and 4 a call", {"predictor": "confidence", "tokens_per_call": [1, 1, 4]}),
    Way("confidence, 4 a call", {"predictor": "confidence", "tokens_per_call": 4}),
    Way("entropy", {"predictor": "entropy"}),
    Way("entropy, 4 a call", {"predictor": "entropy", "tokens_per_call": 4}),
    Way("first_hitting, temperature 0.7", {"temperature": 0.7}),
    Way("first_hitting, top_p 0.9", {"top_p": 0.9}),
    Way("first_hitting, coverage required", {"require_coverage": True}),
    Way("first_hitting, 4 a call, coverage required", {"tokens_per_call": 4, "require_coverage": True}),
)


def quality(cascade: Cascade, options: dict[str, Any], *, num_samples: int, seed: int = 0) -> Quality:
    """The quality of texts that are drawn in one way."""
    samples = cascade.generate(num_samples, seed=seed, batch_size=64, **options)
    grammar = StoryGrammar()
    texts = samples.final_texts
    accepted = [text for text in texts if grammar.accepts(text)]
    share = len(accepted) / num_samples
    coverage = 1.0 if len(samples.ids) == 1 else float(ordered_coverage_per_text(*samples.ids[-2:]).mean())
    return Quality(
        sum(samples.nfe),
        share,
        math.sqrt(share * (1 - share) / num_samples),
        -sum(map(grammar.log_prob, accepted)) / len(accepted) if accepted else math.nan,
        len(set(texts)) / num_samples,
        coverage,
    )


@dataclass(frozen=True, slots=True)
class Stories:
    """Trained cascades of stories, with which the quality of ways of drawing is measured.

    Attributes:
        prefix: a prefix cascade; None to leave it out.
        placed: a cascade of placed stages; None to leave it out.
        num_samples: texts of every way.
    """

    prefix: Cascade | None = None
    placed: Cascade | None = None
    num_samples: int = 512
    _known: dict[str, Quality] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.prefix is not None or self.placed is not None

    def quality_of(self, drawn: dict[str, Any], *, placed: bool) -> Quality | None:
        """The quality of texts drawn with these options, computed once; None without such a cascade."""
        cascade = self.placed if placed else self.prefix
        if cascade is None:
            return None
        key = f"{placed} {drawn}"
        if key not in self._known:
            self._known[key] = quality(cascade, drawn, num_samples=self.num_samples)
        return self._known[key]


def compare(report: Report, cascade: Cascade, ways: Sequence[Way], *, num_samples: int) -> None:
    """Judge all ways and report them."""
    rows = []
    for way in ways:
        found = quality(cascade, way.options, num_samples=num_samples)
        rows.append(
            (way.name, f"{found.calls:.1f}", found.accepted, f"{found.surprisal:.2f}", f"{found.distinct_share:.1%}",
             f"{found.coverage:.3f}")
        )  # fmt: skip
        report.record(
            way=way.name, num_samples=num_samples, calls=found.calls, accepted_share=found.accepted_share,
            surprisal_nats=found.surprisal, distinct_share=found.distinct_share, coverage=found.coverage,
        )  # fmt: skip
    lengths, entropy = ", ".join(map(str, cascade.stage_lengths)), StoryGrammar().entropy
    report.text(f"Stages of {lengths} tokens, {num_samples} texts each; the grammar has {entropy:.2f} nats a text.\n")
    header = ["way of sampling", "calls a text", "accepted", "nats a text", "distinct", "coverage by the last stage"]
    report.text(table(header, rows) + "\n")


def main() -> None:
    """Judge the cascade that the command line names."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("stages", nargs="+", help="runs of the story corpus, first stage first")
    parser.add_argument("--num-samples", type=int, default=512, help="texts of every way (default 512)")
    options = parser.parse_args()
    report = Report("Quality of samples", save=options.save)
    cascade = Cascade.from_pretrained(options.stages)
    ways = WAYS[4:7:2] if options.quick else WAYS
    compare(report, cascade, ways, num_samples=16 if options.quick else options.num_samples)
    report.close()


if __name__ == "__main__":
    main()
