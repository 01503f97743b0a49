"""Hashed noise: the same numbers for the same key and place, whatever was asked before."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


def key(*parts: object) -> int:
    """A 64-bit key from any parts that print alike wherever they mean the same."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def uniform(seed: int, stream: str, index: Ints) -> Floats:
    """Numbers in [0, 1), one for each place in `index`, by splitmix64's finisher."""
    offset = np.full(1, key(seed, stream) & _MASK, dtype=np.uint64)
    x = index.astype(np.uint64) * _GOLDEN + offset
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def normal(seed: int, stream: str, index: Ints) -> Floats:
    """Nearly normal numbers, mean 0 and deviation 1: four uniforms summed, so never beyond 3.5."""
    total: Floats = np.full(index.shape, -2.0)
    for part in range(4):
        total += uniform(seed, f"{stream}{part}", index)
    total *= math.sqrt(3)
    return total
