"""How texts are drawn: the options of `Cascade.generate`, and what can be checked and said without a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypedDict, TypeVar, cast, get_args

from cascaded_dllm.checks import plain_number, require_whole
from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.sample.conditioning import require_guidable, require_noisable
from cascaded_dllm.sample.control import Control, GivenStage, Pin, several
from cascaded_dllm.sample.predictors import (
    PREDICTORS,
    Predictor,
    RemaskPredictor,
    has_grid,
    predictor_from_name,
    require_steps,
)
from cascaded_dllm.sample.token_law import TokenLaw

DEFAULT_STEPS = 128
"""Steps of the time grid of a stage, for the predictors that have one."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How one stage is sampled.

    Attributes:
        predictor: how a step is taken.
        num_steps: steps of the time grid; None for a predictor without one.
    """

    predictor: Predictor
    num_steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How texts are drawn: all that decides them besides the stages themselves.

    A tuple has one entry for all stages, or one for each.

    Attributes:
        predictor: names of predictors.
        steps: steps of the time grid, 128 if None; only for predictors that have one.
        tokens_per_call: tokens that leave MASK together, 1 if None; only for predictors without a grid.
        eta: eta of `remask`, 0.1 if None.
        gaps_per_call: gaps of a layout that are drawn together in placed stages; 1 if None.
        law: how the law of a token is changed.
        seed: decides, with the number of a text, all of its random numbers.
        guidance: weight of classifier-free guidance by the prefix; 0 is none.
        prefix_noise: probability that a token of the prefix that a later stage reads is replaced as in its training.
        control: what the texts must contain.
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

    def __post_init__(self) -> None:
        for name in ("guidance", "prefix_noise"):
            object.__setattr__(self, name, plain_number(name, getattr(self, name)))

    @property
    def num_entries(self) -> int:
        """The largest number of entries in any tuple: the number of stages, or 1 if every entry is for all stages."""
        return max(map(len, (self.predictor, self.steps, self.tokens_per_call)))

    def plans(self, num_stages: int) -> tuple[StagePlan, ...]:
        """How every stage is sampled.

        Raises:
            ConfigError: a tuple has neither 1 nor `num_stages` entries, a predictor is unknown or does not take an
                option that is set for it, or a number is out of range.
        """
        names = _spread("predictors", self.predictor, num_stages)
        steps = self._for_some("steps", self.steps, names, takes=_has_grid)
        tokens = self._for_some("tokens_per_call", self.tokens_per_call, names, takes=lambda name: not _has_grid(name))
        etas = self._for_some("eta", (self.eta,), names, takes=lambda name: name == "remask")
        return tuple(
            _plan(name, number, count, eta) for name, number, count, eta in zip(names, steps, tokens, etas, strict=True)
        )

    def of_stages(self, num_stages: int, kept: slice) -> "Drawing":
        """The drawing of the stages `kept` of `num_stages`, one entry for each; eta only if one of them takes it."""
        plans = self.plans(num_stages)[kept]
        predictors = [plan.predictor for plan in plans]
        return replace(
            self,
            predictor=tuple(predictor.name for predictor in predictors),
            steps=tuple(plan.num_steps for plan in plans),
            tokens_per_call=tuple(getattr(predictor, "tokens_per_call", None) for predictor in predictors),
            eta=self.eta if any(isinstance(predictor, RemaskPredictor) for predictor in predictors) else None,
        )

    def require_sound(self) -> None:
        """Checks all that can be checked without the stages, for callers that have not loaded them yet.

        Raises:
            ConfigError: a number is out of range, or a predictor is unknown or does not take an option that is set for
                it.
        """
        self.plans(self.num_entries)
        require_whole("seed", self.seed)
        if self.gaps_per_call is not None:
            require_whole("gaps_per_call", self.gaps_per_call, 1)
        # As for stages trained for both, since the real ones are not known yet.
        require_guidable(self.guidance, PrefixSettings(dropout=0.5), prefix_length=1)
        require_noisable(self.prefix_noise, PrefixSettings(noise_prob=0.5), prefix_length=1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Drawing":
        """The inverse of `asdict`; raises a KeyError or a TypeError for other values."""
        control = dict(values["control"])
        control["pins"] = tuple(Pin(**pin) for pin in control["pins"])
        control["given"] = None if control["given"] is None else GivenStage(**control["given"])
        return cls(**{**values, "law": TokenLaw(**values["law"]), "control": Control(**control)})

    def described(self) -> dict[str, Any]:
        """All settings for readers; of given texts only their stage and number, since the run holds the texts."""
        values = asdict(self)
        if self.control.given is not None:
            values["control"]["given"] = {"stage": self.control.given.stage, "texts": len(self.control.given.ids)}
        return values

    def amount_of_work(self, stage_lengths: Sequence[int]) -> str:
        """The work as a folder's name says it: "steps_128" if all stages have the same time grid, else "calls_64".

        The number of calls is the most that a text can take in all stages together, without those of guidance and of
        words that are written first: one for every `tokens_per_call` tokens, or one for every step of a grid and one
        for the final denoising.
        """
        plans = self.plans(len(stage_lengths))
        grids = {plan.num_steps for plan in plans}
        if len(grids) == 1 and (of_all := grids.pop()) is not None:
            return f"steps_{of_all}"
        calls = sum(
            -(-length // getattr(plan.predictor, "tokens_per_call", 1))
            if plan.num_steps is None
            else plan.num_steps + 1
            for plan, length in zip(plans, stage_lengths, strict=True)
        )
        return f"calls_{calls}"

    def _for_some(
        self, what: str, values: Sequence[_Value | None], names: Sequence[str], *, takes: Callable[[str], bool]
    ) -> Sequence[_Value | None]:
        """A value for every stage.

        A single value goes to the stages whose predictor takes it. If there is none, it goes to all of them, so that
        `_plan` refuses it.
        """
        spread = _spread(what, values, len(names))
        if len(values) == 1 and any(map(takes, names)):
            return [value if takes(name) else None for value, name in zip(spread, names, strict=True)]
        return spread


class DrawingOptions(TypedDict, total=False):
    """Options of `Cascade.generate`, which documents them, and of `Cascade.stream`.

    An option that is left out has the default of `Drawing`, `TokenLaw` or `Control`.
    """

    predictor: str | Predictor | Sequence[str | Predictor]
    steps: int | Sequence[int | None] | None
    tokens_per_call: int | Sequence[int | None] | None
    eta: float | None
    gaps_per_call: int | None
    temperature: float
    top_k: int | None
    top_p: float
    seed: int
    guidance: float
    prefix_noise: float
    keywords: Sequence[str]
    outline: str | None
    pinned: Sequence[Pin]
    given: GivenStage | None
    require_coverage: bool


_PREDICTORS: tuple[type, ...] = get_args(Predictor)


def options_among(values: Mapping[str, Any]) -> DrawingOptions:
    """The items of `values` whose key is the name of an option."""
    return cast(DrawingOptions, {name: values[name] for name in DrawingOptions.__annotations__ if name in values})


def drawing_of_options(options: DrawingOptions, drawing: Drawing | None = None) -> Drawing:
    """The `drawing` if there is one, or else that of the options.

    Raises:
        ConfigError: both options and a drawing are given, `keywords` is a text, an entry of `pinned` is not a `Pin`, an
            entry of `predictor` is neither a name nor a predictor, or a number is given both by an option and by a
            predictor.
        TypeError: there is no such option.
    """
    if unknown := [name for name in options if name not in DrawingOptions.__annotations__]:
        raise TypeError(f"there is no option {unknown[0]}; there are {', '.join(DrawingOptions.__annotations__)}")
    if drawing is not None and options:
        raise ConfigError(f"a drawing is given, and beside it {', '.join(options)}; give only one of them")
    if drawing is not None:
        return drawing
    keywords = several("keywords", options.get("keywords", ()), "words")
    pins = several("pinned", options.get("pinned", ()), "Pin(stage, position, text)")

    def own(kind: type[Drawing | TokenLaw | Control]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}

    values = {**options, **_of_predictors(options), "keywords": keywords, "pins": pins}
    return Drawing(**own(Drawing), law=TokenLaw(**own(TokenLaw)), control=Control(**own(Control)))


def _of_predictors(options: DrawingOptions) -> dict[str, Any]:
    """The values of `predictor`, `steps`, `tokens_per_call` and `eta`; predictor objects bring their own numbers.

    Raises:
        ConfigError: an entry is neither a name nor a predictor, or a number is given twice.
    """
    given: tuple[Any, ...] = entries(options.get("predictor", "first_hitting"))
    steps, tokens = (entries(options.get(name)) for name in ("steps", "tokens_per_call"))
    eta = options.get("eta")
    objects = [entry for entry in given if not isinstance(entry, str)]
    for entry in objects:
        if not isinstance(entry, _PREDICTORS):
            kinds = ", ".join(kind.__name__ for kind in _PREDICTORS)
            raise ConfigError(
                f"predictor holds {entry!r}; it must be a name, {', '.join(PREDICTORS)}, or an object: {kinds}"
            )
    if any(hasattr(entry, "tokens_per_call") for entry in objects):
        _require_left_out("tokens_per_call", options)
        tokens = tuple(getattr(entry, "tokens_per_call", None) for entry in given)
    if any(isinstance(entry, RemaskPredictor) for entry in objects):
        _require_left_out("eta", options)
        every = [RemaskPredictor() if entry == "remask" else entry for entry in given]
        etas = {entry.eta for entry in every if isinstance(entry, RemaskPredictor)}
        if len(etas) > 1:
            raise ConfigError(f"remask has an eta of {' and '.join(map(str, sorted(etas)))}; give one for all stages")
        eta = etas.pop()
    names = tuple(entry if isinstance(entry, str) else entry.name for entry in given)
    return {"predictor": names, "steps": steps, "tokens_per_call": tokens, "eta": eta}


def _require_left_out(name: Literal["tokens_per_call", "eta"], options: DrawingOptions) -> None:
    if options.get(name) is not None:
        raise ConfigError(f"{name} is {options[name]}, and a predictor has its own; leave {name} out")


def entries(value: "_Value | Sequence[_Value]") -> "tuple[_Value, ...]":
    """One entry for all stages, or one for each, as a tuple."""
    return (value,) if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)


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
    steps = DEFAULT_STEPS if steps is None else steps
    require_steps("steps", steps)
    return StagePlan(predictor, steps)
