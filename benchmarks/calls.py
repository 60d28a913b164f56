"""A scan made ready: a call without arguments that returns when all its work is done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.case import cores
from benchmarks.scans import Scan

# How a scan wants the axes of (B, L, .) inputs; each swap undoes itself.
LAYOUTS = {"BL.": (0, 1, 2), "LB.": (1, 0, 2), "B.L": (0, 2, 1)}


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
