"""Small models that read and name tokens, and how the tasks of `tasks` train them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.block import ResidualBlock
from tf_mamba_edu.tasks import Task
from tf_mamba_edu.training import make_optimizer


def token_model(
    vocab_size: int,
    d_model: int,
    n_layers: int,
    make_ssm: Callable[[], keras.layers.Layer] | None = None,
    **block,
) -> keras.Model:
    """Builds the model of `MambaLM`, with any SSM in its blocks.

    Args:
        vocab_size: V, number of tokens.
        d_model: E, width of the model.
        n_layers: number of blocks.
        make_ssm: makes the SSM of a block; `SelectiveSSM` if None.
        **block: more arguments of `MambaBlock`.

    Returns:
        A functional model from token ids (B, L) to logits (B, L, V).
    """
    layers = []
    for i in range(n_layers):
        ssm = None if make_ssm is None else make_ssm()
        arguments = {**block, "ssm": ssm, "n_layers": n_layers}
        layers.append(ResidualBlock(block=arguments, name=f"block_{i}"))
    return model_around(vocab_size, d_model, layers)


def model_around(
    vocab_size: int,
    d_model: int,
    layers: Sequence[keras.layers.Layer],
) -> keras.Model:
    """Puts an embedding before layers of width E, and a norm and a head behind them.

    Args:
        vocab_size: V, number of tokens.
        d_model: E, width of the model.
        layers: from (B, L, E) to (B, L, E).

    Returns:
        A functional model from token ids (B, L) to logits (B, L, V).
    """
    ids = keras.Input((None,), dtype="int32")
    embed = keras.layers.Embedding(
        vocab_size,
        d_model,
        embeddings_initializer=keras.initializers.RandomNormal(
            stddev=0.02
        ),
        name="embedding",
    )
    x = embed(ids)  # (B, L, E)
    for layer in layers:
        x = layer(x)  # (B, L, E)
    norm = keras.layers.RMSNormalization(epsilon=1e-5, name="norm")
    head = keras.layers.Dense(vocab_size, use_bias=False, name="head")
    return keras.Model(ids, head(norm(x)))  # (B, L, V)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a training: so many steps at one length.

    Attributes:
        length: L, tokens a sequence.
        steps: training steps.
        batch_size: B.
    """

    length: int
    steps: int
    batch_size: int


class SmoothedCrossentropy(keras.losses.Loss):
    """Cross entropy with targets of 1 - s for the right token and s spread over all V.

    Without smoothing, a loss near 0 has no gradient left: short sequences are answered, and
    whether a memory would last for long ones makes no difference any more. With it, the best
    logits are finite, and a memory that fades with the distance misses them.

    Args:
        smoothing: s, from 0 to 1.
    """

    def __init__(self, smoothing: float):
        super().__init__(reduction="mean_with_sample_weight")
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        ids = tf.cast(y_true, tf.int32)  # (B, L)
        wanted = tf.one_hot(ids, y_pred.shape[-1])  # (B, L, V)
        return keras.losses.categorical_crossentropy(
            wanted,
            y_pred,
            from_logits=True,
            label_smoothing=self.smoothing,
        )

    def get_config(self):
        return {"smoothing": self.smoothing}


def compile_for(
    model: keras.Model,
    learning_rate: float,
    steps: int,
    warmup_steps: int | None = None,
    jit_compile: bool = True,
    label_smoothing: float = 0.0,
) -> None:
    """Compiles a model for a task: cross entropy and accuracy where an answer is asked for."""
    model.compile(
        make_optimizer(learning_rate, steps, warmup_steps),
        SmoothedCrossentropy(label_smoothing),
        weighted_metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        ],
        jit_compile=jit_compile,
    )


