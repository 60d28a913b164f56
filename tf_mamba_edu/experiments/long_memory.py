"""Chapter 14: one fact, carried through up to a million tokens.

The task is induction: of all tokens only one pair counts. A model that was trained on short
sequences still writes a little at every token, and over a million tokens the little adds up. So
writing is given a price, and steps that need not be taken become so small that they never matter.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.experiments.experiment import Experiment
from tf_mamba_edu.experiments.store import Results, complete
from tf_mamba_edu.experiments.token_models import (
    Stage,
    accuracy,
    compile_for,
    token_model,
    train,
)
from tf_mamba_edu.selective import SelectiveSSM
from tf_mamba_edu.tasks import InductionHeads
from tf_mamba_edu.validation import check_positive_int

TASK = InductionHeads(vocab_size=16)
LENGTHS = tuple(2**k for k in (6, 8, 10, 12, 14, 16, 18, 20))
SEEDS = (0, 1, 2)
SEQUENCES, CHUNK = 32, 4096


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run.

    Attributes:
        stages: lengths, steps and batch sizes.
        price: of writing, see `PricedSSM`.
        learning_rate: the highest.
        label_smoothing: of `SmoothedCrossentropy`.
        free_steps: training steps before writing has a price.
        tested: lengths at which the trained model is tested.
        seed: of weights and sequences.
    """

    stages: tuple[Stage, ...]
    price: float = 0.0
    learning_rate: float = 6e-3
    label_smoothing: float = 0.2
    free_steps: int = 300
    tested: tuple[int, ...] = LENGTHS[:6]
    seed: int = 0


SHORT = (Stage(32, 300, 64), Stage(256, 300, 16))
MIXED = (
    Stage(32, 300, 64),
    Stage(256, 150, 16),
    Stage(1024, 150, 4),
    Stage(4096, 50, 1),
)
RECIPES = {
    "plain": Recipe(SHORT),
    "mixed": Recipe(MIXED),
    "priced": Recipe(SHORT, price=0.01),
    "hasty": Recipe(SHORT, price=0.01, free_steps=50),
}
SHIPPED = "priced-0"


