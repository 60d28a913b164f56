"""Chapter 13: classifiers that begin with what a language model of reviews has learned."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np

from tf_mamba_edu.experiments import reviews_lm
from tf_mamba_edu.experiments.experiment import entry_of
from tf_mamba_edu.experiments.naive_bayes import NaiveBayes
from tf_mamba_edu.experiments.sentiment import (
    Recipe,
    Sentiment,
    classifier,
    share_right,
)
from tf_mamba_edu.experiments.store import Results
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.reviews import (
    Reviews,
    language_model_texts,
    movie_reviews,
)

STARTS = ("random weights", "language model", "whole reviews")
RECIPE = Recipe(
    "rotten_tomatoes",
    epochs=4,
    length=64,
    n_layers=reviews_lm.N_LAYERS,
    d_model=reviews_lm.D_MODEL,
    both_ways=False,
    word_dropout=0.1,
    learning_rate=1e-3,
)


def take_over(model: keras.Model, lm: MambaLM) -> None:
    """Gives a classifier the embedding, the blocks and the norms of a language model."""

    def copy(to, source):
        for new, old in zip(to.weights, source.weights, strict=True):
            new.assign(old)

    copy(model.get_layer("embedding"), lm.embedding)
    copy(model.get_layer("norm"), lm.norm)
    for i, block in enumerate(lm.blocks):
        copy(model.get_layer(f"norm_{i}"), block.norm)
        copy(model.get_layer(f"block_{i}"), block.block)


@dataclasses.dataclass(frozen=True)
class Pretrained(Sentiment):
    """A `Sentiment` with the pieces of the package's language model, and perhaps its weights.

    Attributes:
        start: what its classifiers begin with, one of STARTS; "whole reviews" is the first
            classifier of `WHOLE`.
        only_read: whether they learn only from reviews that the language model was allowed to
            read, of which no other source's later parts hold a near-duplicate.
    """

    start: str = "language model"
    only_read: bool = False

    def tokenizer(self, results: Results):
        """Returns the tokenizer of the language model."""
        return reviews_lm.tokenizer_of(Results(reviews_lm.NAME))

    def begin(self, recipe: Recipe) -> keras.Model:
        """Builds the classifier that a training begins with.

        Raises:
            ValueError: if there is no such start.
        """
        model = classifier(recipe)
        if self.start == "language model":
            lm, _ = reviews_lm.load(Results(reviews_lm.NAME))
            take_over(model, lm)
        elif self.start == "whole reviews":
            Results(WHOLE.name).load_weights(str(WHOLE.seeds[0]), model)
        elif self.start != "random weights":
            raise ValueError(
                f"`start` must be one of {STARTS}. Received: start={self.start!r}"
            )
        return model

    def to_learn_from(self) -> Reviews:
        """Returns the reviews that a training reads."""
        train = super().to_learn_from()
        if not self.only_read:
            return train
        allowed = set(language_model_texts().train)
        rows = [i for i, t in enumerate(train.texts) if t in allowed]
        return Reviews(
            [train.texts[i] for i in rows], train.labels[rows]
        )

    def make(self, results: Results, seed: int) -> dict:
        """Trains and measures; if whole reviews came first, beside counts of both sources, too."""
        record = super().make(results, seed)
        if self.start == "whole reviews":
            counts, splits = (
                counts_of_both(),
                movie_reviews(self.recipe.source),
            )
            for part in ("validation", "test"):
                reviews = getattr(splits, part)
                record[f"counts_of_both_{part}"] = share_right(
                    counts.predict(reviews.texts), reviews
                )
        return record


@functools.cache
def counts_of_both() -> NaiveBayes:
    """Returns naive Bayes, fitted to sentences and whole reviews, as many as the models read."""
    sources = SENTENCES.to_learn_from(), WHOLE.to_learn_from()
    texts = [text for reviews in sources for text in reviews.texts]
    labels = np.concatenate([reviews.labels for reviews in sources])
    return NaiveBayes().fit(texts, labels)


SENTENCES = Pretrained("sentiment-pretrained", RECIPE)
SCRATCH = Pretrained(
    "sentiment-scratch", RECIPE, start="random weights"
)
WHOLE = Pretrained(
    "sentiment-imdb-pretrained",
    dataclasses.replace(
        RECIPE,
        source="imdb",
        epochs=5,
        length=256,
        windows=True,
        length_measured=512,
    ),
    only_read=True,
)
REVIEWS_FIRST = Pretrained(
    "sentiment-reviews-first", RECIPE, start="whole reviews"
)
PRETRAINED, FROM_SCRATCH, PRETRAINED_WHOLE, AFTER_REVIEWS = map(
    entry_of, (SENTENCES, SCRATCH, WHOLE, REVIEWS_FIRST)
)
