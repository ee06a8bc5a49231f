"""What a run measures its bound on, as a line of metrics says it beside the bound."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.train.run_events import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidWindows:
    """The validation windows of a run.

    Attributes:
        num_windows: all that a bound could be measured on.
        num_dropped: windows of the same text that are not among them, since they have too few different tokens.
        omitted_nats_per_token: how far below the truth the bound of an ideal model may lie, nats a target token.
    """

    num_windows: int = 0
    num_dropped: int = 0
    omitted_nats_per_token: float = 0.0

    def evaluation(self, step: int, nats_per_token: Float[Tensor, " windows"]) -> Evaluation:
        """The bound of the weights after `step` steps, from that of every window, nats a target token."""
        num_windows = len(nats_per_token)
        return Evaluation(
            step=step,
            bound_nats_per_token=float(nats_per_token.mean()),
            standard_error=float(nats_per_token.std()) / num_windows**0.5 if num_windows > 1 else None,
            omitted_nats_per_token_at_most=self.omitted_nats_per_token,
            num_windows=num_windows,
            num_windows_in_set=self.num_windows,
            num_windows_dropped=self.num_dropped,
        )