class PricedSSM(SelectiveSSM):
    """`SelectiveSSM` with a price: mean(max(log Delta - FLOOR, 0)).

    Price times that is added to the loss. By the logarithm, a step that is already small is
    pushed as hard as one that is large, until it is e^FLOOR: a million of those make 0.002.

    Args:
        price: a variable, since it changes in the course of a training.
        **kwargs: those of `SelectiveSSM`.
    """

    FLOOR = -20.0

    def __init__(self, price: tf.Variable, **kwargs):
        super().__init__(**kwargs)
        self.price = price

    def call(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        log_delta = tf.math.log(self.step_sizes(x) + 1e-30)  # (B, L, D)
        above = tf.nn.relu(log_delta - self.FLOOR)
        self.add_loss(self.price * tf.reduce_mean(above))
        return super().call(x, initial_state, return_state, mask)


def learn(recipe: Recipe) -> tuple[keras.Model, list[dict], dict]:
    """Trains a model.

    Returns:
        The model, the history of `train`, and after how many seconds of training which share was
        right at length 256.
    """
    keras.utils.set_random_seed(recipe.seed)
    price = tf.Variable(0.0, trainable=False)
    model = token_model(
        TASK.vocab_size, 64, 2, lambda: PricedSSM(price, name="ssm")
    )
    steps = sum(stage.steps for stage in recipe.stages)
    compile_for(
        model,
        recipe.learning_rate,
        steps,
        warmup_steps=50,
        label_smoothing=recipe.label_smoothing,
    )
    curve = {}

    def after_epoch(step):
        if step >= recipe.free_steps:
            price.assign(recipe.price)
        if step % 100 == 0:
            found = accuracy(model, TASK, 256, sequences=256)
            curve[str(step)] = found["tokens"]
        return False

    history = train(
        model,
        TASK,
        recipe.stages,
        seed=recipe.seed,
        after_epoch=after_epoch,
        steps_per_epoch=50,
    )
    return model, history, curve


def question(
    batch_size: int, length: int, chunk: int, seed
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Draws sequences of `InductionHeads` that come in chunks.

    Memory is that of one chunk, whatever the length.

    Returns:
        The right answers (B,), and the tokens (B, chunk), chunk by chunk.

    Raises:
        ValueError: if the chunk does not divide the length.
    """
    check_positive_int("chunk", chunk)
    if length % chunk:
        raise ValueError(
            f"`chunk` must divide the length, {length}. "
            f"Received: chunk={chunk}"
        )
    rng = np.random.default_rng(seed)
    place = rng.integers(0, length - 2, batch_size)  # (B,)
    answers = rng.integers(1, TASK.vocab_size, batch_size)

    def chunks():
        for start in range(0, length, chunk):
            tokens = rng.integers(
                1, TASK.vocab_size, (batch_size, chunk), dtype=np.int32
            )
            for at, token in (
                (place, 0 * answers),
                (place + 1, answers),
            ):
                here = at - start  # (B,)
                [rows] = np.nonzero((here >= 0) & (here < chunk))
                tokens[rows, here[rows]] = token[rows]
            if start + chunk == length:
                tokens[:, -1] = 0
            yield tokens

    return answers, chunks()


class Reader:
    """Reads long sequences with a model of tokens, in chunks, with its state carried on.

    Args:
        model: of `token_model`.
    """

    def __init__(self, model: keras.Model):
        layers = {layer.name: layer for layer in model.layers}
        self.blocks = [
            layer
            for name, layer in layers.items()
            if name.startswith("block_")
        ]

        @tf.function(jit_compile=True)
        def read(tokens, states):
            h, after = layers["embedding"](tokens), []  # (B, L, E)
            for block, state in zip(self.blocks, states, strict=True):
                h, state = block(
                    h, initial_state=state, return_state=True
                )
                after.append(state)
            last = layers["norm"](h[:, -1])  # (B, E)
            return layers["head"](last), after  # (B, V)

        self.read = read

    def zero_states(self, batch_size: int) -> list:
        """Returns the states before any token."""
        return [block.zero_state(batch_size) for block in self.blocks]

    def accuracy(
        self, length: int, seed: int = 77, batch_size: int = 8
    ) -> float:
        """Returns the share of 32 fresh sequences of a length that is answered right.

        Memory is that of one chunk of 4,096 tokens, whatever the length.
        """
        hits = 0
        for first in range(0, SEQUENCES, batch_size):
            states = self.zero_states(batch_size)
            answers, chunks = question(
                batch_size,
                length,
                min(length, CHUNK),
                (seed, length, first),
            )
            for tokens in chunks:
                logits, states = self.read(tokens, states)
            hits += int((np.argmax(logits, -1) == answers).sum())
        return round(hits / SEQUENCES, 4)


def main(folder: Path | None = None) -> Results:
    """Makes the runs that are missing: three recipes, three seeds."""
    results = Results("induction", folder)

    def run(name, recipe):
        began = time.perf_counter()
        model, history, curve = learn(recipe)
        seconds = time.perf_counter() - began
        results.save_weights(name, model, "float16")
        reader = Reader(model)
        return {
            "seed": recipe.seed,
            "recipe": dataclasses.asdict(recipe),
            "parameters": model.count_params(),
            "history": history,
            "curve": curve,
            "seconds": round(seconds, 1),
            "accuracy_by_length": {
                str(n): reader.accuracy(n) for n in recipe.tested
            },
        }

    runs = {}
    for kind, recipe in RECIPES.items():
        for seed in SEEDS:
            name = f"{kind}-{seed}"
            runs[name] = functools.partial(
                run, name, dataclasses.replace(recipe, seed=seed)
            )
    complete(results, runs)
    return results


def load(results: Results, run: str = SHIPPED) -> keras.Model:
    """Returns the trained model of a run."""
    model = token_model(
        TASK.vocab_size, 64, 2, lambda: SelectiveSSM(name="ssm")
    )
    results.load_weights(run, model)
    return model


def measure(results: Results) -> dict:
    """Returns the shares of right answers by length, of the shipped weights."""
    reader = Reader(load(results))
    return {
        "accuracy_by_length": {
            str(n): reader.accuracy(n) for n in LENGTHS
        }
    }


INDUCTION = Experiment("induction", main, measure, one_device=True)
