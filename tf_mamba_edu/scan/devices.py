"""Where a scan runs: on a GPU or not, on how many cores, inside a compiled function or not."""

from __future__ import annotations

import os

import tensorflow as tf

try:
    from tensorflow.python.ops import control_flow_util
except (
    ImportError
):  # not public: without it, scans are right, but may be slower
    control_flow_util = None


def on_gpu(x) -> bool:
    """Whether x lies on a GPU, or will, as far as is known when a graph is built."""
    if tf.executing_eagerly():
        return "GPU" in x.device
    return bool(tf.config.list_logical_devices("GPU"))


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def in_compiled_function() -> bool:
    """Whether a function with jit_compile=True is being traced."""
    if control_flow_util is None:
        return False
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)
