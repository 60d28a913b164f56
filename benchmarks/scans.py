"""The selective scan from many hands: what each is called, and how it wants its inputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

SHAPES = (8, 256, 256, 16), (1, 2048, 1536, 16)
SMALL = SHAPES[:1]


def ours(method: str) -> Callable:
    """The package's scan."""
    from tf_mamba_edu import selective_scan

    return functools.partial(selective_scan, method=method)


def ours_materialized() -> Callable:
    """The package's associative scan over all steps, which chapter 07 explains: y alone."""
    import tensorflow as tf

    from tf_mamba_edu.scan.associative import associative_scan

    def scan(x, delta, A, B, C):
        return associative_scan(x, delta, A, B, C, tf.zeros((x.shape[0], *A.shape)))[0]

    return scan


def reference(name: str) -> Callable:
    """A loop of `reference_loops`."""
    from benchmarks import reference_loops

    return getattr(reference_loops, name)


def mambapy() -> Callable:
    """The method of its block that builds A-bar and B-bar x and runs its parallel scan."""
    import torch
    from mambapy.mamba import MambaBlock

    def scan(x, delta, A, B, C):
        return MambaBlock.selective_scan(None, x, delta, A, B, C, torch.zeros(A.shape[0]))

    return scan


def transformers() -> Callable:
    """The loop over time that it falls back to without CUDA kernels."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    return mamba_selective_scan


def lite_mamba() -> Callable:
    """Its only scan."""
    from lite_mamba import selective_scan_tf

    return selective_scan_tf


def naive_tensorflow() -> Callable:
    """The equations as a Python loop."""
    import tensorflow as tf

    def scan(x, delta, A, B, C):
        h, ys = tf.zeros((x.shape[0], *A.shape)), []  # (B, D, N)
        for t in range(x.shape[1]):
            A_bar = tf.exp(delta[:, t, :, None] * A)
            h = A_bar * h + (delta[:, t] * x[:, t])[..., None] * B[:, t, None, :]
            ys.append(tf.einsum("bdn,bn->bd", h, C[:, t]))
        return tf.stack(ys, axis=1)  # (B, L, D)

    return scan


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan and how it is called.

    Attributes:
        peer: name in the results.
        load: imports and returns the function (x, delta, A, B, C) -> y.
        mode: "eager", "graph" (in a tf.function), "xla" (with jit_compile=True) or "torch".
        layout: of inputs and y; arranged before the clock starts.
        shapes: on which it is measured.
        directions: in which it is measured.
        note: for the results.
    """

    peer: str
    load: Callable[[], Callable]
    mode: str
    layout: str = "BL."
    shapes: tuple = SHAPES
    directions: tuple[str, ...] = ("forward", "gradient")
    note: str = ""


SCANS = [
    Scan("ours-fused-eager", lambda: ours("fused"), "eager"),
    Scan("ours-fused-graph", lambda: ours("fused"), "graph", note="in a tf.function"),
    Scan("ours-fused-xla", lambda: ours("fused"), "xla", note="jit_compile=True: one core"),
    Scan("ours-associative", lambda: ours("associative"), "eager", note="made for GPUs"),
    Scan("ours-recurrent", lambda: ours("recurrent"), "graph", shapes=SMALL),
    Scan("reference-loop", lambda: reference("reference_loop"), "xla", "LB."),
    Scan("sixteen-states", lambda: reference("sixteen_states"), "xla", "LB.", SHAPES, ("forward",)),
    Scan("mambapy", mambapy, "torch", note="its pscan"),
    Scan("transformers", transformers, "torch", "B.L", note="its loop without CUDA kernels"),
    Scan("lite-mamba-graph", lite_mamba, "graph"),
    Scan("lite-mamba-xla", lite_mamba, "xla"),
    Scan(
        "naive-tensorflow", naive_tensorflow, "eager", "BL.", SMALL, note="a Python loop over time"
    ),
]
