"""Models of this package for lm-evaluation-harness; the bound of a text takes the place of its log-likelihood.

    python -m cascaded_dllm.harness run --model cdllm --model_args stages=runs/flat --tasks T
    python -m cascaded_dllm.harness run --model cdllm --model_args stages=runs/stage1+runs/stage2+runs/stage3 --tasks T

The log-likelihood is at least the reported value, up to the error of the estimate; see `text_scorer`.
"""

import sys
from collections.abc import Mapping, Sequence

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from cascaded_dllm.errors import ConfigError
from cascaded_dllm.sample.cascade import Cascade
from cascaded_dllm.text_scorer import TextScorer

_AUTO_BATCH = 32


@register_model("cdllm")
class BoundModel(LM):
    """A flat model or a cascade behind the interface of the harness, which may pass numbers as strings.

    Args:
        stages: run folders, checkpoints or hub ids joined by plus signs, first stage first; or one bundle.
        lengths: stage lengths joined by plus signs, for checkpoints that do not name them.
        tokenizer: for checkpoints without one.
        weights: ema or raw; by default the choice of the bundle, or else ema.
        num_times: see `TextScorer`.
        num_orders: see `TextScorer`.
        seed: decides all randomness.
        batch_size: texts computed together; "auto", also in the form "auto:4", is 32.
        max_batch_size: most of them for "auto".
        device: device of the networks.

    Raises:
        ConfigError: a number is not one or out of range, or the stages are the first ones of a longer cascade.
        CheckpointError: a stage cannot be read.
    """

    def __init__(
        self,
        stages: str,
        *,
        lengths: str | None = None,
        tokenizer: str | None = None,
        weights: str | None = None,
        num_times: int | str = 32,
        num_orders: int | str = 8,
        seed: int | str = 0,
        batch_size: int | str = _AUTO_BATCH,
        max_batch_size: int | str = _AUTO_BATCH,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        named = str(stages).split("+")
        cascade = Cascade.from_pretrained(
            named if len(named) > 1 else named[0],
            lengths=None if lengths is None else [_whole("lengths", length) for length in str(lengths).split("+")],
            tokenizer=tokenizer,
            weights=weights,  # type: ignore[arg-type]
            device=device,
        )
        most = min(_AUTO_BATCH, _whole("max_batch_size", max_batch_size))
        self.scorer = TextScorer(
            cascade=cascade,
            num_times=_whole("num_times", num_times),
            num_orders=_whole("num_orders", num_orders),
            seed=_whole("seed", seed),
            batch_size=most if str(batch_size).split(":")[0] == "auto" else _whole("batch_size", batch_size),
        )

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Minus the bound of every continuation, in nats, and always False for "is the greedy continuation"."""
        return [(-nats, False) for nats in self.scorer.continuation_nats([request.args for request in requests])]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Minus the bound of every text, in nats."""
        return [-nats for nats in self.scorer.text_nats([text for (text,) in (request.args for request in requests)])]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text written after every context, up to the first of its stop strings or to `max_gen_toks` tokens.

        Other options of a request, such as a temperature, are not used.
        """
        written = self.scorer.written([request.args[0] for request in requests])
        return [
            _ended(self._first_tokens(text, request.args[1]), request.args[1])
            for text, request in zip(written, requests, strict=True)
        ]

    def _first_tokens(self, text: str, options: object) -> str:
        """As many tokens of a text as `options` allow."""
        most = options.get("max_gen_toks") if isinstance(options, Mapping) else None
        tokenizer = self.scorer.cascade.tokenizer
        return text if most is None else tokenizer.decode(tokenizer.encode(text).ids[: int(most)])


def _whole(name: str, value: int | str) -> int:
    """The whole number in an argument.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return int(str(value))
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number") from None


def _ended(text: str, options: object) -> str:
    """The text up to the first stop string in `options`; an empty one stops nothing."""
    until = (options.get("until") or []) if isinstance(options, Mapping) else []
    for end in filter(None, [until] if isinstance(until, str) else until):
        text = text.partition(end)[0]
    return text


def with_device(words: Sequence[str]) -> list[str]:
    """The words of a command line of the harness, with the device "auto" if it names none.

    The harness would take cuda:0, also on a machine without a GPU.
    """
    given = list(words)
    is_run = len(given) > 1 and given[0] not in ("ls", "validate")
    if is_run and not {word.partition("=")[0] for word in given} & {"--device", "--config", "-C"}:
        # In front, where a device under a shorter name of the option comes after it and counts.
        place = 1 if given[0] == "run" else 0
        given[place:place] = ["--device", "auto"]
    return given


if __name__ == "__main__":
    sys.argv[1:] = with_device(sys.argv[1:])
    cli_evaluate()
