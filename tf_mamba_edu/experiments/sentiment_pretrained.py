"""Chapter 13: a classifier of sentences that begins with the weights of a language model."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import keras

from tf_mamba_edu.experiments import reviews_lm
from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.sentiment import (
    Recipe,
    accuracy_on,
    classifier,
    train_and_measure,
)
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaLM

SEEDS = (0, 1, 2)
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


def stored_language_model():
    """Returns the language model that comes with the package, and its tokenizer."""
    return reviews_lm.load(Results(reviews_lm.NAME))


def tune(results: Results, seed: int) -> dict:
    """Trains a classifier from the language model's weights, and measures it."""
    recipe = dataclasses.replace(RECIPE, seed=seed)
    lm, tokenizer = stored_language_model()
    model = classifier(recipe)
    take_over(model, lm)
    return train_and_measure(
        results,
        f"tuned-{seed}",
        recipe,
        model,
        tokenizer,
        keep=seed == SEEDS[0],
    )


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: three classifiers."""
    results = Results("sentiment-pretrained", folder)
    complete(
        results,
        {
            f"tuned-{seed}": functools.partial(tune, results, seed)
            for seed in SEEDS
        },
    )
    return results


def load(results: Results):
    """Returns the first of the tuned classifiers, and the tokenizer."""
    model = classifier(RECIPE)
    results.load_weights(f"tuned-{SEEDS[0]}", model)
    return model, reviews_lm.tokenizer_of(Results(reviews_lm.NAME))


def measure(results: Results) -> dict:
    """Returns the accuracy of the stored weights on the test sentences."""
    return {"accuracy": accuracy_on("test", *load(results), RECIPE)}


PRETRAINED = Experiment("sentiment-pretrained", main, measure)
