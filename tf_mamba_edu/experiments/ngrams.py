"""The cheap baseline of language models: count which token follows the last few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse


class NGram:
    """Predicts a token from the n - 1 before it, by interpolated counts (Witten-Bell).

    P_n(w | h) = (c(h w) + t(h) P_{n-1}(w | h')) / (c(h) + t(h)), where c counts in the training
    text, t(h) is how many different tokens followed h, h' is h without its first token, and
    P_0 = 1 / V. The more often a context has led to something new, the more the shorter context
    decides. Memory O(tokens n), time per prediction O(n V).

    Args:
        n: tokens that are looked at, with the one to predict.
        vocab_size: V, number of tokens.
        passages: one (length,) integer array a passage, to count in.
    """

    def __init__(
        self, n: int, vocab_size: int, passages: Sequence[np.ndarray]
    ):
        self.n, self.vocab_size = n, vocab_size
        self.contexts, self.counts = [], []
        for size in range(n):
            seen = {}
            rows, columns = [], []
            for passage in passages:
                for key, token in followers(passage, size):
                    rows.append(seen.setdefault(key, len(seen)))
                    columns.append(token)
            self.contexts.append(seen)
            ones = np.ones(len(rows))
            counts = sparse.coo_array(
                (ones, (rows, columns)), shape=(len(seen), vocab_size)
            )
            self.counts.append(counts.tocsr())  # equal pairs are added

    def probabilities(
        self, passage: np.ndarray, places: Sequence[int]
    ) -> np.ndarray:
        """Returns P (places, V) of what stands at places of a passage."""
        P = np.full(
            (len(places), self.vocab_size), 1 / self.vocab_size
        )  # (places, V)
        for size, (contexts, counts) in enumerate(
            zip(self.contexts, self.counts, strict=True)
        ):
            keys = [
                tuple(passage[max(0, p - size) : p]) for p in places
            ]
            known = [i for i, key in enumerate(keys) if key in contexts]
            found = counts[[contexts[keys[i]] for i in known]].toarray()
            different = (found > 0).sum(1, keepdims=True)  # t(h)
            P[known] = (found + different * P[known]) / (
                found.sum(1, keepdims=True) + different
            )
        return P

    def measure(
        self, passages: Sequence[np.ndarray], batch: int = 1024
    ) -> dict:
        """Predicts every token but the first of each passage from those before it.

        Returns:
            A dict of "loss" (nats a token), "accuracy" (share whose likeliest token was right)
            and "tokens" (how many were asked for).
        """
        losses, hits = [], []
        for passage in passages:
            for start in range(1, len(passage), batch):
                places = np.arange(
                    start, min(start + batch, len(passage))
                )
                P = self.probabilities(passage, places)  # (places, V)
                right = passage[places]
                losses.append(-np.log(P[np.arange(len(places)), right]))
                hits.append(P.argmax(1) == right)
        losses, hits = np.concatenate(losses), np.concatenate(hits)
        return {
            "loss": round(float(losses.mean()), 4),
            "accuracy": round(float(hits.mean()), 4),
            "tokens": len(losses),
        }


def followers(
    passage: np.ndarray, size: int
) -> Iterator[tuple[tuple, int]]:
    """Yields each token of a passage with the `size` tokens before it."""
    ids = passage.tolist()
    for place in range(size, len(ids)):
        yield tuple(ids[place - size : place]), ids[place]
