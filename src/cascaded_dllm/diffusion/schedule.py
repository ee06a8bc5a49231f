"""Noise schedules: the total noise sigma(t) and its rate dsigma(t) for t in [0, 1]."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.checks import one_of, require_between_0_and_1
from cascaded_dllm.errors import ConfigError


class Noise(NamedTuple):
    """Total noise and its derivative at one time; both dimensionless, same shape and dtype as the time."""

    sigma: Float[Tensor, "..."]
    dsigma: Float[Tensor, "..."]


@dataclass(frozen=True, slots=True)
class LogLinearSchedule:
    """Noise under which the probability of having moved grows linearly (Lou et al. 2024, arXiv:2310.16834, Sec. 5.1).

        sigma(t) = -log(1 - (1 - eps) t),    move_prob(t) = (1 - eps) t

    At t = 1 a share `eps` of the tokens has not moved yet: sigma stays finite, and the bound omits a prior term.
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        require_between_0_and_1("noise.eps", self.eps, hint="0.001 is usual")

    def __call__(self, t: Float[Tensor, "..."]) -> Noise:
        """Noise at time `t`."""
        moved = (1 - self.eps) * t
        return Noise(-torch.log1p(-moved), (1 - self.eps) / (1 - moved))

    def time_at(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time at which the total noise is `sigma`: the inverse of sigma(t)."""
        return -torch.expm1(-sigma) / (1 - self.eps)


@dataclass(frozen=True, slots=True)
class GeometricSchedule:
    """Noise that grows geometrically from sigma_min at t = 0 to sigma_max at t = 1 (Lou et al. 2024, Sec. 5.1).

    sigma(t) = sigma_min^(1-t) sigma_max^t,    dsigma(t) = sigma(t) log(sigma_max / sigma_min)
    """

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ConfigError(
                f"noise.sigma_min is {self.sigma_min} and noise.sigma_max {self.sigma_max}; "
                "they must satisfy 0 < sigma_min < sigma_max, for example 0.0001 and 20"
            )

    def __call__(self, t: Float[Tensor, "..."]) -> Noise:
        """Noise at time `t`."""
        log_growth = math.log(self.sigma_max / self.sigma_min)
        sigma = self.sigma_min * torch.exp(t * log_growth)
        return Noise(sigma, sigma * log_growth)

    def time_at(self, sigma: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time at which the total noise is `sigma`; 0 for noise that is smaller than sigma(0)."""
        log_growth = math.log(self.sigma_max / self.sigma_min)
        return (torch.log(sigma / self.sigma_min) / log_growth).clamp_min(0)


Schedule = LogLinearSchedule | GeometricSchedule


def schedule_from_settings(settings: Mapping[str, object]) -> Schedule:
    """The schedule that a configuration or a checkpoint describes by `type` and its numbers.

    Raises:
        ConfigError: the type is not one of loglinear and geometric, or a number is unknown or out of range.
    """
    known: dict[str, type[Schedule]] = {"loglinear": LogLinearSchedule, "geometric": GeometricSchedule}
    kind = known[one_of("noise.type", settings.get("type"), known)]
    unknown = settings.keys() - {"type", *kind.__dataclass_fields__}
    if unknown:
        fields = ", ".join(kind.__dataclass_fields__)
        raise ConfigError(f"noise has the unknown keys {sorted(unknown)}; a {settings['type']} schedule has {fields}")
    return kind(**{key: _number(key, value) for key, value in settings.items() if key != "type"})


def _number(key: str, value: object) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise ConfigError(f"noise.{key} is {value!r}; it must be a number") from error


def schedule_settings(schedule: Schedule) -> dict[str, str | float]:
    """What `schedule_from_settings` needs to rebuild `schedule`; goes into checkpoints."""
    match schedule:
        case LogLinearSchedule(eps=eps):
            return {"type": "loglinear", "eps": eps}
        case GeometricSchedule(sigma_min=low, sigma_max=high):
            return {"type": "geometric", "sigma_min": low, "sigma_max": high}
