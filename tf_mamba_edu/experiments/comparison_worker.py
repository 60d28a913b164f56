"""Measures one model at one length, in a process of its own, and prints one line of JSON.

python -m tf_mamba_edu.experiments.comparison_worker WHAT KIND LENGTH

WHAT is "training", "training without XLA" or "generation".
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_mamba_edu.experiments.comparison import (
    VOCABULARY,
    compile_model,
    model_of,
)

TOKENS = 4096  # of a training step, in all its sequences
PART = 512  # tokens of a context that are read at once
NEW = 200  # tokens that are generated
REPETITIONS = 10
PATIENCE = 30  # seconds, after which three repetitions are enough


def memory(field: str) -> float:
    """Returns memory of this process in MiB: now ("VmRSS") or at its peak ("VmHWM"); Linux."""
    status = Path("/proc/self/status").read_text("utf-8")
    kilobytes = re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[
        1
    ]
    return int(kilobytes) / 1024


def train(kind: str, length: int, xla: bool = True) -> dict:
    """Times training steps of 4,096 tokens, after a first one that compiles."""
    model = model_of(kind)
    compile_model(model, xla=xla)
    rng = np.random.default_rng(0)
    shape = max(1, TOKENS // length), length
    x, y = rng.integers(0, VOCABULARY, (2, *shape)).astype("int32")
    before = memory("VmRSS")
    times = []
    while len(times) < 4 or (
        len(times) <= REPETITIONS and sum(times[1:]) < PATIENCE
    ):
        began = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - began)
    return {
        "tokens_per_second": round(x.size / min(times[1:])),
        "first_step_seconds": round(times[0], 2),
        "peak_mib": round(memory("VmHWM") - before),
    }


def generate(kind: str, context: int) -> dict:
    """Times single tokens behind a context, with the cache that reading it left."""
    model = model_of(kind)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (1, context)).astype("int32")
    read = tf.function(
        lambda part, cache: model.prefill(part, cache, last_only=True),
        jit_compile=True,
    )
    step = tf.function(model.step, jit_compile=True)
    before = memory("VmRSS")
    if kind == "transformer":
        cache = model.init_cache(1, capacity=context + NEW + 1)
    else:
        cache = model.init_cache(1)
    first, read_seconds = None, 0.0
    for start in range(0, context, PART):
        part = ids[:, start : start + PART]
        began = time.perf_counter()
        _, cache = read(part, cache)
        first = first or time.perf_counter() - began
        read_seconds += time.perf_counter() - began
    token = tf.constant([1])
    step(token, cache)  # compiles
    times = []
    for _ in range(NEW):
        began = time.perf_counter()
        logits, cache = step(token, cache)
        token = tf.argmax(logits, -1, output_type=tf.int32)
        token.numpy()
        times.append(time.perf_counter() - began)
    return {
        "tokens_per_second": round(1 / float(np.median(times)), 1),
        "read_seconds": round(read_seconds - first, 3),
        "cache_bytes": sum(
            int(np.prod(t.shape)) * t.dtype.size
            for t in tf.nest.flatten(cache)
        ),
        "peak_mib": round(memory("VmHWM") - before),
    }


if __name__ == "__main__":
    what, kind, size = sys.argv[1:]
    make = {
        "training": train,
        "training without XLA": functools.partial(train, xla=False),
        "generation": generate,
    }[what]
    print(json.dumps(make(kind, int(size))))
