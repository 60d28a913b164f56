"""Chapter 13: how a classifier pools what it has read, and whether it reads in both directions.

Otherwise as `sentiment-1`, whose three runs (the mean, both directions) are not made again.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.sentiment import (
    POOLINGS,
    SENTENCES_1,
    Recipe,
    accuracy_on,
    classifier,
    train_and_measure,
)
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.reviews import movie_reviews

SEEDS = (0, 1, 2)
BASE = SENTENCES_1.recipe
RECIPES = {
    f"{how} {'both ways' if both else 'one way'}": dataclasses.replace(
        BASE, pooling=how, both_ways=both
    )
    for how in POOLINGS
    for both in (False, True)
    if (how, both) != (BASE.pooling, BASE.both_ways)
}
STORED = "last one way-0"


def make(results: Results, run: str, recipe: Recipe) -> dict:
    """Trains a classifier and measures it."""
    return train_and_measure(
        results,
        run,
        recipe,
        classifier(recipe),
        SENTENCES_1.tokenizer(results),
        SENTENCES_1.to_learn_from(),
        keep=run == STORED,
    )


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: each pooling and direction, three seeds."""
    results, runs = Results("sentiment-pooling", folder), {}
    for seed in SEEDS:
        for name, recipe in RECIPES.items():
            run = f"{name}-{seed}"
            seeded = dataclasses.replace(recipe, seed=seed)
            runs[run] = functools.partial(make, results, run, seeded)
    complete(results, runs)
    return results


def load(results: Results):
    """Returns the classifier that pools by the last state and reads one way, and the tokenizer."""
    model = classifier(RECIPES[STORED.rpartition("-")[0]])
    results.load_weights(STORED, model)
    return model, SENTENCES_1.tokenizer(results)


def measure(results: Results) -> dict:
    """Returns the accuracy of the stored weights on the test part."""
    test = movie_reviews(BASE.source).test
    return {"accuracy": accuracy_on(test, *load(results), BASE)}


POOLING = Experiment("sentiment-pooling", main, measure)
