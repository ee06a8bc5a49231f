"""The validation windows of a run, as a line of metrics describes them beside the bound."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cascaded_dllm.train.run_events import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidWindows:
    """The validation windows of a run.

    Attributes:
        num_windows: all windows on which a bound could be measured.
        num_dropped: windows of the same text that are not among them because they have too few different tokens.
        omitted_nats_per_token: how far below the truth the bound of an ideal model may lie, nats per target token.
    """

    num_windows: int = 0
    num_dropped: int = 0
    omitted_nats_per_token: float = 0.0

    def evaluation(self, step: int, nats_per_token: Float[Tensor, " windows"]) -> Evaluation:
        """The bound of the weights after `step` steps, from the bound of every window in nats per target token."""
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
