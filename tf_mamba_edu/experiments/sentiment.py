"""Chapter 13: the sentiment of movie reviews, from scratch and with a language model before it."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.bidirectional import BidirectionalMambaBlock
from tf_mamba_edu.block import MambaBlock
from tf_mamba_edu.experiments.experiment import (
    entry_of,
    fit_or_resume,
    stored_tokenizer,
)
from tf_mamba_edu.experiments.naive_bayes import NaiveBayes
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.initializers import Normal
from tf_mamba_edu.reviews import Reviews, movie_reviews
from tf_mamba_edu.training import make_optimizer

VOCABULARY = 8000
PADDING, UNKNOWN = 0, 1  # ids; a piece of the tokenizer is its id + 1
POOLINGS = ("mean", "max", "last")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run.

    Attributes:
        source: of `movie_reviews`.
        epochs: passes over the training part.
        length: L, pieces of a review that training reads.
        windows: whether each pass reads another window of a review that is longer than that;
            otherwise its first and its last half, always the same.
        length_measured: pieces that are read when the model is measured (the first and the last
            half of a longer review); 0: as many as in training.
        n_layers: blocks.
        d_model: E, width of the model.
        both_ways: whether each block reads in both directions.
        pooling: how the outputs of a review become one: "mean", "max" or "last".
        dropout: share of the embedding, of each block's output and of the pooled vector that
            training leaves out.
        word_dropout: share of the pieces that training makes unknown.
        learning_rate: the highest.
        weight_decay: of `make_optimizer`.
        batch_size: B.
        seed: of weights, order and dropout.
    """

    source: str
    epochs: int
    length: int
    windows: bool = False
    length_measured: int = 0
    n_layers: int = 1
    d_model: int = 64
    both_ways: bool = True
    pooling: str = "mean"
    dropout: float = 0.4
    word_dropout: float = 0.2
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 32
    seed: int = 0


@keras.saving.register_keras_serializable("tf_mamba_edu")
class MaskedPooling(keras.layers.Layer):
    """Makes one vector (B, E) of a review's outputs (B, L, E), blind to its padding.

    Args:
        how: "mean" or "max" over the pieces that the mask (B, L) shows, or "last": the output at
            the last of them.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if there is no such pooling.
    """

    def __init__(self, how: str, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if how not in POOLINGS:
            raise ValueError(
                f"`how` must be one of {POOLINGS}. Received: how={how!r}"
            )
        self.how = how

    def call(self, h, mask=None):
        """Pools (B, L, E) to (B, E)."""
        if mask is None:
            mask = tf.ones(tf.shape(h)[:2], tf.bool)
        shown = tf.cast(mask, h.dtype)[:, :, None]  # (B, L, 1)
        if self.how == "mean":
            return tf.reduce_sum(h * shown, 1) / tf.maximum(
                tf.reduce_sum(shown, 1), 1
            )
        if self.how == "max":
            return tf.reduce_max(h + (shown - 1) * 1e9, 1)
        places = tf.range(tf.shape(h)[1])  # (L,)
        last = tf.reduce_max(tf.where(mask, places, 0), axis=1)  # (B,)
        return tf.gather(h, last, batch_dims=1)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "how": self.how}


def classifier(recipe: Recipe) -> keras.Model:
    """Builds the model of a recipe, from padded ids (B, L) to the logit (B, 1) of praise.

    The mask goes with the pieces through all layers: padding changes no state and no pooling.
    """
    keras.utils.set_random_seed(recipe.seed)
    ids = keras.Input((None,), dtype="int32", name="ids")

    def dropout(name, noise_shape=(None, 1, None)):
        return keras.layers.Dropout(
            recipe.dropout, noise_shape, seed=recipe.seed, name=name
        )  # of a sequence, a channel is dropped as a whole

    h = keras.layers.Embedding(
        VOCABULARY + 1,
        recipe.d_model,
        mask_zero=True,
        embeddings_initializer=Normal(stddev=0.1),
        name="embedding",
    )(ids)  # (B, L, E)
    h = dropout("dropout")(h)
    for i in range(recipe.n_layers):
        norm = keras.layers.RMSNormalization(
            epsilon=1e-5, name=f"norm_{i}"
        )
        norm.supports_masking = True  # each position by itself
        block = dict(n_layers=recipe.n_layers)
        layer = (
            BidirectionalMambaBlock(block=block, name=f"block_{i}")
            if recipe.both_ways
            else MambaBlock(**block, name=f"block_{i}")
        )
        y = dropout(f"dropout_{i}")(layer(norm(h)))
        h = keras.layers.Add(name=f"add_{i}")([h, y])  # (B, L, E)
    norm = keras.layers.RMSNormalization(epsilon=1e-5, name="norm")
    norm.supports_masking = True
    pooled = MaskedPooling(recipe.pooling, name="pooling")(norm(h))
    pooled = dropout("dropout_pooled", None)(pooled)  # (B, E)
    return keras.Model(ids, keras.layers.Dense(1, name="head")(pooled))


