"""The weights of a linear tagger, and their file."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int8, Int64

from cascaded_dllm.atomic import write_bytes
from cascaded_dllm.errors import DataError
from cascaded_dllm.importance.pos import CLASSES
from cascaded_dllm.importance.tagger_features import VERSION, Hashes

BUCKET_BITS = 21
"""Features whose hashes agree in this many leading bits share their weights."""

NUM_BUCKETS = 1 << BUCKET_BITS

Weights: TypeAlias = Int8[np.ndarray, "buckets classes"]
"""The weight of each of CLASSES for the features of each bucket; most are zero."""

_REMEDY = "train one with scripts/train_tagger.py"
# What NumPy and the zip archive raise, depending on which bytes of a file are wrong.
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def bucket(hashes: Hashes) -> Int64[np.ndarray, " features"]:
    """The bucket of each feature."""
    return (hashes >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)


def save_weights(weights: Weights, path: Path) -> None:
    """Writes a file for `read_weights`, completely or not at all; equal weights give equal files.

    Raises:
        OutputError: the file cannot be written.
    """
    used = np.flatnonzero(weights.any(axis=1)).astype(np.int32)
    file = io.BytesIO()
    # The distances between used buckets are small numbers, which compress well.
    gaps = np.diff(used, prepend=np.int32(0))
    np.savez_compressed(file, version=np.int32(VERSION), gaps=gaps, weights=weights[used])
    write_bytes(path, file.getvalue())


def read_weights(path: Path) -> Weights:
    """The weights in a file of `save_weights`.

    Raises:
        DataError: it is missing, truncated, foreign, or made for another version of the features.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            version, gaps, weights = arrays["version"].tolist(), arrays["gaps"], arrays["weights"]
    except _UNREADABLE as error:
        raise DataError(f"{path} holds no tagger, or is missing or broken ({error}); {_REMEDY}") from error
    if version != VERSION:
        raise DataError(f"{path} holds a tagger of version {version}, and this program has {VERSION}; {_REMEDY}")
    if not _are_sound(gaps, weights):
        raise DataError(f"{path} holds no tagger: its arrays have other shapes, types or values; {_REMEDY}")
    table = np.zeros((NUM_BUCKETS, len(CLASSES)), dtype=np.int8)
    table[np.cumsum(gaps)] = weights
    return table


def _are_sound(gaps: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the arrays can be the distances between used buckets, and the weights of these buckets."""
    has_shapes = weights.shape == (gaps.size, len(CLASSES))
    if gaps.dtype != np.int32 or weights.dtype != np.int8 or not has_shapes:
        return False
    used = np.cumsum(gaps, dtype=np.int64)
    return bool(np.all((used >= 0) & (used < NUM_BUCKETS)))
