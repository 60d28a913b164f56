"""Greedy text from the model of `training`: milliseconds a token, the prompt included."""

from __future__ import annotations

import functools

import numpy as np

from benchmarks import peers
from benchmarks.case import Case, repeat

SHAPE = (1, 16, 64, 128, 4, 2000)
AXES = "B prompt new E layers V"


def make_prompt(B: int, L: int, V: int) -> np.ndarray:
    """Random tokens (B, L)."""
    return np.random.default_rng(1).integers(1, V, (B, L)).astype(np.int32)


def ours(prompt, new, sizes):
    """Its `generate`: the prompt at once, then a compiled step a token."""
    lm = peers.ours(*sizes)
    return lambda: lm.generate(prompt, new, temperature=0).numpy()


def mambapy(prompt, new, sizes):
    """The loop of its `generate` around its `step`: see `peers.mambapy`."""
    import torch

    lm = peers.mambapy(*sizes).eval()
    prompt = torch.tensor(prompt, dtype=torch.long)

    def call():
        tokens, caches = list(prompt.T), lm.init_caches(len(prompt))
        with torch.no_grad():
            for t in range(prompt.shape[1] + new - 1):
                logits, caches = lm.step(tokens[t], caches)  # (B, V)
                if t + 1 >= prompt.shape[1]:
                    tokens.append(logits.argmax(dim=-1))
        return torch.stack(tokens, dim=1).numpy()

    return call


def transformers(prompt, new, sizes):
    """Its `generate` with its cache."""
    import torch

    lm = peers.transformers(*sizes).eval()
    tokens = torch.tensor(prompt, dtype=torch.long)
    options = {"max_new_tokens": new, "do_sample": False, "use_cache": True, "pad_token_id": 0}

    def call():
        with torch.no_grad():
            return lm.generate(tokens, attention_mask=torch.ones_like(tokens), **options).numpy()

    return call


def lite_mamba(jit_compile, prompt, new, sizes):
    """A loop around the `step` of its blocks, which have a cache; it has no language model."""
    import tensorflow as tf

    embedding, norms, blocks, head = peers.lite_mamba(*sizes).parts

    def step(token, caches):
        h, after = embedding(token)[:, None], []  # (B, 1, E)
        for norm, block, cache in zip(norms, blocks, caches, strict=False):
            y, *cache = block.step(norm(h), *cache)
            h = h + y
            after.append(tuple(cache))
        logits = head(norms[-1](h))[:, 0]  # (B, V)
        return tf.argmax(logits, axis=-1, output_type=tf.int32), after

    step = tf.function(step, jit_compile=jit_compile)

    def call():
        caches = [block.allocate_inference_cache(len(prompt), 0) for block in blocks]
        tokens = [tf.constant(t) for t in prompt.T]
        for t in range(prompt.shape[1] + new - 1):
            token, caches = step(tokens[t], caches)
            if t + 1 >= prompt.shape[1]:
                tokens.append(token)
        return np.stack([t.numpy() for t in tokens], axis=1)

    return call


def measure(make, compiles, shape, effort) -> dict:
    """Times whole texts, and records which tokens came out."""
    B, L, new, *sizes = shape
    call = make(make_prompt(B, L, sizes[-1]), new, sizes)
    record = repeat(call, effort, compiles)
    tokens = call()[0, L:]
    return record | {
        "ms_per_token": record["min_ms"] / new,
        "tokens": [int(t) for t in tokens],
    }


RUNS = {
    "ours": (ours, True, "lm.generate: prompt at once, then steps with a cache"),
    "mambapy": (
        mambapy,
        False,
        "its step, which has a cache, in the loop of its generate; prompt token by token",
    ),
    "transformers": (transformers, False, "its generate: prompt at once, then its cache"),
    "lite-mamba-graph": (
        functools.partial(lite_mamba, False),
        True,
        "its blocks' step, which has a cache, in a tf.function; prompt token by token",
    ),
    "lite-mamba-xla": (
        functools.partial(lite_mamba, True),
        True,
        "the same with jit_compile=True",
    ),
}


def cases() -> list[Case]:
    """All models, one text."""
    return [
        Case(
            "generation",
            peer,
            SHAPE,
            AXES,
            functools.partial(measure, make, compiles),
            note,
            baseline=peer == "ours",
        )
        for peer, (make, compiles, note) in RUNS.items()
    ]
