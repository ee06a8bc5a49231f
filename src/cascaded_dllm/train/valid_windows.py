"""What a run measures its bound on, as a line of metrics says it beside the bound."""

from dataclasses import dataclass


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
