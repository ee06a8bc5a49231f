"""Uniform numbers as a pure function of what they are for: Philox4x32-10 on tensors of counters.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". A number is determined by (seed, purpose, sample,
step, position) and by nothing else: not by the batch it is drawn in, the process, the device or what was drawn
before. So a resumed run equals an uninterrupted one, and sample i is the same in any batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from cascaded_dllm.rng import derive_seed

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four 32-bit words, held in int64, for every counter of four 32-bit words.

    The 32 x 32 -> 64 bit products wrap around in int64; their high halves survive an arithmetic shift and a mask.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


@dataclass(frozen=True, slots=True)
class Draws:
    """One stream of uniform numbers, addressed by (sample, step, position).

    Attributes:
        seed: the user's seed.
        purpose: what the numbers are for; streams of different purposes are independent.
    """

    seed: int
    purpose: str

    def uniform_pair(
        self,
        sample: Int[Tensor, "..."],
        step: Int[Tensor, "..."] | int,
        position: Int[Tensor, "..."],
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Two independent uniform numbers in (0, 1), ends excluded, for every broadcast (sample, step, position).

        float64 with 52 random bits; float32 with 23 on devices that have no float64 (Apple MPS).
        """
        words = self._words(sample, step, position)
        return _open_unit(words[0], words[1]), _open_unit(words[2], words[3])

    def words(self, sample: Int[Tensor, " B"], step: int) -> Int32[Tensor, "B 2"]:
        """Two words of 32 random bits for each of `sample`, from which a hash derives any number of dropout masks."""
        first, second, *_ = self._words(sample, step, torch.zeros_like(sample))
        # Shifted to the range of int32.
        return torch.stack([first, second], dim=1).sub_(2**31).to(torch.int32)

    def _words(
        self, sample: Int[Tensor, "..."], step: Int[Tensor, "..."] | int, position: Int[Tensor, "..."]
    ) -> tuple[Int[Tensor, "..."], ...]:
        """Four words of 32 random bits, held in int64, for every broadcast (sample, step, position)."""
        seed = derive_seed(self.seed, self.purpose)
        steps = torch.as_tensor(step, device=sample.device)
        sample, steps, position = torch.broadcast_tensors(sample, steps, position)
        return philox4x32(
            (position & _WORD, steps & _WORD, sample & _WORD, sample >> 32 & _WORD), (seed & _WORD, seed >> 32)
        )


def _open_unit(high: Tensor, low: Tensor) -> Tensor:
    """A number in (0, 1) from two words; adding a half keeps it off both ends, and it is exactly representable."""
    if high.device.type == "mps":
        return ((high >> 9).float() + 0.5) * 2.0**-23
    return ((high >> 6) * 2**26 + (low >> 6)).double().add_(0.5).mul_(2.0**-52)


def low_discrepancy_times(
    u: Float[Tensor, "..."], index: Int[Tensor, " B"], num_times: int, t_min: float
) -> Float[Tensor, " B"]:
    """Times in (t_min, 1]: the points of number `index` among `num_times` evenly spaced ones, all shifted by `u`.

    Each time alone is uniform if `u` is. Together they cover the interval evenly, so a mean over them has far less
    variance (Kingma et al. 2021, arXiv:2107.00630, App. I.1).

    Returns:
        Times in the default floating dtype.
    """
    fraction = (u + index.to(u.dtype) / num_times) % 1
    return (1 - fraction * (1 - t_min)).to(torch.get_default_dtype())
