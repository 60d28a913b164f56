"""Chapter 09: what each part of the block is worth: small models with one part missing.

Two tests: a text of letters, most of which the last few letters tell, and induction (chapter 06),
which cannot be answered without a memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.batches import batched
from tf_mamba_edu.convolution import CausalConv1D
from tf_mamba_edu.datasets import king_james_bible
from tf_mamba_edu.experiments.experiment import (
    Experiment,
    grouped,
    means,
)
from tf_mamba_edu.experiments.letters import ALPHABET, encode
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import (
    Stage,
    accuracy,
    compile_for,
    model_around,
)
from tf_mamba_edu.experiments.token_models import train as train_on
from tf_mamba_edu.initializers import symmetric_uniform
from tf_mamba_edu.selective import SelectiveSSM
from tf_mamba_edu.tasks import InductionHeads
from tf_mamba_edu.training import (
    consecutive_windows,
    make_optimizer,
    random_windows,
)

WIDTH, LAYERS = 64, 2  # E and blocks
LENGTH, BATCH_SIZE, STEPS = 128, 16, 600
HELD_OUT = 512  # windows
RECALL = InductionHeads(vocab_size=16)
STAGE = Stage(length=32, steps=300, batch_size=64)
TEST_LENGTH, SEQUENCES = 256, 512
SEEDS = (0, 1, 2)


class SwitchedBlock(keras.layers.Layer):
    """A `ResidualBlock` with a switch at each part.

    Args:
        convolution: width of the convolution; 0 for none.
        activation: whether SiLU stands between convolution and SSM.
        gate: whether the SSM's output is multiplied by silu(z).
        norm: whether the input is normalized.
        residual: whether the input is added in the end.
        ssm: whether there is an SSM at all.
        rank: of the map to Delta; "auto" is ceil(E / 16).
        scaled: whether out_proj starts smaller by the root of the number of blocks.
        spoil: changes the SSM after it was built.
    """

    def __init__(
        self,
        convolution: int = 4,
        activation: bool = True,
        gate: bool = True,
        norm: bool = True,
        residual: bool = True,
        ssm: bool = True,
        rank: int | str = "auto",
        scaled: bool = True,
        spoil: Callable[[SelectiveSSM], None] | None = None,
    ):
        super().__init__()
        self.activation, self.gate, self.residual = (
            activation,
            gate,
            residual,
        )
        self.norm = (
            keras.layers.RMSNormalization(epsilon=1e-5)
            if norm
            else None
        )
        self.conv = CausalConv1D(convolution) if convolution else None
        rank = -(-WIDTH // 16) if rank == "auto" else rank
        self.ssm = SelectiveSSM(dt_rank=rank) if ssm else None
        self.scale = LAYERS**-0.5 if scaled else 1.0
        self.spoil = spoil

    def build(self, input_shape):
        E = input_shape[-1]
        D = 2 * E

        def dense(units, inputs, scale=1.0):
            uniform = symmetric_uniform(scale * inputs**-0.5)
            layer = keras.layers.Dense(
                units, use_bias=False, kernel_initializer=uniform
            )
            layer.build((None, None, inputs))
            return layer

        self.in_proj = dense(2 * D if self.gate else D, E)
        self.out_proj = dense(E, D, self.scale)
        for layer, channels in (
            (self.norm, E),
            (self.conv, D),
            (self.ssm, D),
        ):
            if layer is not None:
                layer.build((None, None, channels))
        if self.spoil is not None:
            self.spoil(self.ssm)
        self.built = True

    def call(self, x):
        """Runs the parts that are on, (B, L, E) to (B, L, E)."""
        y = self.in_proj(x if self.norm is None else self.norm(x))
        if self.gate:
            y, z = tf.split(y, 2, axis=-1)  # (B, L, D) each
        if self.conv is not None:
            y = self.conv(y)
        if self.activation:
            y = tf.nn.silu(y)
        if self.ssm is not None:
            y = self.ssm(y)
        if self.gate:
            y = y * tf.nn.silu(z)  # (B, L, D)
        y = self.out_proj(y)  # (B, L, E)
        return x + y if self.residual else y


def without_skip(ssm: SelectiveSSM) -> None:
    """Sets D to 0 and leaves it there."""
    ssm.D.assign(tf.zeros_like(ssm.D))
    ssm.D.trainable = False


def with_zero_bias(ssm: SelectiveSSM) -> None:
    """Lets every channel start with Delta = softplus(0)."""
    ssm.dt_bias.assign(tf.zeros_like(ssm.dt_bias))


def with_one_clock(ssm: SelectiveSSM) -> None:
    """Lets all N states of a channel start with A = -1."""
    ssm.A_log.assign(tf.zeros_like(ssm.A_log))


VARIANTS = {  # name -> what is switched
    "whole block": {},
    "no SSM": dict(ssm=False),
    "no convolution": dict(convolution=0),
    "convolution of 2": dict(convolution=2),
    "convolution of 8": dict(convolution=8),
    "no SiLU": dict(activation=False),
    "no gate": dict(gate=False),
    "no norm": dict(norm=False),
    "no residual": dict(residual=False),
    "no skip D": dict(spoil=without_skip),
    "Delta of rank 1": dict(rank=1),
    "Delta of rank 32": dict(rank=32),
    "Delta's bias 0": dict(spoil=with_zero_bias),
    "A = -1 in all states": dict(spoil=with_one_clock),
    "out_proj not scaled": dict(scaled=False),
}


def small_model(vocab_size: int, seed: int, **switches) -> keras.Model:
    """Builds a model of tokens from blocks with these switches."""
    keras.utils.set_random_seed(seed)
    layers = [SwitchedBlock(**switches) for _ in range(LAYERS)]
    return model_around(vocab_size, WIDTH, layers)


@functools.cache
def letters() -> tuple[list[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns the training passages as ids, and windows of the validation part."""
    texts = king_james_bible()
    held_out = [encode(passage) for passage in texts.validation]
    x, y = consecutive_windows(held_out, LENGTH)
    few = np.random.default_rng(0).permutation(len(x))[:HELD_OUT]
    return [encode(passage) for passage in texts.train], (
        x[few],
        y[few],
    )


