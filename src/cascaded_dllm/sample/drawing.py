"""How texts are drawn, in one place: what `Cascade.generate` takes, and what can be told of it without a network."""

from dataclasses import dataclass

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.model.prefix_settings import PrefixSettings
from cascaded_dllm.sample.conditioning import require_guidable, require_noisable
from cascaded_dllm.sample.predictors import FirstHittingPredictor, predictor_from_name

DEFAULT_STEPS = 128
"""Steps of the time grid of a stage, for the predictors that have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How texts are drawn: what `generate` takes besides their number, in one place.

    Attributes:
        steps: steps of the time grid of every stage, 128 if None; first hitting has no grid and takes None only.
        predictor: euler, analytic or first_hitting.
        seed: decides, with the number of a text, all of its random numbers.
        batch_size: texts drawn together; it changes none of them.
        guidance: weight of classifier-free guidance by the prefix; 0 is none.
        prefix_noise: probability that a token that a later stage is given is replaced as in its training.
    """

    steps: int | None = None
    predictor: str = "first_hitting"
    seed: int = 0
    batch_size: int = 32
    guidance: float = 0.0
    prefix_noise: float = 0.0

    def num_steps(self) -> int | None:
        """Steps of the time grid of every stage; None for first hitting, which has none.

        Raises:
            ConfigError: the predictor is unknown, `steps` is given though it has no grid, or is less than 1.
        """
        if isinstance(predictor_from_name(self.predictor), FirstHittingPredictor):
            if self.steps is not None:
                raise ConfigError(
                    f"steps is {self.steps} and the predictor first_hitting, which has no time grid: it makes one call "
                    "a token; leave steps out, or choose euler or analytic"
                )
            return None
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; it must be at least 1, for example 128")
        return DEFAULT_STEPS if self.steps is None else self.steps

    def require_sound(self, num_samples: int) -> None:
        """Checks all that can be told without the stages, for callers who have not loaded them yet.

        Raises:
            ConfigError: a number is out of range, or the predictor is unknown or does not fit the steps.
        """
        for name, value in (("num_samples", num_samples), ("batch_size", self.batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        self.num_steps()
        # Of stages that could do both: what they were trained for is not known yet.
        require_guidable(self.guidance, PrefixSettings(dropout=0.5), prefix_length=1)
        require_noisable(self.prefix_noise, PrefixSettings(noise_prob=0.5), prefix_length=1)
