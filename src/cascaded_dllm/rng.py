"""Seeds derived from (seed, purpose, indices), so that no random state is ever carried.

A resumed run, another number of processes or another batch size draws the same numbers, because every number depends on
its purpose and not on what was drawn before.
"""

import hashlib
import operator

import numpy as np


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed that depends on every argument; different purposes are independent streams."""
    message = "\x1f".join([str(operator.index(seed)), purpose, *map(str, indices)]).encode()
    return int.from_bytes(hashlib.sha256(message).digest()[:8], "little") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A NumPy generator for one purpose, started from `derive_seed`."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, *indices)))
