"""Long computations of the book: each stores what it measured, and chapters load it.

They are listed, run and measured again by `python -m tf_mamba_edu experiments`, with list, run
NAME or evaluate NAME behind it.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple


class Entry(NamedTuple):
    """Where an experiment is, and what it is.

    Attributes:
        module: of this package.
        attribute: the `Experiment` in it.
        text: the chapter that loads it, what it does, how many runs it has and how long they are.
    """

    module: str
    attribute: str
    text: str

    def load(self):
        """Returns the `Experiment`; imports what it needs."""
        return getattr(
            import_module(f"{__name__}.{self.module}"), self.attribute
        )


EXPERIMENTS = {
    "delay": Entry(
        "delay",
        "DELAY",
        "chapter 05: a memory of 500 steps (15 runs of half a minute)",
    ),
    "induction-256": Entry(
        "induction",
        "INDUCTION",
        "chapter 06: induction with S6 and S4D (9 runs of a minute)",
    ),
    "letters": Entry(
        "letters",
        "LETTERS",
        "chapter 06: a model of letters to look at (one run of ten minutes)",
    ),
    "selective-copying-256": Entry(
        "selectivity",
        "COPYING",
        "chapter 06: S6 and S4D at length 256 (13 runs of ten minutes)",
    ),
    "selection-ablation": Entry(
        "selectivity",
        "ABLATION",
        "chapter 06: B, C, Delta one at a time (27 runs of five minutes)",
    ),
    "block-parts": Entry(
        "block_parts",
        "BLOCK_PARTS",
        "chapter 09: the block with one part missing, on two tests (90 runs of half a minute)",
    ),
    "next-token-1": Entry(
        "next_token",
        "ONE_BLOCK",
        "chapter 12: one block on 1/14 of the Bible (7 runs of a minute)",
    ),
    "next-token-3": Entry(
        "next_token",
        "THREE_BLOCKS",
        "chapter 12: three blocks on 1/8 of the Bible (7 runs of two minutes)",
    ),
    "next-token-full": Entry(
        "next_token",
        "WHOLE_TEXT",
        "chapter 12: the whole Bible (2 runs of five and twenty minutes)",
    ),
    "next-token-windows": Entry(
        "windows",
        "WINDOWS",
        "chapter 12: overlapping windows, split at random (one run of twenty minutes)",
    ),
    "induction": Entry(
        "long_memory",
        "INDUCTION",
        "chapter 14: induction up to 2^20 tokens (12 runs of two minutes)",
    ),
    "sentiment-1": Entry(
        "sentiment",
        "ONE_BLOCK",
        "chapter 13: sentences of critics, one block (3 runs of a minute)",
    ),
    "sentiment-3": Entry(
        "sentiment",
        "THREE_BLOCKS",
        "chapter 13: sentences of critics, three blocks (3 runs of three minutes)",
    ),
    "sentiment-imdb": Entry(
        "sentiment",
        "WHOLE_REVIEWS",
        "chapter 13: whole reviews (3 runs of twenty minutes)",
    ),
    "sentiment-pooling": Entry(
        "sentiment_pooling",
        "POOLING",
        "chapter 13: last state, mean or maximum; one or two directions (15 runs of two minutes)",
    ),
    "reviews-language-model": Entry(
        "reviews_lm",
        "REVIEWS",
        "chapter 13: a language model of movie reviews (one run of an hour)",
    ),
    "sentiment-pretrained": Entry(
        "sentiment_pretrained",
        "PRETRAINED",
        "chapter 13: sentences again, with that language model first (3 runs of four minutes)",
    ),
    "sentiment-scratch": Entry(
        "sentiment_pretrained",
        "FROM_SCRATCH",
        "chapter 13: the same without a language model, to compare with (3 runs of four minutes)",
    ),
    "sentiment-imdb-pretrained": Entry(
        "sentiment_pretrained",
        "PRETRAINED_WHOLE",
        "chapter 13: whole reviews, with that language model first (3 runs of half an hour)",
    ),
    "sentiment-reviews-first": Entry(
        "sentiment_pretrained",
        "AFTER_REVIEWS",
        "chapter 13: sentences again, with the first of those before (3 runs of four minutes)",
    ),
    "selective-copying": Entry(
        "long_copying",
        "COPYING",
        "chapter 14: selective copying up to 1,024 tokens (6 runs of ten minutes)",
    ),
    "comparison": Entry(
        "comparison",
        "COMPARISON",
        "chapter 15: Mamba, GRU, Transformer on the Bible (27 runs of five minutes)",
    ),
    "comparison-recall": Entry(
        "recall",
        "RECALL",
        "chapter 15: copying a list and looking up pairs (78 runs of a minute)",
    ),
}