def encode(tokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """Returns the pieces of texts as ids (texts, L), padded behind.

    Of a text that is too long the beginning and the end are kept, half the length each: verdicts
    stand at either end.
    """
    ids = np.full((len(texts), length), PADDING, np.int32)
    half = length // 2
    for row, pieces in enumerate(tokenizer.encode(list(texts))):
        if len(pieces) > length:
            pieces = pieces[:half] + pieces[half - length :]
        ids[row, : len(pieces)] = np.array(pieces, np.int32) + 1
    return ids


def windows_of(
    pieces: Sequence[Sequence[int]],
    length: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Returns a random window of each text's pieces as ids (texts, L); short texts are padded."""
    ids = np.full((len(pieces), length), PADDING, np.int32)
    for row, text in enumerate(pieces):
        start = rng.integers(max(len(text) - length, 0) + 1)
        part = text[start : start + length]
        ids[row, : len(part)] = np.array(part, np.int32) + 1
    return ids


def epoch_of(
    ids: np.ndarray, labels: np.ndarray, recipe: Recipe, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what an epoch reads: shuffled, with some pieces made unknown, whole batches."""
    rng = np.random.default_rng((recipe.seed, epoch))
    rows = rng.permutation(len(ids))
    rows = rows[: len(rows) // recipe.batch_size * recipe.batch_size]
    x = ids[rows]
    dropped = rng.random(x.shape) < recipe.word_dropout
    x = np.where(dropped & (x != PADDING), UNKNOWN, x)
    return x, labels[rows].astype("float32")[:, None]


def compile_classifier(
    model: keras.Model, recipe: Recipe, examples: int
) -> None:
    """Compiles a classifier with the recipe's optimizer for so many examples an epoch."""
    steps = recipe.epochs * (examples // recipe.batch_size)
    model.compile(
        make_optimizer(
            recipe.learning_rate,
            steps,
            weight_decay=recipe.weight_decay,
        ),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        ],
        jit_compile=True,
    )


def probabilities(
    model: keras.Model, ids: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Returns the probability of praise (texts,) for padded ids (texts, L)."""
    rows = -(-len(ids) // batch_size) * batch_size
    padded = np.concatenate(
        [ids, np.repeat(ids[:1], rows - len(ids), axis=0)]
    )
    read = tf.function(
        lambda x: tf.sigmoid(model(x)[:, 0]), jit_compile=True
    )
    parts = [
        read(padded[i : i + batch_size])
        for i in range(0, rows, batch_size)
    ]
    return np.concatenate(parts)[: len(ids)]


def share_right(probability: np.ndarray, reviews: Reviews) -> float:
    """Returns the share of reviews whose label is the likelier one."""
    return round(
        float(np.mean((probability > 0.5) == reviews.labels)), 4
    )


@dataclasses.dataclass(frozen=True)
class Sentiment:
    """An experiment: one recipe, three seeds; weights of the first are kept.

    Attributes:
        name: of the experiment.
        recipe: of all runs.
        seeds: of the runs.
    """

    name: str
    recipe: Recipe
    seeds: tuple[int, ...] = (0, 1, 2)

    def main(self, folder: Path | None = None) -> Results:
        """Makes the runs that are missing."""
        results = Results(self.name, folder)
        complete(
            results,
            {
                str(seed): functools.partial(self.make, results, seed)
                for seed in self.seeds
            },
        )
        return results

    def tokenizer(self, results: Results):
        """Returns the tokenizer, learned from the training part."""
        return stored_tokenizer(
            results,
            lambda: movie_reviews(self.recipe.source).train.texts,
            VOCABULARY,
        )

    def begin(self, recipe: Recipe) -> keras.Model:
        """Builds the classifier that a training begins with."""
        return classifier(recipe)

    def to_learn_from(self) -> Reviews:
        """Returns the reviews that a training reads."""
        return movie_reviews(self.recipe.source).train

    def make(self, results: Results, seed: int) -> dict:
        """Trains a classifier; measures it, and naive Bayes on the same texts."""
        recipe = dataclasses.replace(self.recipe, seed=seed)
        return train_and_measure(
            results,
            str(seed),
            recipe,
            self.begin(recipe),
            self.tokenizer(results),
            self.to_learn_from(),
            keep=seed == self.seeds[0],
        )

    def load(self, results: Results, run: str = "0"):
        """Returns the trained model of a run, and the tokenizer."""
        model = classifier(self.recipe)
        results.load_weights(run, model)
        return model, self.tokenizer(results)

    def measure(self, results: Results) -> dict:
        """Returns the accuracy of the stored weights on the test part."""
        test = movie_reviews(self.recipe.source).test
        return {
            "accuracy": accuracy_on(
                test, *self.load(results), self.recipe
            )
        }


def train_and_measure(
    results: Results,
    run: str,
    recipe: Recipe,
    model: keras.Model,
    tokenizer,
    train: Reviews,
    keep: bool,
) -> dict:
    """Trains a classifier as a recipe says; measures the rounded weights, beside naive Bayes."""
    splits = movie_reviews(recipe.source)
    texts, labels = train.texts, train.labels
    if recipe.windows:
        pieces = tokenizer.encode(list(texts))

        def read(epoch):
            rng = np.random.default_rng((recipe.seed, epoch, 1))
            return windows_of(pieces, recipe.length, rng)
    else:
        ends = encode(tokenizer, texts, recipe.length)

        def read(epoch):
            return ends

    compile_classifier(model, recipe, len(texts))
    began = time.perf_counter()
    history = fit_or_resume(
        model,
        lambda epoch: epoch_of(read(epoch), labels, recipe, epoch),
        recipe.epochs,
        results,
        run,
        dataclasses.asdict(recipe),
        batch_size=recipe.batch_size,
    )
    seconds = time.perf_counter() - began
    if keep:
        results.save_weights(run, model, "float16")
    counts = naive_bayes(recipe.source)
    record = {
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "parameters": model.count_params(),
        "history": {
            name: [round(v, 4) for v in history[name]]
            for name in ("loss", "accuracy")
        },
        "seconds": round(seconds, 1),
    }
    for part in ("validation", "test"):
        reviews = getattr(splits, part)
        record[part] = accuracy_on(reviews, model, tokenizer, recipe)
        record[f"naive_bayes_{part}"] = share_right(
            counts.predict(reviews.texts), reviews
        )
    return record


def accuracy_on(
    reviews: Reviews, model: keras.Model, tokenizer, recipe: Recipe
) -> float:
    """Returns the share of reviews that a classifier judges right."""
    length = recipe.length_measured or recipe.length
    ids = encode(tokenizer, reviews.texts, length)
    return share_right(probabilities(model, ids), reviews)


@functools.cache
def naive_bayes(source: str) -> NaiveBayes:
    """Returns naive Bayes, fitted to the training part of a source."""
    train = movie_reviews(source).train
    return NaiveBayes().fit(train.texts, train.labels)


SENTENCES_1 = Sentiment(
    "sentiment-1", Recipe("rotten_tomatoes", epochs=8, length=64)
)
SENTENCES_3 = Sentiment(
    "sentiment-3",
    Recipe("rotten_tomatoes", epochs=8, length=64, n_layers=3),
)
WHOLE = Sentiment(
    "sentiment-imdb",
    Recipe(
        "imdb", epochs=5, length=256, windows=True, length_measured=512
    ),
)
ONE_BLOCK, THREE_BLOCKS, WHOLE_REVIEWS = map(
    entry_of, (SENTENCES_1, SENTENCES_3, WHOLE)
)
