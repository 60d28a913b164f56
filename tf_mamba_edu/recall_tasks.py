"""Two tests of recall, where all of the past is asked for: copying a list, and looking up pairs.

A batch is what `tasks.Task` says: tokens, targets, and weights that are 1 where an answer is asked
for.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_mamba_edu.tasks import Task


@dataclasses.dataclass(frozen=True)
class Copying(Task):
    """A list of different words is to be said again.

    The first half of a sequence are words 1 .. V - 1, none twice. The second half begins with the
    marker 0 and goes on with the words, as a language model reads what it has written: the target
    at the marker is the first word, and at each word the one behind it.

    Attributes:
        vocab_size: V, number of words and 1.
    """

    vocab_size: int = 128

    specials = 1

    @property
    def shortest(self) -> int:
        """One word and the marker."""
        return 2

    def draw(self, rng, batch_size, length):
        if length % 2 or length // 2 >= self.vocab_size:
            raise ValueError(
                f"`length` must be even and below {2 * self.vocab_size}: no word comes twice. "
                f"Received: length={length}"
            )
        n = length // 2
        words = 1 + different(rng, batch_size, self.vocab_size - 1, n)
        marker = np.zeros((batch_size, 1), np.int32)
        tokens = np.concatenate([words, marker, words[:, :-1]], axis=1)
        targets = np.concatenate([0 * words, words], axis=1)  # (B, L)
        weights = np.repeat([[0, 1]], n, axis=1).astype(np.float32)
        return tokens, targets, np.tile(weights, (batch_size, 1))


@dataclasses.dataclass(frozen=True)
class AssociativeRecall(Task):
    """Pairs of a key and a value are told; then the keys come in another order.

    Keys are 1 .. V / 2 - 1, none twice, values V / 2 .. V - 1. The first half of a sequence are
    pairs, the second half their keys in another order, a 0 behind each: at a key the target is
    its value. (Were the value to stand behind it instead, the last answers could be found by
    elimination, without any key.) Known as multi-query associative recall.

    Attributes:
        vocab_size: V; half of it are values.
    """

    vocab_size: int = 128

    specials = 1

    @property
    def chance(self) -> float:
        """Share of right answers of a blind guess among the values."""
        return 2 / self.vocab_size

    @property
    def shortest(self) -> int:
        """One pair, told and asked."""
        return 4

    def draw(self, rng, batch_size, length):
        values = self.vocab_size // 2
        keys = values - 1
        if length % 4 or length // 4 > keys:
            raise ValueError(
                f"`length` must be a multiple of 4 up to {4 * keys}: no key comes twice. "
                f"Received: length={length}"
            )
        B, n = batch_size, length // 4
        key = 1 + different(rng, B, keys, n)
        value = rng.integers(values, self.vocab_size, (B, n), np.int32)
        told = np.stack([key, value], axis=-1)  # (B, n, 2)
        order = different(rng, B, n, n)
        asked = np.take_along_axis(told, order[..., None], axis=1)
        hidden = asked * np.array([1, 0], np.int32)  # (B, n, 2)
        both = np.concatenate([told, hidden], axis=1)  # (B, 2 n, 2)
        targets, weights = np.zeros_like(both), np.zeros(both.shape)
        targets[:, n:, 0] = asked[..., 1]
        weights[:, n:, 0] = 1
        return (
            both.reshape(B, length),
            targets.reshape(B, length),
            weights.reshape(B, length).astype(np.float32),
        )


def different(rng, batch_size: int, count: int, n: int) -> np.ndarray:
    """Draws n different numbers below `count` for each sequence, (B, n) int32."""
    all_of_them = np.tile(
        np.arange(count, dtype=np.int32), (batch_size, 1)
    )
    return rng.permuted(all_of_them, axis=1)[:, :n]
