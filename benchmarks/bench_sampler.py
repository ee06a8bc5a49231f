"""Time sampling a cascade of 32, 64 and 128 tokens against the plain reference.

Timed is one network call of each stage, with everything else that a step does; the time of a whole cascade is the sum
over its stages of calls times seconds a call. Cascades by first hitting are also run from end to end, if that takes
less than --longest seconds. Samplers take turns, stage by stage.

    plain                  full tensors and a race in float64; 1,024 steps on a time grid and the final denoising
    plain whole            prefix and target are one sequence: the prefix goes through all of that as well
    analytic score         the same steps drawn in two parts, for masked positions only
    analytic normalized    and no call for a text that does not change in a step
    first hitting          one call a token, without a time grid
    first hitting one_way  and the prefix encoded once
    first hitting placed   placed stages instead of prefixes: one call a new token, and the layouts
    4 tokens a call        first hitting one_way with four tokens a call, which is no longer exact

With --stories, the quality of a way of drawing stands beside its speed: the share of texts of a trained story cascade
that its grammar accepts, and their mean surprisal (sampling_quality.py explains both, and has more ways).

    cdllm quickstart training.num_steps=2000
    OMP_NUM_THREADS=1 python benchmarks/bench_sampler.py --stories runs/quickstart/stage[123] --save
    python benchmarks/bench_sampler.py --device cuda --batch 32 --batch 256 --save
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from measure import Report, Seconds, Spread, Work, arguments, ratios, require_device, spread, table, take_turns
from networks import DTYPES, SIZES, Size, chosen, placed_networks, random_network, same_weights
from plain import plain_analytic_step
from sampling_quality import Stories
from torch import Tensor

from cascaded_dllm import Cascade
from cascaded_dllm.diffusion.philox import Draws
from cascaded_dllm.diffusion.process import AbsorbingProcess
from cascaded_dllm.diffusion.schedule import LogLinearSchedule
from cascaded_dllm.model.placed import PlacedModel
from cascaded_dllm.model.score_model import ScoreModel
from cascaded_dllm.sample.predictors import FirstHittingPredictor, Predictor, TweediePredictor
from cascaded_dllm.sample.sampler import StageSampler
from cascaded_dllm.sample.state import SamplerState, Start

GRID = 1024
"""Steps of the time grid; the final denoising is one more call."""
SCHEDULE = LogLinearSchedule()
PLAIN_ON_GPU = 32
"""Texts whose plain tensors fit on a GPU at a time; more take proportionally longer."""
EXPLANATION = f"""\
A speed-up is that of a whole cascade against plain float32 with {GRID + 1:,} calls a stage, from the seconds of a call
times the calls of a cascade: the median over rounds with the smallest and the largest. At equal calls the plain sampler
is granted the same number of calls. A call is one of the network for all texts; analytic normalized calls it for the
texts that change, and is charged their share. Plain whole takes prefix and target for one sequence, all of which goes
through the output layer, the scores and the race. Run end to end: seconds and speed-up of a real cascade.
"""

OF_STORIES = """\
Accepted are texts of the grammar among {count} drawn in this way, in float32 and by all stages, from cascades trained
on its stories; nats are the mean surprisal of those under the grammar.
"""

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Sampler:
    """One way of sampling a cascade.

    Attributes:
        name: for reports.
        dtype: of the matrix products of the trunk.
        model: the network of every stage.
        predictor: of the package; None for the plain reference, which has its own.
        calls: from the length of a stage to its network calls.
        measure: from a sampler and a stage, which counts from 1, to the preparation of one measurement.
        lengths: of the stages.
        num_texts: written together.
        placed: networks of the placed stages, from the second on; empty for stages with a prefix.
    """

    name: str
    dtype: str
    model: ScoreModel
    predictor: Predictor | None
    calls: Callable[[int], float]
    measure: "Measure"
    lengths: tuple[int, ...]
    num_texts: int
    placed: tuple[PlacedModel, ...] = ()

    @property
    def drawn(self) -> dict[str, Any]:
        """The options of `Cascade.generate` that draw in this way; plain sampling has the law of the analytic steps."""
        if isinstance(self.predictor, FirstHittingPredictor):
            return {"tokens_per_call": self.predictor.tokens_per_call}
        return {"predictor": "analytic", "steps": GRID}

    @property
    def label(self) -> str:
        """Name and dtype."""
        return f"{self.name} {self.dtype}"

    def num_calls(self, stage: int) -> float:
        """Network calls of a stage, of which a placed one makes none for the tokens of the stage before."""
        known = self.lengths[stage - 2] if self.placed and stage > 1 else 0
        return self.calls(self.lengths[stage - 1] - known)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    def random_prefix(self, stage: int) -> Tensor | None:
        """Random ids in place of the text of the stage before; None for stage 1."""
        if stage == 1:
            return None
        shape = (self.num_texts, self.lengths[stage - 2])
        return torch.randint(self.model.config.vocab_size, shape, device=self.device)

    def states(
        self, stage: int, prefix: Tensor | None, *, num_steps: int = GRID, start: Start | None = None
    ) -> Iterator[SamplerState]:
        """The states of one stage, by the sampler of the package."""
        assert self.predictor is not None
        process = AbsorbingProcess(self.model.config.vocab_size)
        model = self.placed[stage - 2] if self.placed and stage > 1 else self.model
        return StageSampler(model, process, SCHEDULE, self.lengths[stage - 1]).states(
            prefix,
            predictor=self.predictor,
            num_steps=num_steps,
            draws=Draws(0, f"benchmark-{stage}"),
            sample_index=torch.arange(self.num_texts, device=self.device),
            start=start,
        )


Measure = Callable[[Sampler, int], Callable[[], Work]]


def plain_call(sampler: Sampler, stage: int) -> Callable[[], Work]:
    """A plain step in the middle of the grid; its cost is the same at every time."""
    return lambda: _plain_step(sampler.model, _half_masked(sampler, stage), sampler.random_prefix(stage))


def plain_whole_call(sampler: Sampler, stage: int) -> Callable[[], Work]:
    """The same step on prefix and target as one sequence."""
    prefix, xt = sampler.random_prefix(stage), _half_masked(sampler, stage)
    return lambda: _plain_step(sampler.model, xt if prefix is None else torch.cat([prefix, xt], dim=1), None)


def _half_masked(sampler: Sampler, stage: int) -> Tensor:
    shape, mask_id = (sampler.num_texts, sampler.lengths[stage - 1]), sampler.model.config.vocab_size
    noised = torch.where(torch.rand(shape) < 0.5, mask_id, torch.randint(mask_id, shape))
    return noised.to(sampler.device)


def _plain_step(model: ScoreModel, xt: Tensor, prefix: Tensor | None) -> Work:
    num_texts = min(len(xt), PLAIN_ON_GPU) if xt.is_cuda else len(xt)
    part, of_prefix = xt[:num_texts], None if prefix is None else prefix[:num_texts]
    times = (torch.full((num_texts,), t, device=xt.device) for t in (0.5, 0.5 - 1 / GRID))
    sigma_t, sigma_s = (SCHEDULE(t).sigma for t in times)

    def work() -> float:
        plain_analytic_step(model, part, of_prefix, sigma_t, sigma_s)
        return num_texts / len(xt)

    return work


def call_with_half_masked(sampler: Sampler, stage: int) -> Callable[[], Work]:
    """A step from the middle of the grid, where half of the positions are masked, as they are on average.

    The cost is linear in the number of masked positions, and in that of the few which leave MASK.
    """
    prefix = sampler.random_prefix(stage)
    start = Start(_half_masked(sampler, stage), torch.full((sampler.num_texts,), 0.5, device=sampler.device))

    def prepare() -> Work:
        steps = sampler.states(stage, prefix, num_steps=GRID // 2, start=start)
        before = next(steps).nfe
        return lambda: next(steps).nfe - before

    return prepare


def calls_of_a_run(sampler: Sampler, stage: int) -> Callable[[], Work]:
    """Continues a run until it has made at least one more network call for the whole batch.

    Work that a run does once, such as encoding a prefix, is not timed here but where whole cascades are run.
    """
    prefix, half = sampler.random_prefix(stage), sampler.num_calls(stage) / 2
    running: Iterator[SamplerState] = iter(())
    nfe = math.inf

    def prepare() -> Work:
        nonlocal running, nfe
        if nfe > half:
            running = sampler.states(stage, prefix)
            nfe = next(running).nfe
        return work

    def work() -> float:
        nonlocal nfe
        before = nfe
        while nfe < before + 1:
            nfe = next(running).nfe
        return nfe - before

    return prepare


def all_calls(length: int) -> float:
    """Calls of a time grid that asks the network at every step."""
    return GRID + 1.0


def calls_with_a_change(length: int) -> float:
    """Expected steps of the grid at which one of `length` tokens or more leaves MASK; each does so at one step."""
    return GRID * (1 - (1 - 1 / GRID) ** length)


def a_quarter(length: int) -> float:
    """Calls of first hitting with four tokens a call."""
    return math.ceil(length / 4)


def samplers(size: Size, num_texts: int, device: torch.device, dtypes: Sequence[str]) -> list[Sampler]:
    """All samplers in float32 and the other dtypes; first the plain ones, with which others are compared."""
    weights, lengths = random_network(size, "joint").to(device), size.stage_lengths
    analytic, hitting, by_four = TweediePredictor(), FirstHittingPredictor(), FirstHittingPredictor(4)
    plain = same_weights(weights, "joint", "score")
    found = [Sampler("plain whole", "float32", plain, None, all_calls, plain_whole_call, lengths, num_texts)]
    for dtype, compute_dtype in chosen(dtypes).items():
        plain, score = same_weights(weights, "joint", "score"), same_weights(weights, "joint", "score")
        normal, one_way = same_weights(weights, "joint", "normalized"), same_weights(weights, "one_way", "normalized")
        placed = placed_networks(normal, lengths)
        plain.compute_dtype = compute_dtype
        if compute_dtype is not None:
            for model in (score, normal, one_way, *placed):
                model.keep_trunk_in(compute_dtype)
        entries: list[tuple[str, ScoreModel, Predictor | None, Callable[[int], float], Measure]] = [
            ("plain", plain, None, all_calls, plain_call),
            ("analytic score", score, analytic, all_calls, call_with_half_masked),
            ("analytic normalized", normal, analytic, calls_with_a_change, calls_of_a_run),
            ("first hitting", normal, hitting, float, calls_of_a_run),
            ("first hitting one_way", one_way, hitting, float, calls_of_a_run),
            ("first hitting placed", normal, hitting, float, calls_of_a_run),
            ("4 tokens a call", one_way, by_four, a_quarter, calls_of_a_run),
        ]
        found += [
            Sampler(name, dtype, *rest, lengths, num_texts, placed if name.endswith("placed") else ())
            for name, *rest in entries
        ]
    return found


def whole_cascade(sampler: Sampler) -> Seconds:
    """Seconds of a cascade of a batch of texts, from the first stage to the last."""
    cpu, wall = time.process_time(), time.perf_counter()
    prefix = None
    for stage in range(1, len(sampler.lengths) + 1):
        *_, last = sampler.states(stage, prefix)
        prefix = last.xt
    assert prefix is not None
    prefix.cpu()  # waits for the device
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


class Timed:
    """Seconds of a call of every sampler, stage and round.

    `clock` is CPU time, or wall-clock time on a GPU.
    """

    def __init__(self, contestants: list[Sampler], *, rounds: int) -> None:
        self.clock: Clock = "wall" if contestants[0].device.type == "cuda" else "cpu"
        self._lengths, self._whole, self._reference = contestants[0].lengths, *contestants[:2]
        self._stages = [
            take_turns({sampler.label: sampler.measure(sampler, stage) for sampler in contestants}, rounds=rounds)
            for stage in range(1, len(self._lengths) + 1)
        ]

    def a_call(self, sampler: Sampler) -> list[float]:
        """Seconds of a call of each stage, the median over rounds."""
        return [
            spread([getattr(taken, self.clock) for taken in of_stage[sampler.label]]).median
            for of_stage in self._stages
        ]

    def a_cascade(self, sampler: Sampler, clock: Clock) -> list[float]:
        """Seconds of a cascade in every round."""
        weights = [sampler.num_calls(stage) for stage in range(1, len(self._lengths) + 1)]
        return [
            sum(weight * getattr(taken, clock) for weight, taken in zip(weights, of_round, strict=True))
            for of_round in zip(*(of_stage[sampler.label] for of_stage in self._stages), strict=True)
        ]

    def speed_up(self, sampler: Sampler, clock: Clock, *, equal_calls: bool = False) -> Spread:
        """How many times faster than the reference, which makes its own number of calls or that of `sampler`."""
        reference = (
            replace(self._reference, calls=sampler.calls, placed=sampler.placed) if equal_calls else self._reference
        )
        return ratios(self.a_cascade(reference, clock), self.a_cascade(sampler, clock))

    def speed_up_to_whole(self, sampler: Sampler) -> Spread:
        """How many times faster than plain sampling with prefix and target as one sequence."""
        return ratios(self.a_cascade(self._whole, self.clock), self.a_cascade(sampler, self.clock))

    def speed_up_of_a_run(self, sampler: Sampler, taken: Seconds) -> float:
        """How many times faster than the reference a cascade was that was run end to end."""
        return spread(self.a_cascade(self._reference, self.clock)).median / getattr(taken, self.clock)


def compare(
    report: Report, name: str, contestants: list[Sampler], stories: Stories, *, rounds: int, longest: float
) -> None:
    """Time all samplers of one network on batches of one size and report them."""
    num_texts, timed = contestants[0].num_texts, Timed(contestants, rounds=rounds)
    clock, rows = timed.clock, []
    for sampler in contestants:
        a_call, calls = timed.a_call(sampler), sum(map(sampler.num_calls, range(1, len(sampler.lengths) + 1)))
        cascade, wall = (spread(timed.a_cascade(sampler, which)).median for which in (clock, "wall"))
        in_all, in_all_wall = timed.speed_up(sampler, clock), timed.speed_up(sampler, "wall")
        by_call, to_whole = timed.speed_up(sampler, clock, equal_calls=True), timed.speed_up_to_whole(sampler)
        is_run = isinstance(sampler.predictor, FirstHittingPredictor) and wall < longest
        run = whole_cascade(sampler) if is_run else None
        in_run = timed.speed_up_of_a_run(sampler, run) if run else None
        seconds = " / ".join(f"{stage:.4f}" for stage in a_call)
        whole = f"{getattr(run, clock):.1f} s, {in_run:.1f}" if run else ""
        numbers = (seconds, f"{calls:.0f}", f"{cascade:.1f}")
        is_asked = sampler.dtype == "float32"  # the dtype in which stories are drawn
        written = stories.quality_of(sampler.drawn, placed=bool(sampler.placed)) if is_asked else None
        costs = (written.accepted, f"{written.surprisal:.2f}") if written else ("", "") if stories else ()
        rows.append((sampler.label, *numbers, in_all, in_all_wall, by_call, to_whole, whole, *costs))
        report.record(
            size=name, num_texts=num_texts, sampler=sampler.name, dtype=sampler.dtype, clock=clock,
            seconds_a_call=a_call, calls=calls, seconds_a_cascade=cascade, speedup=in_all, speedup_wall=in_all_wall,
            speedup_equal_calls=by_call, speedup_to_whole=to_whole,
            seconds_of_a_run=getattr(run, clock) if run else None, speedup_of_a_run=in_run,
            accepted_share=written.accepted_share if written else None,
            surprisal_nats=written.surprisal if written else None,
        )  # fmt: skip
    lengths = ", ".join(map(str, contestants[0].lengths))
    report.text(f"### {name}, {num_texts} texts at a time, stages of {lengths} tokens, {clock} time\n")
    header = ["sampler", "s a call, by stage", "calls", "s a cascade", "speed-up", "speed-up (wall)", "at equal calls"]
    header += ["to plain whole", "run end to end", *(["accepted", "nats a text"] if stories else [])]
    report.text(table(header, rows) + "\n")
    if stories:
        report.text(OF_STORIES.format(count=stories.num_samples))


def main() -> None:
    """Compare all samplers with the network that the command line names, for every size of batches."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--size", choices=["reduced", "small"], default="small", help="network (default small)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where (default cpu)")
    parser.add_argument("--batch", type=int, action="append", help="texts at a time (default 4); may be repeated")
    parser.add_argument(
        "--dtype", choices=DTYPES, action="append", help="beside float32; may be repeated (default all)"
    )
    parser.add_argument(
        "--longest", type=float, default=120, metavar="S", help="run whole cascades that take less (default 120)"
    )
    parser.add_argument("--stories", nargs="+", metavar="RUN", help="stages of a story cascade with prefixes")
    parser.add_argument("--placed-stories", nargs="+", metavar="RUN", help="stages of a placed story cascade")
    parser.add_argument("--num-samples", type=int, help="stories of every way (default 512, with --quick 16)")
    options = parser.parse_args()
    torch.manual_seed(0)
    device, name = require_device(options.device), "toy" if options.quick else options.size
    report = Report("Sampling", save=options.save)
    report.text(EXPLANATION)
    prefix, placed = (
        Cascade.from_pretrained(runs) if runs else None for runs in (options.stories, options.placed_stories)
    )
    if placed is not None and not placed.stages[-1].is_placed:
        parser.error(f"--placed-stories names stages with prefixes: {' '.join(options.placed_stories)}")
    stories = Stories(prefix, placed, options.num_samples or (16 if options.quick else 512))
    for num_texts in options.batch or [4]:
        compare(
            report,
            name,
            samplers(SIZES[name], num_texts, device, options.dtype or []),
            stories,
            rounds=options.repeats,
            longest=options.longest,
        )
    report.close()


if __name__ == "__main__":
    main()
