"""Naive Bayes on words and pairs of words: what a classifier of reviews must beat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


class NaiveBayes:
    """Decides between two classes by which words and pairs of neighbors a text holds.

    Each class c has a probability theta for each of the V features: the number of its training
    texts that hold the feature, plus one, over the sum of these numbers. A text's score is
    log P(1) / P(0) plus the sum of log theta_1 / theta_0 over the features that it holds, each
    once however often it stands there; features unknown from training do not count. (Multinomial
    naive Bayes on presence, after Wang and Manning, 2012.)

    Args:
        smoothing: what each count starts with.
    """

    def __init__(self, smoothing: float = 1.0):
        if not smoothing > 0:
            raise ValueError(
                f"`smoothing` must be positive. Received: smoothing={smoothing!r}"
            )
        self.smoothing = smoothing

    def fit(
        self, texts: Sequence[str], labels: Sequence[int]
    ) -> NaiveBayes:
        """Counts features. O(words) time and memory.

        Args:
            texts: words with spaces between them.
            labels: 0 or 1 for each.

        Raises:
            ValueError: if the numbers differ, or a class has no text.
        """
        labels = [int(label) for label in labels]
        if len(texts) != len(labels) or set(labels) != {0, 1}:
            raise ValueError(
                "`labels` must hold a 0 or a 1 for each text, and both of them. "
                f"Received: {len(labels)} labels of {sorted(set(labels))} for {len(texts)} texts"
            )
        counts = Counter(), Counter()
        for text, label in zip(texts, labels, strict=True):
            counts[label].update(features(text))
        known = counts[0].keys() | counts[1].keys()
        log_total = [
            math.log(c.total() + self.smoothing * len(known))
            for c in counts
        ]
        self.bias = math.log(sum(labels) / labels.count(0))
        self.weights = {
            f: math.log(
                (counts[1][f] + self.smoothing)
                / (counts[0][f] + self.smoothing)
            )
            - (log_total[1] - log_total[0])
            for f in known
        }
        return self

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """Returns the probability (N,) that each text's label is 1."""
        weigh = self.weights.get
        scores = [
            self.bias + sum(weigh(f, 0.0) for f in features(text))
            for text in texts
        ]
        return 0.5 + 0.5 * np.tanh(0.5 * np.array(scores))  # sigmoid


def features(text: str) -> set[str]:
    """Returns the words of a text and the pairs of neighbors among them."""
    words = text.split()
    return {*words, *map(" ".join, zip(words, words[1:], strict=False))}