def accuracy(
    model: keras.Model,
    task: Task,
    length: int,
    *,
    sequences: int = 256,
    batch_size: int = 32,
    seed: int = 10_000,
) -> dict:
    """Measures how many answers, and how many whole sequences, a model gets right.

    Args:
        model: from token ids (B, L) to logits (B, L, V).
        task: what to ask.
        length: L, tokens a sequence.
        sequences: how many fresh ones, rounded down to whole batches.
        batch_size: how many at once.
        seed: of the sequences; not one that training has used.

    Returns:
        The share of right answers as "tokens", and of sequences with all answers right as
        "sequences".
    """
    right, asked = [], []
    for i in range(max(1, sequences // batch_size)):
        tokens, targets, weights = task.batch(
            batch_size, length, seed=(seed, i)
        )
        logits = model.predict_on_batch(tokens)  # (B, L, V)
        right.append((np.argmax(logits, -1) == targets) * weights)
        asked.append(weights)
    right, asked = np.concatenate(right), np.concatenate(asked)
    whole = right.sum(1) == asked.sum(1)
    return {
        "tokens": round(float(right.sum() / asked.sum()), 4),
        "sequences": round(float(whole.mean()), 4),
    }


def train(
    model: keras.Model,
    task: Task,
    stages: Sequence[Stage],
    *,
    seed: int,
    backup: Path | None = None,
    steps_per_epoch: int = 100,
    after_epoch: Callable[[int], bool] | None = None,
    verbose: bool = True,
) -> list[dict]:
    """Trains a compiled model on fresh sequences, stage after stage.

    With a backup folder, a training that was killed goes on from its last epoch, to the same
    weights: batches depend on the seed and the step alone.

    Args:
        model: compiled.
        task: what to train on.
        stages: lengths, steps and batch sizes.
        seed: of the sequences.
        backup: folder for what is needed to go on; removed at the end.
        steps_per_epoch: steps between two backups.
        after_epoch: called with the number of steps so far; True ends the training.
        verbose: whether a progress bar shows steps and loss.

    Returns:
        One {"step", "length", "loss", "accuracy", "seconds"} an epoch.
    """
    epochs = [
        (stage, min(steps_per_epoch, stage.steps - start))
        for stage in stages
        for start in range(0, stage.steps, steps_per_epoch)
    ]
    history, manager = [], None
    if backup is not None:
        model.optimizer.build(model.trainable_variables)
        log = tf.Variable("[]", dtype=tf.string, trainable=False)
        checkpoint = tf.train.Checkpoint(
            weights=model.weights,
            optimizer=model.optimizer.variables,
            history=log,
        )
        manager = tf.train.CheckpointManager(
            checkpoint, str(backup), max_to_keep=2
        )
        if manager.latest_checkpoint:
            checkpoint.restore(
                manager.latest_checkpoint
            ).assert_consumed()
            history = json.loads(log.numpy())
    if history and after_epoch is not None:
        if after_epoch(history[-1]["step"]):
            epochs = []  # it was about to end when it was interrupted
    bar = keras.utils.Progbar(
        sum(stage.steps for stage in stages),
        stateful_metrics=["length", "loss"],
        verbose=int(verbose),
    )
    for stage, steps in epochs[len(history) :]:
        began = time.perf_counter()
        done = history[-1]["step"] if history else 0
        data = task.dataset(
            stage.batch_size,
            stage.length,
            seed=(seed, done),
            steps=steps,
        )
        logs = model.fit(data, shuffle=False, verbose=0).history
        history.append(
            {
                "step": done + steps,
                "length": stage.length,
                "loss": round(logs["loss"][0], 5),
                "accuracy": round(logs["accuracy"][0], 4),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
        latest = history[-1]
        bar.update(
            latest["step"], [(k, latest[k]) for k in ("length", "loss")]
        )
        if manager is not None:
            log.assign(json.dumps(history))
            manager.save()
        if after_epoch is not None and after_epoch(latest["step"]):
            break
    if backup is not None:
        shutil.rmtree(backup, ignore_errors=True)
    return history
