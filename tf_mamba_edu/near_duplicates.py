"""Texts that repeat each other almost word for word, found through the runs they share."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import scipy.sparse

RUN = 5  # words in a row
SHARED = 0.5  # of the runs of the text that has fewer
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well mixed


def near_duplicates(texts: Sequence[str]) -> np.ndarray:
    """Returns which texts share half of the five-word runs of the shorter one, or more.

    Punctuation does not count. A text of fewer than five words is a single run, which only the
    same words repeat. All pairs of texts with a run in common are compared, none is left to chance.

    Args:
        texts: the texts to compare.

    Returns:
        The pairs of their places (P, 2), the lower first, in order.

    Cost: O(W log W) time and O(W) memory for W words in all, as long as few texts share a run:
    6 million words take about 5 seconds and 1 GB.
    """
    owner, run = _runs(texts)
    has = scipy.sparse.csr_array(
        (np.ones(len(run), np.int32), (owner, run)),
        shape=(len(texts), run.max(initial=-1) + 1),
    )  # (T, R)
    has.sum_duplicates()
    has.data[:] = 1  # a run counts once a text
    sizes = has.sum(axis=1)  # (T,)
    has = has[:, has.sum(axis=0) > 1]
    shared = scipy.sparse.triu(has @ has.T, k=1).tocoo()  # (T, T)
    one, other = shared.row, shared.col
    near = shared.data >= SHARED * np.minimum(sizes[one], sizes[other])
    pairs = np.stack([one[near], other[near]], axis=1)  # (P, 2)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _runs(texts):
    """All runs of all texts: whose each is, and its number; both of shape (runs,)."""
    numbers: dict[str, int] = {}
    words = [
        [
            numbers.setdefault(w, len(numbers) + 1)
            for w in re.findall(r"\w+", text)
        ]
        for text in texts
    ]
    words = [w + [0] * (RUN - len(w)) for w in words]
    lengths = [len(w) for w in words]
    owner = np.repeat(np.arange(len(words)), lengths)
    flat = np.fromiter(
        (n for w in words for n in w), np.uint64, sum(lengths)
    )
    starts = max(len(flat) - RUN + 1, 0)
    hashes = np.zeros(starts, np.uint64)
    for k in range(RUN):  # wraps around at 2^64, on purpose
        hashes = hashes * MULTIPLIER + flat[k : starts + k]
    whole = owner[:starts] == owner[len(flat) - starts :]
    _, run = np.unique(hashes[whole], return_inverse=True)
    return owner[:starts][whole], run