def on_letters(name: str, seed: int, steps: int = STEPS) -> dict:
    """Trains one variant on text; returns bits per letter on held-out text."""
    model = small_model(len(ALPHABET), seed, **VARIANTS[name])
    passages, (x, y) = letters()
    model.compile(
        make_optimizer(4e-3, steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    windows = random_windows(passages, LENGTH, steps * BATCH_SIZE, seed)
    history = model.fit(
        batched(windows, BATCH_SIZE), shuffle=False, verbose=0
    )
    loss = model.evaluate(x, y, batch_size=32, verbose=0)
    return {
        "test": "letters",
        "variant": name,
        "seed": seed,
        "steps": steps,
        "parameters": model.count_params(),
        "training_loss": round(history.history["loss"][-1], 4),
        "bits_per_letter": round(float(loss / np.log(2)), 4),
    }


def on_recall(name: str, seed: int, stage: Stage = STAGE) -> dict:
    """Trains one variant on short induction; returns shares of right answers by length."""
    model = small_model(RECALL.vocab_size, seed, **VARIANTS[name])
    compile_for(
        model, 6e-3, stage.steps, warmup_steps=50, label_smoothing=0.2
    )
    history = train_on(model, RECALL, [stage], seed=seed, verbose=False)
    return {
        "test": "recall",
        "variant": name,
        "seed": seed,
        "steps": stage.steps,
        "parameters": model.count_params(),
        "training_loss": history[-1]["loss"],
        "accuracy": {
            str(length): accuracy(
                model, RECALL, length, sequences=SEQUENCES, seed=20_000
            )["tokens"]
            for length in (stage.length, TEST_LENGTH)
        },
    }


TESTS = {"letters": on_letters, "recall": on_recall}


def main(folder: Path | None = None) -> Results:
    """Trains all variants on both tests, each with three seeds, unless they are stored."""
    results = Results("block-parts", folder)
    complete(
        results,
        {
            f"{test}: {name}-{seed}": functools.partial(run, name, seed)
            for seed in SEEDS
            for name in VARIANTS
            for test, run in TESTS.items()
        },
    )
    return results


def measure(results: Results) -> dict:
    """Returns the means over seeds: bits per letter, and the share recalled at length 256."""

    def value(run):
        if run["test"] == "letters":
            return run["bits_per_letter"]
        return run["accuracy"][str(TEST_LENGTH)]

    found = means(grouped(results, value))
    return {
        test: {
            name.removeprefix(f"{test}: "): v
            for name, v in found.items()
            if name.startswith(test)
        }
        for test in TESTS
    }


BLOCK_PARTS = Experiment(
    "block-parts", main, measure, from_weights=False, one_device=True
)
