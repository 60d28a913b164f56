"""Chapter 13: classifiers that begin with the weights of a language model of reviews."""

from __future__ import annotations

import dataclasses

import keras

from tf_mamba_edu.experiments import reviews_lm
from tf_mamba_edu.experiments.experiment import entry_of
from tf_mamba_edu.experiments.sentiment import (
    Recipe,
    Sentiment,
    classifier,
)
from tf_mamba_edu.experiments.store import Results
from tf_mamba_edu.lm import MambaLM

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
    """A `Sentiment` whose classifiers begin with the language model that the package ships.

    Attributes:
        from_scratch: whether they begin with random weights instead: the same pieces, the same
            recipe, and no language model, to compare with.
    """

    from_scratch: bool = False

    def tokenizer(self, results: Results):
        """Returns the tokenizer of the language model."""
        return reviews_lm.tokenizer_of(Results(reviews_lm.NAME))

    def begin(self, recipe: Recipe) -> keras.Model:
        """Builds the classifier that a training begins with."""
        model = classifier(recipe)
        if self.from_scratch:
            return model
        lm, _ = reviews_lm.load(Results(reviews_lm.NAME))
        take_over(model, lm)
        return model


SENTENCES = Pretrained("sentiment-pretrained", RECIPE)
SCRATCH = Pretrained("sentiment-scratch", RECIPE, from_scratch=True)
WHOLE = Pretrained(
    "sentiment-imdb-pretrained",
    dataclasses.replace(
        RECIPE,
        source="imdb",
        epochs=3,
        length=128,
        windows=True,
        length_measured=512,
    ),
)
PRETRAINED, FROM_SCRATCH, PRETRAINED_WHOLE = map(
    entry_of, (SENTENCES, SCRATCH, WHOLE)
)
