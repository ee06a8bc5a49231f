"""A stand-in for a sentence model: vectors that are a hash of the word, and a record of what was embedded."""

import hashlib

import numpy as np

WIDTH = 4


def vector_of(word: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(word.encode()).digest()[: 4 * WIDTH], dtype="<u4").astype(np.float32)


class Embed:
    def __init__(self) -> None:
        self.embedded: list[str] = []

    def __call__(self, words):
        self.embedded += words
        return np.stack([vector_of(word) for word in words])


def expected(words) -> np.ndarray:
    return np.stack([vector_of(word) for word in words])
