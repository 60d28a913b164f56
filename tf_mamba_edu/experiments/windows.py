"""Chapter 12: how not to do it: windows that overlap, shuffled and split at random.

Each window of 128 tokens is one example, and its target the one token that follows. A layer reads
all 128 outputs at once. What "validates" are windows of the text that is trained on: their
targets stand inside of training windows.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import keras
import numpy as np

from tf_mamba_edu.block import ResidualBlock
from tf_mamba_edu.experiments.experiment import (
    Experiment,
    fit_or_resume,
)
from tf_mamba_edu.experiments.next_token import (
    VOCABULARY,
    NextToken,
    encode,
)
from tf_mamba_edu.experiments.store import Results, complete


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The set-up: sizes of the model, how windows are cut, how long it trains.

    Attributes:
        fraction: how much of the text there is, from its beginning.
        length: L, tokens a window.
        d_model: E, width of the one block.
        batch_size: B.
        learning_rate: constant.
        passes: over all training windows.
        parts: a pass is measured this many times.
        leaked: share of the windows that "validates".
        measured: windows of each kind that are measured.
        seed: of weights and windows.
    """

    fraction: float = 1 / 14
    length: int = 128
    d_model: int = 128
    batch_size: int = 64
    learning_rate: float = 1e-3
    passes: int = 3
    parts: int = 2
    leaked: float = 0.3
    measured: int = 2048
    seed: int = 0


RECIPE = Recipe()
TEXT = NextToken("next-token-windows", RECIPE.fraction, ())


def windows_of(
    ids: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a window at every token: (windows, L), and the token behind each (windows,)."""
    cut = np.lib.stride_tricks.sliding_window_view(ids, length + 1)
    return cut[:, :-1], cut[:, -1]


def one_token_model(recipe: Recipe) -> keras.Model:
    """Builds the model: one block, and a head on all L outputs at once, (B, L) to (B, V)."""
    keras.utils.set_random_seed(recipe.seed)
    ids = keras.Input((recipe.length,), dtype="int32")
    h = keras.layers.Embedding(VOCABULARY, recipe.d_model)(ids)
    h = ResidualBlock(name="block_0")(h)  # (B, L, E)
    h = keras.layers.RMSNormalization()(h)
    h = keras.layers.Flatten()(h)  # (B, L E)
    return keras.Model(ids, keras.layers.Dense(VOCABULARY)(h))  # (B, V)


def parts_of(recipe: Recipe, tokenizer) -> dict[str, tuple]:
    """Returns windows and targets: "train", "leaked" (of the same text) and "honest"."""
    texts = TEXT.texts
    [read] = encode(
        tokenizer, ["".join(texts.train + texts.validation)]
    )
    [held_out] = encode(tokenizer, texts.test)
    x, y = windows_of(read, recipe.length)
    rng = np.random.default_rng(recipe.seed)
    order = rng.permutation(len(x))
    leaked = order[: int(recipe.leaked * len(x))]
    train = order[len(leaked) :]
    far, after = windows_of(held_out, recipe.length)
    some = rng.permutation(len(far))[: recipe.measured]
    leaked = leaked[: recipe.measured]
    return {
        "train": (x[train], y[train]),
        "leaked": (x[leaked], y[leaked]),
        "honest": (far[some], after[some]),
    }


class Measure(keras.callbacks.Callback):
    """Writes loss and accuracy on all kinds of windows into what `fit` has measured."""

    def __init__(self, parts: dict[str, tuple], batch_size: int):
        super().__init__()
        self.parts, self.batch_size = parts, batch_size

    def on_epoch_end(self, epoch, logs=None):
        for name, (x, y) in self.parts.items():
            found = self.model.evaluate(
                x,
                y,
                batch_size=self.batch_size,
                verbose=0,
                return_dict=True,
            )
            for key, value in found.items():
                logs[f"{name}_{key}"] = float(value)


def train_on_windows(results: Results, recipe: Recipe) -> dict:
    """Trains, and measures both kinds of validation; the weights are too large to keep."""
    parts = parts_of(recipe, TEXT.tokenizer(results))
    x, y = parts["train"]
    model = one_token_model(recipe)
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    count = len(x) // recipe.parts
    count = count // recipe.batch_size * recipe.batch_size

    def data(epoch):
        which, part = divmod(epoch, recipe.parts)
        rng = np.random.default_rng((recipe.seed, which))
        rows = rng.permutation(len(x))[part * count :][:count]
        return x[rows], y[rows]

    measured = {
        "train": (x[: recipe.measured], y[: recipe.measured]),
        "leaked": parts["leaked"],
        "honest": parts["honest"],
    }
    began = time.perf_counter()
    history = fit_or_resume(
        model,
        data,
        recipe.passes * recipe.parts,
        results,
        "0",
        dataclasses.asdict(recipe),
        batch_size=recipe.batch_size,
        callbacks=[Measure(measured, recipe.batch_size)],
    )
    return {
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "parameters": model.count_params(),
        "training_windows": len(x),
        "history": {
            name: [round(v, 4) for v in values]
            for name, values in history.items()
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(folder: Path | None = None) -> Results:
    """Makes the run, unless it is stored."""
    results = Results(TEXT.name, folder)
    complete(results, {"0": lambda: train_on_windows(results, RECIPE)})
    return results


def measure(results: Results) -> dict:
    """Returns the last of the run's measurements; the weights, 130 MB, are not kept."""
    last = {
        name: values[-1]
        for name, values in results.runs["0"]["history"].items()
    }
    return {
        "val_loss": last["honest_loss"],
        "val_accuracy": last["honest_accuracy"],
        "training_accuracy": last["train_accuracy"],
        "leaked_loss": last["leaked_loss"],
        "leaked_accuracy": last["leaked_accuracy"],
    }


WINDOWS = Experiment(
    TEXT.name, main, measure, from_weights=False, one_device=True
)
