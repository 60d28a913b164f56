"""One training step of a small language model: forward, backward, AdamW; next-token loss."""

from __future__ import annotations

import functools
import time

import numpy as np

from benchmarks import peers
from benchmarks.case import Case, repeat, summary

SHAPE = (16, 256, 128, 4, 2000)
AXES = "B L E layers V"
DROPPED = 3  # first batches, in which TensorFlow traces and compiles
LEARNING_RATE = 1e-3


def make_batch(B: int, L: int, V: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens (B, L), and the tokens one step later."""
    tokens = np.random.default_rng(0).integers(1, V, (B, L + 1))
    return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)


def with_keras(build, jit_compile, shape, effort) -> dict:
    """Times the batches of one `fit`, each from the end of the one before."""
    import keras
    import tensorflow as tf

    B, L, E, layers, V = shape
    model = build(E, layers, V)
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    ends, means = [time.perf_counter()], []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            means.append(float(logs["loss"]))  # of all batches so far
            ends.append(time.perf_counter())

    steps = DROPPED + max(3, effort.at_most // 5)
    data = tf.data.Dataset.from_tensors(make_batch(B, L, V)).repeat(steps)
    model.fit(data, epochs=1, verbose=0, callbacks=[Clock()])
    times = np.diff(ends)
    return {
        "first_ms": times[0] * 1e3,
        **summary(list(times[DROPPED:])),
        "first_loss": means[0],
        "last_loss": steps * means[-1] - (steps - 1) * means[-2],
    }


def with_torch(build, shape, effort) -> dict:
    """Times the steps of a plain loop."""
    import torch
    from torch.nn import functional as F

    B, L, E, layers, V = shape
    model = build(E, layers, V)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    inputs, targets = (torch.tensor(t, dtype=torch.long) for t in make_batch(B, L, V))
    losses = []

    def step():
        optimizer.zero_grad()
        logits = model(inputs)
        logits = getattr(logits, "logits", logits)  # (B, L, V)
        loss = F.cross_entropy(logits.reshape(-1, V), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    record = repeat(step, effort, compiles=False)
    return record | {"first_loss": losses[0], "last_loss": losses[-1]}


RUNS = {
    "ours-fit": (
        functools.partial(with_keras, peers.ours, "auto"),
        "fit with Keras' defaults: the model not compiled as a whole, the scans by themselves",
    ),
    "ours-fit-xla": (
        functools.partial(with_keras, peers.ours, True),
        "fit with jit_compile=True",
    ),
    "mambapy": (
        functools.partial(with_torch, peers.mambapy),
        "its blocks, pscan=True; embedding and head are ours",
    ),
    "transformers": (
        functools.partial(with_torch, peers.transformers),
        "its loop without CUDA kernels",
    ),
    "transformers-mambapy": (
        functools.partial(with_torch, functools.partial(peers.transformers, use_mambapy=True)),
        "use_mambapy=True, which is not its default",
    ),
    "lite-mamba-fit": (
        functools.partial(with_keras, peers.lite_mamba, "auto"),
        "fit with Keras' defaults",
    ),
    "lite-mamba-fit-xla": (
        functools.partial(with_keras, peers.lite_mamba, True),
        "fit with jit_compile=True",
    ),
}


def cases() -> list[Case]:
    """All models, one step."""
    return [
        Case("training-step", peer, SHAPE, AXES, run, note, baseline=peer == "ours-fit")
        for peer, (run, note) in RUNS.items()
    ]
