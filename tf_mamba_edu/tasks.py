"""Two tests of memory, made of random tokens: selective copying and induction heads.

Both are from section 4.1 of arXiv 2312.00752. A batch is what `fit` takes: tokens, targets, and
weights that are 1 where an answer is asked for and 0 elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_mamba_edu.batches import untuned
from tf_mamba_edu.validation import check_positive_int

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """Random sequences with questions at the end; a subclass writes them in `draw`.

    Attributes:
        vocab_size: V, how many tokens there are, special ones included.

    Raises:
        ValueError: if the vocabulary leaves fewer than two symbols to tell apart.
    """

    vocab_size: int = 18

    specials = 2  # ids below this are no symbols

    def __post_init__(self):
        check_positive_int("vocab_size", self.vocab_size)
        if self.vocab_size < self.specials + 2:
            raise ValueError(
                f"`vocab_size` must be at least {self.specials + 2}: {self.specials} special "
                f"tokens, and two symbols to tell apart. Received: vocab_size={self.vocab_size}"
            )

    @property
    def chance(self) -> float:
        """Share of right answers of a blind guess, 1 / number of symbols."""
        return 1 / (self.vocab_size - self.specials)

    @property
    def shortest(self) -> int:
        """The smallest length that has room for the task."""
        raise NotImplementedError

    def draw(self, rng, batch_size: int, length: int) -> Batch:
        """Returns one batch, drawn with `rng`."""
        raise NotImplementedError

    def batch(self, batch_size: int, length: int, *, seed) -> Batch:
        """Draws one batch; the same seed draws the same. O(B L).

        Batch i of `dataset(..., seed=s)` is the one of seed (s, i); seed 5 is the same as (5, 0).

        Args:
            batch_size: B, how many sequences.
            length: L, tokens in each.
            seed: an integer, or several.

        Returns:
            (tokens, targets, weights), all (B, L); int32, int32 and float32.

        Raises:
            ValueError: if the length has no room for the task.
        """
        check_positive_int("batch_size", batch_size)
        check_positive_int("length", length)
        if length < self.shortest:
            raise ValueError(
                f"`length` must be at least {self.shortest} for this task. "
                f"Received: length={length}"
            )
        rng = np.random.default_rng(seed)
        return self.draw(rng, batch_size, length)

    def dataset(
        self,
        batch_size: int,
        length: int,
        *,
        seed,
        steps: int | None = None,
    ) -> tf.data.Dataset:
        """Streams fresh batches for `fit`; batch i depends on the seed and i alone.

        Args:
            batch_size: B, how many sequences a batch.
            length: L, tokens in each.
            seed: an integer, or several.
            steps: how many batches; without end if None.

        Returns:
            A `tf.data.Dataset` of (tokens, targets, weights), all (B, L).

        Raises:
            ValueError: if the length has no room for the task.
        """
        check_positive_int("batch_size", batch_size)
        if steps is not None:
            check_positive_int("steps", steps)
        self.batch(1, length, seed=(seed, 0))  # bad arguments fail here

        def batches() -> Iterator[Batch]:
            step = 0
            while steps is None or step < steps:
                yield self.batch(batch_size, length, seed=(seed, step))
                step += 1

        shape = (batch_size, length)
        signature = tuple(
            tf.TensorSpec(shape, dtype)
            for dtype in (tf.int32, tf.int32, tf.float32)
        )
        stream = tf.data.Dataset.from_generator(
            batches, output_signature=signature
        )
        if steps is not None:
            stream = stream.apply(
                tf.data.experimental.assert_cardinality(steps)
            )
        return untuned(stream.prefetch(2))


@dataclasses.dataclass(frozen=True)
class SelectiveCopying(Task):
    """Symbols lie scattered in noise; at the end they are to be said again, in order.

    Noise is token 0, the marker that asks is token 1, symbols are 2 .. V - 1. The last `n_tokens`
    positions are markers, and the target at the i-th of them is the i-th symbol. How far apart
    the symbols lie is random, so no fixed kernel can pick them out.

    Attributes:
        vocab_size: V, number of symbols and 2.
        n_tokens: how many symbols each sequence hides.
    """

    n_tokens: int = 16

    def __post_init__(self):
        super().__post_init__()
        check_positive_int("n_tokens", self.n_tokens)

    @property
    def shortest(self) -> int:
        """Room for every symbol and every marker."""
        return 2 * self.n_tokens

    def draw(self, rng, batch_size, length):
        B, L, n = batch_size, length, self.n_tokens
        places = rng.permuted(np.tile(np.arange(L - n), (B, 1)), axis=1)
        places = np.sort(places[:, :n], axis=1)  # (B, n)
        symbols = rng.integers(2, self.vocab_size, (B, n))
        tokens = np.zeros((B, L), np.int32)
        np.put_along_axis(tokens, places, symbols, axis=1)
        tokens[:, -n:] = 1
        targets = np.zeros((B, L), np.int32)
        targets[:, -n:] = symbols
        weights = np.zeros((B, L), np.float32)
        weights[:, -n:] = 1
        return tokens, targets, weights


@dataclasses.dataclass(frozen=True)
class InductionHeads(Task):
    """One special token occurs twice; what followed it first is to follow it again.

    The special token is 0, symbols are 1 .. V - 1. It stands once at a random place and once at
    the end, where the symbol behind the first is the target.

    Attributes:
        vocab_size: V, number of symbols and 1.
    """

    vocab_size: int = 16

    specials = 1

    @property
    def shortest(self) -> int:
        """The special token, its symbol, and the question."""
        return 3

    def draw(self, rng, batch_size, length):
        B, L = batch_size, length
        rows = np.arange(B)
        tokens = rng.integers(
            1, self.vocab_size, (B, L), dtype=np.int32
        )
        place = rng.integers(0, L - 2, B)  # (B,)
        tokens[rows, place] = 0
        tokens[:, -1] = 0
        targets = np.zeros((B, L), np.int32)
        targets[:, -1] = tokens[rows, place + 1]
        weights = np.zeros((B, L), np.float32)
        weights[:, -1] = 1
        return tokens, targets, weights
