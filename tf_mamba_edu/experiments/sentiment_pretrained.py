"""Chapter 13: a language model of reviews, then a classifier of sentences from its weights."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import keras
import numpy as np

from tf_mamba_edu.config import MambaConfig
from tf_mamba_edu.experiments.experiment import (
    Experiment,
    fit_or_resume,
    stored_tokenizer,
)
from tf_mamba_edu.experiments.next_token import evaluate
from tf_mamba_edu.experiments.sentiment import (
    VOCABULARY,
    Recipe,
    classifier,
    encode,
    probabilities,
    share_right,
    train_and_measure,
)
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.lm import MambaLM
from tf_mamba_edu.reviews import language_model_texts, movie_reviews
from tf_mamba_edu.training import make_optimizer, random_windows

SEEDS = (0, 1, 2)
MEASURED = 2000  # tokens in each of 64 held-out passages
STEPS, STEPS_PER_EPOCH, LENGTH, BATCH_SIZE = 3000, 250, 128, 16
RECIPE = Recipe(
    "rotten_tomatoes",
    epochs=4,
    length=64,
    n_layers=2,
    d_model=128,
    both_ways=False,
    word_dropout=0.1,
    learning_rate=1e-3,
)
NAME, LANGUAGE_MODEL = "sentiment-pretrained", "language model-0"


def language_model(dropout: float = 0.0) -> MambaLM:
    """Builds the language model; its ids are those of the classifier."""
    keras.utils.set_random_seed(0)
    config = MambaConfig(
        VOCABULARY + 1, RECIPE.d_model, RECIPE.n_layers
    )
    return MambaLM(config, dropout=dropout)


def stream_of(tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Joins reviews to one passage, an end marker behind each; ids as in `encode`."""
    end = tokenizer.eos_id()
    pieces = [
        p for text in tokenizer.encode(texts) for p in (*text, end)
    ]
    return [np.array(pieces, np.int32) + 1]


def train_language_model(results: Results, tokenizer) -> dict:
    """Trains on the reviews of both sources, those that are held out excluded."""
    texts = language_model_texts()
    passages = stream_of(tokenizer, texts.train)
    model = language_model()
    model.compile(
        make_optimizer(3e-3, STEPS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )

    def data(epoch):
        count = STEPS_PER_EPOCH * BATCH_SIZE
        return random_windows(passages, LENGTH, count, epoch)

    began = time.perf_counter()
    recipe = {"steps": STEPS, "length": LENGTH, "batch": BATCH_SIZE}
    history = fit_or_resume(
        model,
        data,
        STEPS // STEPS_PER_EPOCH,
        results,
        LANGUAGE_MODEL,
        recipe,
        batch_size=BATCH_SIZE,
    )
    seconds = time.perf_counter() - began
    results.save_weights(LANGUAGE_MODEL, model, "float16")
    [held_out] = stream_of(tokenizer, texts.validation)
    some = np.split(held_out[: 64 * MEASURED], 64)  # of 2,000 tokens
    found = evaluate(model, some, batch_size=16)
    return {
        "seed": 0,
        "recipe": recipe,
        "parameters": model.count_params(),
        "training_tokens": len(passages[0]),
        "history": {"loss": [round(v, 4) for v in history["loss"]]},
        "validation_loss": found["loss"],
        "seconds": round(seconds, 1),
    }


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


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: the language model, then three classifiers."""
    results = Results(NAME, folder)

    def tokenizer():
        return stored_tokenizer(
            results, lambda: language_model_texts().train, VOCABULARY
        )

    def tune(seed):
        recipe = dataclasses.replace(RECIPE, seed=seed)
        lm = language_model()
        results.load_weights(LANGUAGE_MODEL, lm)
        model = classifier(recipe)
        take_over(model, lm)
        pieces = tokenizer()
        splits = movie_reviews(recipe.source)
        return train_and_measure(
            results,
            f"tuned-{seed}",
            recipe,
            model,
            splits,
            encode(pieces, splits.train.texts, recipe.length),
            pieces,
            keep=seed == SEEDS[0],
        )

    runs = {
        LANGUAGE_MODEL: lambda: train_language_model(
            results, tokenizer()
        )
    }
    for seed in SEEDS:
        runs[f"tuned-{seed}"] = functools.partial(tune, seed)
    complete(results, runs)
    return results


def load(results: Results):
    """Returns the first of the tuned classifiers, and the tokenizer."""
    model = classifier(RECIPE)
    results.load_weights(f"tuned-{SEEDS[0]}", model)
    return model, stored_tokenizer(results, tuple, VOCABULARY)


def measure(results: Results) -> dict:
    """Returns the accuracy of the stored weights on the test sentences."""
    model, tokenizer = load(results)
    test = movie_reviews(RECIPE.source).test
    ids = encode(tokenizer, test.texts, RECIPE.length)
    return {"accuracy": share_right(probabilities(model, ids), test)}


PRETRAINED = Experiment(NAME, main, measure)
