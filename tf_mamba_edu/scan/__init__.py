"""The selective scan: one entry point, several methods, the same numbers."""

from __future__ import annotations

import tensorflow as tf

from tf_mamba_edu.scan.chunked import chunked_scan
from tf_mamba_edu.scan.devices import on_gpu
from tf_mamba_edu.scan.fused import fused_scan
from tf_mamba_edu.scan.recurrent import recurrent_scan
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    check_shapes,
)

METHODS = {
    "recurrent": recurrent_scan,
    "associative": chunked_scan,
    "fused": fused_scan,
}
SHORT = 4  # steps up to which the plain loop is as fast, and starts without being compiled
# Up to so many numbers B L D N (4 GiB in float32) "auto" lets a scan on a GPU write them down.
LARGEST = 2**30


def choose_method(method: str, x=None, states: int | None = None):
    """The function that runs the recurrence.

    "auto" is "recurrent" for at most `SHORT` steps; for longer sequences, "associative" on a
    GPU, if there are at most `LARGEST` numbers of state in all, and "fused" everywhere else.

    Args:
        method: the name of a method, or "auto".
        x: (B, L, D) input, or None if it is not there yet.
        states: N.

    Raises:
        ValueError: if there is no such method.
    """
    if method == "auto":
        method = "fused"
        if x is not None and (x.shape[1] or SHORT + 1) <= SHORT:
            method = "recurrent"
        elif x is not None and on_gpu(x):
            known = x.shape.is_fully_defined() and states is not None
            small = (
                not known or x.shape.num_elements() * states <= LARGEST
            )
            method = "associative" if small else "fused"
    if method not in METHODS:
        known = ", ".join(f'"{name}"' for name in ("auto", *METHODS))
        raise ValueError(
            f"`method` must be one of {known}. Received: method={method!r}"
        )
    return METHODS[method]


def selective_scan(
    x,
    delta,
    A,
    B,
    C,
    D=None,
    *,
    z=None,
    delta_bias=None,
    delta_softplus: bool = False,
    initial_state=None,
    method: str = "auto",
    return_last_state: bool = False,
):
    """Runs the selective state space model over whole sequences.

    Computes h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t x_t and y_t = C_t h_t + D x_t, gated by
    silu(z_t) if z is given: equations 2a and 2b and Algorithm 2 of arXiv 2312.00752. The
    arguments mean what they mean in the authors' `selective_scan_fn`; the layout is (B, L, D).
    The state is float32, or float64 if x is; y has the dtype of x. All arguments are tensors or
    NumPy arrays of a floating dtype. Once differentiable ("recurrent"
    as often as you like). Time O(B L D N); memory: see the method.

    Args:
        x: (B, L, D) input.
        delta: (B, L, D) step sizes Delta, or what softplus makes positive.
        A: (D, N) diagonal of the state matrix of each channel, negative if it is to be stable.
        B: (B, L, N) input vectors.
        C: (B, L, N) output vectors.
        D: (D,) weight of the skip connection, or None for none.
        z: (B, L, D) gate, or None for none.
        delta_bias: (D,) added to delta first, or None.
        delta_softplus: whether delta goes through softplus (after delta_bias).
        initial_state: (B, D, N) state before the first step; zeros if None.
        method: "recurrent" (the plain loop), "associative" (a parallel scan, for a GPU), "fused"
            (compiled loops that recompute, for a CPU), or "auto": see `choose_method`.
        return_last_state: whether to return the last state too.

    Returns:
        y (B, L, D), or (y, last_state) with last_state (B, D, N). B = 0 gives empty results.

    Raises:
        ValueError: if an argument is not floating, has a wrong shape, if L = 0, or if the method
            is unknown.
    """
    choose_method(method)  # an unknown one is an error before all else
    x = as_sequence("x", x)
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32

    def convert(name, value):
        return (
            None if value is None else as_floating(name, value, dtype)
        )

    u, delta = convert("x", x), convert("delta", delta)
    A, B, C, D = (
        convert("A", A),
        convert("B", B),
        convert("C", C),
        convert("D", D),
    )
    z, delta_bias = convert("z", z), convert("delta_bias", delta_bias)
    initial_state = convert("initial_state", initial_state)
    check_shapes(
        x=(u, "B L D"),
        delta=(delta, "B L D"),
        A=(A, "D N"),
        B=(B, "B L N"),
        C=(C, "B L N"),
        D=(D, "D"),
        z=(z, "B L D"),
        delta_bias=(delta_bias, "D"),
        initial_state=(initial_state, "B D N"),
    )
    if delta_bias is not None:
        delta = delta + delta_bias  # (B, L, D)
    if delta_softplus:
        delta = tf.math.softplus(delta)  # (B, L, D)
    if initial_state is None:
        initial_state = tf.zeros(
            (tf.shape(u)[0], tf.shape(A)[0], tf.shape(A)[1]), dtype
        )

    scan = choose_method(method, u, A.shape[1])
    y, last_state = scan(
        u, delta, A, B, C, initial_state
    )  # (B, L, D), (B, D, N)
    if D is not None:
        y = y + D * u  # (B, L, D)
    if z is not None:
        y = y * tf.nn.silu(z)  # (B, L, D)
    y = tf.cast(y, x.dtype)
    return (y, last_state) if return_last_state else y
