"""One selective scan, forward, and with the gradient in all its inputs, from 12 hands."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from benchmarks.case import Case, cores, repeat
from benchmarks.oracle import forward, gradients, largest_error, make_inputs

SHAPES = (8, 256, 256, 16), (1, 2048, 1536, 16)
SMALL = SHAPES[:1]
# How a scan wants the axes of (B, L, .) inputs; each swap undoes itself.
LAYOUTS = {"BL.": (0, 1, 2), "LB.": (1, 0, 2), "B.L": (0, 2, 1)}


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
    Scan("naive-tensorflow", naive_tensorflow, "eager", note="a Python loop over time"),
]


def tensorflow_call(scan: Scan, inputs: list, weights, gradient: bool) -> Callable[[], list]:
    """A call that returns [y], or the gradients in all inputs, when they are there."""
    import tensorflow as tf

    load, inputs, weights = scan.load(), [tf.constant(a) for a in inputs], tf.constant(weights)

    def value(*inputs):
        return [load(*inputs)]

    def with_gradient(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(weights * load(*inputs))
        return tape.gradient(loss, inputs)

    function = with_gradient if gradient else value
    if scan.mode != "eager":
        function = tf.function(function, jit_compile=scan.mode == "xla")

    def call():
        results = function(*inputs)
        tf.test.experimental.sync_devices()
        return results

    return call


def torch_call(scan: Scan, inputs: list, weights, gradient: bool) -> Callable[[], list]:
    """The same for PyTorch, with as many threads as there are cores."""
    import torch

    torch.set_num_threads(cores())
    load, weights = scan.load(), torch.tensor(weights)
    inputs = [torch.tensor(a, requires_grad=gradient) for a in inputs]

    def value():
        with torch.no_grad():
            return [load(*inputs)]

    def with_gradient():
        return torch.autograd.grad((weights * load(*inputs)).sum(), inputs)

    return with_gradient if gradient else value


def arranged(arrays, layout: str) -> list[np.ndarray]:
    """Arrays (B, L, .) in another layout, or back; those of two axes stay."""
    return [
        np.ascontiguousarray(a.transpose(LAYOUTS[layout])) if a.ndim == 3 else a for a in arrays
    ]


def prepare(scan: Scan, inputs: dict, weights, gradient: bool) -> Callable[[], list]:
    """A call of the scan on inputs that already lie as it wants them."""
    make = torch_call if scan.mode == "torch" else tensorflow_call
    *inputs, weights = arranged([*inputs.values(), weights], scan.layout)
    return make(scan, inputs, weights, gradient)


def measure(scan: Scan, gradient: bool, shape, effort) -> dict:
    """Times one scan in one direction, and compares what it returns with the oracle."""
    inputs, weights = make_inputs(shape)
    call = prepare(scan, inputs, weights, gradient)
    record = repeat(call, effort, compiles=scan.mode in ("graph", "xla"))
    if record["first_ms"] < effort.patience * 1e3:  # the check is another call
        found = arranged([r.numpy() for r in call()], scan.layout)
        expected = gradients(weights, **inputs) if gradient else [forward(**inputs)[0]]
        record["max_error"] = largest_error(found, expected)
    return record


def cases() -> list[Case]:
    """All scans, by direction and shape."""
    return [
        Case(
            f"scan-{direction}",
            scan.peer,
            shape,
            "B L D N",
            functools.partial(measure, scan, direction == "gradient"),
            scan.note,
            baseline=scan.peer == "ours-fused-eager",
        )
        for direction in ("forward", "gradient")
        for shape in SHAPES
        for scan in SCANS
        if shape in scan.shapes and direction in scan.directions
    ]
