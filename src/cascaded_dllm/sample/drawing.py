"""How texts are drawn, in one place: what `Cascade.generate` takes, and what can be told of it without a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.sample.conditioning import require_guidable, require_noisable
from cascaded_dllm.sample.control import Control, GivenStage, Pin
from cascaded_dllm.sample.predictors import Predictor, has_grid, predictor_from_name
from cascaded_dllm.sample.token_law import TokenLaw

DEFAULT_STEPS = 128
"""Steps of the time grid of a stage, for the predictors that have one."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How one stage is sampled.

    Attributes:
        predictor: how a step is taken.
        num_steps: of the time grid; None where there is none.
    """

    predictor: Predictor
    num_steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How texts are drawn: all that decides them besides the stages themselves.

    What is a tuple has one entry for all stages, or one for each.

    Attributes:
        predictor: names of predictors.
        steps: steps of the time grid, 128 if None; only for predictors that have one.
        tokens_per_call: tokens that leave MASK together, 1 if None; only for predictors without a grid.
        eta: of `remask`, 0.1 if None.
        gaps_per_call: gaps of a layout that are drawn together in placed stages; 1 if None.
        law: how the law of a token is changed.
        seed: decides, with the number of a text, all of its random numbers.
        guidance: weight of classifier-free guidance by the prefix; 0 is none.
        prefix_noise: probability that a token that a later stage is given is replaced as in its training.
        control: what the texts should hold.
    """

    predictor: tuple[str, ...] = ("first_hitting",)
    steps: tuple[int | None, ...] = (None,)
    tokens_per_call: tuple[int | None, ...] = (None,)
    eta: float | None = None
    gaps_per_call: int | None = None
    law: TokenLaw = field(default_factory=TokenLaw)
    seed: int = 0
    guidance: float = 0.0
    prefix_noise: float = 0.0
    control: Control = field(default_factory=Control)

    @property
    def num_entries(self) -> int:
        """The most stages that anything is told apart for; 1 where all is for all stages."""
        return max(map(len, (self.predictor, self.steps, self.tokens_per_call)))

    def plans(self, num_stages: int) -> tuple[StagePlan, ...]:
        """How every stage is sampled.

        Raises:
            ConfigError: there are neither one nor `num_stages` of something, a predictor is unknown, does not take what
                it is given, or a number is out of range.
        """
        names = _spread("predictors", self.predictor, num_stages)
        steps = self._for_some("steps", self.steps, names, takes=_has_grid)
        tokens = self._for_some("tokens_per_call", self.tokens_per_call, names, takes=lambda name: not _has_grid(name))
        etas = self._for_some("eta", (self.eta,), names, takes=lambda name: name == "remask")
        return tuple(
            _plan(name, number, count, eta) for name, number, count, eta in zip(names, steps, tokens, etas, strict=True)
        )

    def require_sound(self) -> None:
        """Checks all that can be told without the stages, for callers who have not loaded them yet.

        Raises:
            ConfigError: a number is out of range, or a predictor is unknown or does not take what it is given.
        """
        self.plans(self.num_entries)
        if self.gaps_per_call is not None:
            require_counts(gaps_per_call=self.gaps_per_call)
        # Of stages that could do both: what they were trained for is not known yet.
        require_guidable(self.guidance, PrefixSettings(dropout=0.5), prefix_length=1)
        require_noisable(self.prefix_noise, PrefixSettings(noise_prob=0.5), prefix_length=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Drawing":
        """The inverse of `asdict`; a KeyError or a TypeError if that is not what `values` are."""
        control = dict(values["control"])
        control["pins"] = tuple(Pin(**pin) for pin in control["pins"])
        control["given"] = None if control["given"] is None else GivenStage(**control["given"])
        return cls(**{**values, "law": TokenLaw(**values["law"]), "control": Control(**control)})

    def described(self) -> dict[str, Any]:
        """All settings for readers, without the texts that were given, which lie beside them in the run."""
        values = asdict(self)
        if self.control.given is not None:
            values["control"]["given"] = {"stage": self.control.given.stage, "texts": len(self.control.given.ids)}
        return values

    def num_steps(self, stage_lengths: Sequence[int]) -> int:
        """Steps of every stage, where all walk along the same grid; else the steps of a text through all stages."""
        plans = self.plans(len(stage_lengths))
        grids = {plan.num_steps for plan in plans}
        if len(grids) == 1 and (of_all := grids.pop()) is not None:
            return of_all
        return sum(
            -(-length // getattr(plan.predictor, "tokens_per_call", 1)) if plan.num_steps is None else plan.num_steps
            for plan, length in zip(plans, stage_lengths, strict=True)
        )

    def _for_some(
        self, what: str, values: Sequence[_Value | None], names: Sequence[str], *, takes: Callable[[str], bool]
    ) -> Sequence[_Value | None]:
        """A value for every stage. One for all goes to those whose predictor takes it, of which there must be one."""
        spread = _spread(what, values, len(names))
        if len(values) == 1 and any(map(takes, names)):
            return [value if takes(name) else None for value, name in zip(spread, names, strict=True)]
        return spread


def drawing_of_options(
    *,
    steps: int | Sequence[int | None] | None = None,
    predictor: str | Sequence[str] = "first_hitting",
    tokens_per_call: int | Sequence[int | None] | None = None,
    eta: float | None = None,
    gaps_per_call: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    guidance: float = 0.0,
    prefix_noise: float = 0.0,
    keywords: Sequence[str] = (),
    outline: str | None = None,
    pinned: Sequence[Pin] = (),
    given: GivenStage | None = None,
    require_coverage: bool = False,
) -> Drawing:
    """How texts are drawn, by the options of `Cascade.generate`, which says what they mean.

    Raises:
        ConfigError: `keywords` is a text, or something in `pinned` is no `Pin`.
    """
    if isinstance(keywords, str):
        raise ConfigError(f"keywords is the text {keywords!r}; give a list of words, ['storm', 'lighthouse']")
    for pin in pinned:
        if not isinstance(pin, Pin):
            raise ConfigError(f"pinned holds {pin!r}; give a list of Pin(stage, position, text)")
    return Drawing(
        predictor=entries(predictor),
        steps=entries(steps),
        tokens_per_call=entries(tokens_per_call),
        eta=eta,
        gaps_per_call=gaps_per_call,
        law=TokenLaw(temperature=temperature, top_k=top_k, top_p=top_p),
        seed=seed,
        guidance=guidance,
        prefix_noise=prefix_noise,
        control=Control(
            keywords=tuple(keywords),
            outline=outline,
            pins=tuple(pinned),
            given=given,
            require_coverage=require_coverage,
        ),
    )


def entries(value: "_Value | Sequence[_Value]") -> "tuple[_Value, ...]":
    """One entry for all stages, or one for each, as a tuple."""
    return (value,) if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)


def require_counts(**counts: int) -> None:
    """Checks that every one of these numbers, given by its name, is at least 1.

    Raises:
        ConfigError: one is not.
    """
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")


def _has_grid(name: str) -> bool:
    return has_grid(predictor_from_name(name))


def _spread(what: str, values: Sequence[_Value], num_stages: int) -> Sequence[_Value]:
    """One value for every stage."""
    if len(values) == 1:
        return list(values) * num_stages
    if len(values) != num_stages:
        raise ConfigError(
            f"{len(values)} {what} are given for {num_stages} stages; give one for all of them, or one for each"
        )
    return values


def _plan(name: str, steps: int | None, tokens_per_call: int | None, eta: float | None) -> StagePlan:
    predictor = predictor_from_name(name, tokens_per_call=tokens_per_call, eta=eta)
    if not has_grid(predictor):
        if steps is not None:
            raise ConfigError(
                f"steps is {steps} and the predictor {name}, which has no time grid: it makes one call a token, or one "
                "for tokens_per_call of them; leave steps out, or choose analytic or ancestral"
            )
        return StagePlan(predictor, None)
    if steps is not None and steps < 1:
        raise ConfigError(f"steps is {steps}; it must be at least 1, for example 128")
    return StagePlan(predictor, DEFAULT_STEPS if steps is None else steps)
