"""The positions of a batch whose output is computed."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Rows(NamedTuple):
    """The (sequence, position) pairs whose output is wanted, one for every row."""

    batch: Int[Tensor, " M"]
    position: Int[Tensor, " M"]

    def of(self, x_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "M D"]:
        """The wanted rows of a tensor."""
        return x_BSD[self.batch, self.position]
