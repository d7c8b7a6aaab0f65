"""Random numbers that depend only on the run's seed, the purpose and the task.

Every triple (seed, purpose, task) has a separate generator: Philox, which is counter-based, keyed by a SHA-256 hash of
the triple. The generators are therefore independent of each other, and the order in which they are used does not
matter. `child_seed` computes the key, which the other functions receive as `child`.

All numbers are computed from the raw bits of the generator. NumPy guarantees that raw bits never change, while its
distributions may change between versions. All functions except `normal` therefore return the same numbers on every
machine. `normal` calls NumPy's log and cos, whose last bits may differ between machines.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def child_seed(seed: int, purpose: str, task: int = 0) -> int:
    """A 128-bit seed for a purpose, such as `scores`, and a task (or another index), in the run with seed `seed`."""
    digest = hashlib.sha256(f"supsup/{seed}/{purpose}/{task}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def raw_bits(child: int, count: int) -> npt.NDArray[np.uint64]:
    """The first `count` raw 64-bit words of the Philox generator with key `child`."""
    return np.random.Philox(key=child).random_raw(count)


def uniform(child: int, shape: tuple[int, ...], bound: float) -> npt.NDArray[np.float32]:
    """A float32 array of `shape`, drawn uniformly from 2^24 equally spaced values in [-bound, bound)."""
    size = math.prod(shape)
    words = raw_bits(child, (size + 1) // 2).view(np.uint32)[:size]
    unit = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return ((unit * np.float32(2) - np.float32(1)) * np.float32(bound)).reshape(shape)


def signs(child: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A float32 array of `shape`, whose values are -1 or +1 with equal probability."""
    size = math.prod(shape)
    drawn = np.unpackbits(raw_bits(child, (size + 63) // 64).view(np.uint8), count=size)
    return (drawn.astype(np.float32) * np.float32(2) - np.float32(1)).reshape(shape)


def normal(child: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """A float64 array of `shape`, drawn from the standard normal distribution by the Box-Muller transform."""
    size = math.prod(shape)
    words = raw_bits(child, 2 * size).reshape(2, size) >> np.uint64(11)
    radius, angle = (words.astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(np.sqrt(-2 * np.log(radius)) * np.cos(2 * math.pi * angle)).reshape(shape)


def permutation(child: int, size: int) -> npt.NDArray[np.int64]:
    """A uniformly random permutation of 0..size-1, int64."""
    return np.argsort(raw_bits(child, size), kind="stable")


def batches(child: int, num_images: int, num_batches: int, batch_size: int) -> npt.NDArray[np.int64]:
    """The image indices of `num_batches` full batches, (num_batches, batch_size), int64.

    An epoch is a random permutation of 0..num_images-1. The batches are cut from the sequence of all epochs, so a batch
    may span the end of an epoch. Each epoch contains every image once.
    """
    needed = num_batches * batch_size
    epochs = math.ceil(needed / num_images)
    words = raw_bits(child, epochs * num_images).reshape(epochs, num_images)
    return np.argsort(words, axis=1, kind="stable").reshape(-1)[:needed].reshape(num_batches, batch_size)
