"""Chapter 06: selective copying with S6 and S4D, and with one thing selective at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

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
from tf_mamba_edu.selective import SelectiveSSM
from tf_mamba_edu.tasks import SelectiveCopying

TASK = SelectiveCopying(vocab_size=18, n_tokens=16)
SEEDS = 3
S6_RATE, S4D_RATES = 5e-3, (2e-3, 5e-3, 1e-2)
# Short sequences first: from length 256 alone, a model of this size stays at chance for long.
STAGES = (
    Stage(length=48, steps=760, batch_size=42),
    Stage(length=64, steps=570, batch_size=32),
    Stage(length=128, steps=950, batch_size=16),
    Stage(length=256, steps=1520, batch_size=8),
)
# As many tokens as all stages together.
AT_ONCE = (Stage(length=256, steps=3800, batch_size=8),)
ABLATION_STAGES = STAGES[:2]
SELECTIVE = {  # what depends on the input
    "none": (),
    "B": ("B",),
    "C": ("C",),
    "delta": ("delta",),
    "B, C": ("B", "C"),
    "all": ("delta", "B", "C"),
}
RANKS = (1, 2, 16)  # of Delta; "all" has ceil(64 / 16) = 4


class PartlySelectiveSSM(SelectiveSSM):
    """`SelectiveSSM` with arrows from x to Delta, B or C cut.

    What is not selective is a learned constant: B and C (N,), and Delta = softplus(bias).

    Args:
        selective: which of "delta", "B" and "C" depend on the input.
        **kwargs: those of `SelectiveSSM`.
    """

    def __init__(self, selective: tuple[str, ...], **kwargs):
        super().__init__(**kwargs)
        self.selective = tuple(selective)

    def build(self, input_shape):
        super().build(input_shape)
        self.constants = {
            name: self.add_weight(
                shape=(self.d_state,), initializer="ones", name=name
            )
            for name in ("B", "C")
        }

    def select(self, x):
        delta, B, C = super().select(x)
        if "delta" not in self.selective:
            delta = tf.zeros_like(delta)
        if "B" not in self.selective:
            B = tf.zeros_like(B) + self.constants["B"]
        if "C" not in self.selective:
            C = tf.zeros_like(C) + self.constants["C"]
        return delta, B, C


def make_s4d() -> S4D:
    """Makes the time-invariant SSM that S6 is compared with."""
    return S4D(d_state=64, name="ssm")


def model_of(
    seed: int,
    make_ssm: Callable[[], keras.layers.Layer] | None = None,
    **block,
) -> keras.Model:
    """Builds the model of all runs: two blocks of width 64."""
    keras.utils.set_random_seed(seed)
    return token_model(TASK.vocab_size, 64, 2, make_ssm, **block)


def train_and_measure(
    model: keras.Model,
    rate: float,
    seed: int,
    stages: tuple[Stage, ...],
    backup: Path,
) -> dict:
    """Trains a model and returns its history and its accuracy at the last length and twice it."""
    steps = sum(stage.steps for stage in stages)
    compile_for(model, rate, steps, jit_compile=True)
    history = train(model, TASK, stages, seed=seed, backup=backup)
    length = stages[-1].length
    return {
        "learning_rate": rate,
        "seed": seed,
        "parameters": model.count_params(),
        "history": history,
        "accuracy": {
            str(n): accuracy(model, TASK, n, sequences=512)
            for n in (length, 2 * length)
        },
    }


def main(folder: Path | None = None) -> Results:
    """Makes the runs of S6 and S4D at length 256 that are not stored yet: three seeds each.

    And one of S6 that trains at length 256 from the start.
    """
    results = Results("selective-copying-256", folder)

    def run(name, make_ssm, rate, seed, stages=STAGES):
        model = model_of(seed, make_ssm)
        backup = results.folder / f"{name}.backup"
        measured = train_and_measure(model, rate, seed, stages, backup)
        if seed == 0 and stages is STAGES:
            results.save_weights(name, model)
        return measured

    runs = {}
    for seed in range(SEEDS):
        name = f"s6-{S6_RATE}-{seed}"
        runs[name] = lambda n=name, s=seed: run(n, None, S6_RATE, s)
        for rate in S4D_RATES:
            name = f"s4d-{rate}-{seed}"
            runs[name] = lambda n=name, r=rate, s=seed: run(
                n, make_s4d, r, s
            )
    name = f"s6 at once-{S6_RATE}-0"
    runs[name] = lambda: run(name, None, S6_RATE, 0, AT_ONCE)
    complete(results, runs)
    return results


def ablation(folder: Path | None = None) -> Results:
    """Makes the runs at length 64 that are not stored yet: what is selective, and Delta's rank."""
    results = Results("selection-ablation", folder)

    def run(name, seed, make_ssm=None, **block):
        model = model_of(seed, make_ssm, **block)
        backup = results.folder / f"{name}.backup"
        return train_and_measure(
            model, S6_RATE, seed, ABLATION_STAGES, backup
        )

    runs = {}
    for seed in range(SEEDS):
        for selective, names in SELECTIVE.items():
            name = f"{selective}-{seed}"

            def make_ssm(names=names):
                return PartlySelectiveSSM(names, dt_rank=4, name="ssm")

            runs[name] = lambda n=name, s=seed, m=make_ssm: run(n, s, m)
        for rank in RANKS:
            name = f"rank {rank}-{seed}"
            runs[name] = lambda n=name, s=seed, r=rank: run(
                n, s, dt_rank=r
            )
    complete(results, runs)
    return results


def measure(results: Results) -> dict:
    """Returns the accuracies of the stored weights at length 256."""
    found = {}
    for run in results.runs:
        kind, rate, seed = run.split("-")
        if seed == "0" and kind in ("s6", "s4d"):
            make_ssm = make_s4d if kind == "s4d" else None
            model = model_of(0, make_ssm)
            results.load_weights(run, model)
            length = STAGES[-1].length
            shares = accuracy(model, TASK, length, sequences=512)
            found[f"{kind} {rate}"] = shares["tokens"]
    return {"accuracy": found}


COPYING = Experiment(
    "selective-copying-256", main, measure, one_device=True
)


def measure_ablation(results: Results) -> dict:
    """Returns the mean share of right symbols at length 64 of each kind of model."""

    def share(run):
        return run["accuracy"][str(ABLATION_STAGES[-1].length)][
            "tokens"
        ]

    return {"accuracy": means(grouped(results, share))}


ABLATION = Experiment(
    "selection-ablation",
    ablation,
    measure_ablation,
    from_weights=False,
    one_device=True,
)
