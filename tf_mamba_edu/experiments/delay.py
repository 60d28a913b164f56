"""Chapter 05: a layer has to say what it heard 500 steps ago, from several initializations of A."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tf_mamba_edu.batches import batched
from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.s4d import INITIALIZATIONS, S4D

LENGTH, LAG, D_STATE, CHANNELS = 1024, 500, 64, 8
STEPS, BATCH_SIZE, LEARNING_RATE, SEEDS = 2000, 16, 1e-2, 3


def smooth_noise(count: int, seed) -> np.ndarray:
    """Draws signals (count, 1024) of mean square 1: random waves of at least 32 steps each."""
    rng = np.random.default_rng(seed)
    waves = np.zeros((count, LENGTH + 1), complex)
    waves[:, 1:64] = rng.normal(size=(count, 63, 2)) @ (1, 1j)
    x = np.fft.irfft(waves)[:, :LENGTH]
    x /= np.sqrt((x**2).mean(axis=1, keepdims=True))
    return x.astype("float32")


def examples(count: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Draws inputs and targets (count, 1024, 1): the target is the input 500 steps before."""
    x = smooth_noise(count, seed)
    y = np.zeros_like(x)
    y[:, LAG:] = x[:, :-LAG]
    return x[..., None], y[..., None]


def delay_model(initialization: str, seed: int) -> keras.Model:
    """Builds a linear model (B, L, 1) to (B, L, 1) of eight channels around one `S4D`."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((LENGTH, 1)),
            keras.layers.Dense(CHANNELS, use_bias=False, name="write"),
            S4D(D_STATE, initialization, seed=seed, name="s4d"),
            keras.layers.Dense(1, use_bias=False, name="read"),
        ],
    )


def relative_error(model: keras.Model, seed: int = 10_000) -> float:
    """Returns the root mean square error where there is a target, in units of the signal."""
    x, y = examples(64, seed)
    error = (model.predict(x, verbose=0) - y)[:, LAG:]
    return round(float(np.sqrt(np.mean(error**2))), 4)


def train_one(
    initialization: str, seed: int
) -> tuple[keras.Model, dict]:
    """Trains one model for 2,000 steps; returns it and what was measured."""
    model = delay_model(initialization, seed)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, STEPS)
    model.compile(keras.optimizers.Adam(rate), "mse", jit_compile=True)
    losses = []
    bar = keras.utils.Progbar(STEPS, stateful_metrics=["loss"])
    for epoch in range(STEPS // 200):
        x, y = examples(200 * BATCH_SIZE, (seed, epoch))
        logs = model.fit(
            batched((x, y), BATCH_SIZE), shuffle=False, verbose=0
        )
        losses.append(round(logs.history["loss"][0], 5))
        done = (epoch + 1) * len(x) // BATCH_SIZE
        bar.update(done, [("loss", losses[-1])])
    return model, {
        "initialization": initialization,
        "seed": seed,
        "losses": losses,
        "relative_error": relative_error(model),
    }


def main(folder: Path | None = None) -> Results:
    """Makes all runs that are not stored yet: five initializations, three seeds."""
    results = Results("delay", folder)

    def run(initialization, seed):
        model, measured = train_one(initialization, seed)
        if seed == 0:
            results.save_weights(f"{initialization}-{seed}", model)
        return measured

    complete(
        results,
        {
            f"{i}-{s}": lambda i=i, s=s: run(i, s)
            for s in range(SEEDS)
            for i in INITIALIZATIONS
        },
    )
    return results


def measure(results: Results) -> dict:
    """Returns the errors of the stored weights."""
    errors = {}
    for initialization in INITIALIZATIONS:
        model = delay_model(initialization, 0)
        results.load_weights(f"{initialization}-0", model)
        errors[initialization] = relative_error(model)
    return {"relative_error": errors}


DELAY = Experiment("delay", main, measure, one_device=True)
