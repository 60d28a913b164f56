"""Chapter 06: induction, learned on short sequences and tested on long ones, with S6 and S4D."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras

from tf_mamba_edu.experiments.experiment import (
    Experiment,
    grouped,
    means,
)
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import (
    Stage,
    accuracy,
    compile_for,
    token_model,
    train,
)
from tf_mamba_edu.s4d import S4D
from tf_mamba_edu.tasks import InductionHeads

TASK = InductionHeads(vocab_size=16)
STAGE = Stage(length=32, steps=300, batch_size=64)
TEST_LENGTH, ENOUGH, SEEDS = 256, 0.99, 3


def learn_induction(
    make_ssm: Callable[[], keras.layers.Layer] | None = None,
    seed: int = 0,
    label_smoothing: float = 0.2,
) -> tuple[keras.Model, dict[int, float], list[dict]]:
    """Trains at length 32 until 99 % are right at 256, or 300 steps.

    Args:
        make_ssm: makes the SSM of a block; `SelectiveSSM` if None.
        seed: of weights and sequences.
        label_smoothing: of the loss, see `SmoothedCrossentropy`.

    Returns:
        The model, its shares of right answers at 256 by step, and the history of `train`.
    """
    keras.utils.set_random_seed(seed)
    model = token_model(TASK.vocab_size, 64, 2, make_ssm)
    options = {"warmup_steps": 50, "label_smoothing": label_smoothing}
    compile_for(model, 6e-3, STAGE.steps, **options)
    curve = {}

    def test(step):
        found = accuracy(model, TASK, TEST_LENGTH, sequences=512)
        curve[step] = found["tokens"]
        return curve[step] >= ENOUGH

    options = {"steps_per_epoch": 50, "verbose": False}
    history = train(
        model, TASK, [STAGE], seed=seed, after_epoch=test, **options
    )
    return model, curve, history


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are not stored yet: S6 with and without smoothing, S4D; three seeds."""
    results = Results("induction-256", folder)

    def run(make_ssm, seed, smoothing):
        began = time.perf_counter()
        model, curve, history = learn_induction(
            make_ssm, seed, smoothing
        )
        return {
            "seed": seed,
            "label_smoothing": smoothing,
            "parameters": model.count_params(),
            "curve": {
                str(step): share for step, share in curve.items()
            },
            "history": history,
            "accuracy": {
                str(n): accuracy(
                    model, TASK, n, sequences=512, seed=20_000
                )
                for n in (STAGE.length, TEST_LENGTH)
            },
            "seconds": round(time.perf_counter() - began, 1),
        }

    def s4d():
        return S4D(d_state=64, name="ssm")

    kinds = {
        "s6": (None, 0.2),
        "s4d": (s4d, 0.2),
        "s6 plain": (None, 0.0),
    }
    runs = {}
    for seed in range(SEEDS):
        for kind, (make_ssm, smoothing) in kinds.items():
            arguments = make_ssm, seed, smoothing
            runs[f"{kind}-{seed}"] = lambda a=arguments: run(*a)
    complete(results, runs)
    return results


def measure(results: Results) -> dict:
    """Returns the mean share of right answers at length 256 of each kind of model."""

    def share(run):
        return run["accuracy"][str(TEST_LENGTH)]["tokens"]

    return {"accuracy": means(grouped(results, share))}


INDUCTION = Experiment(
    "induction-256", main, measure, from_weights=False, one_device=True
)
