"""The selective scan as compiled loops that never store their states.

Four ideas make it fast on a CPU (chapter 08 measures each of them):

1. *Fuse.* A-bar and B-bar x are computed inside the loop, for one step at a time. Stored for
   all steps they would be N times larger than the input.
2. *Lay out.* The state is kept as (B, N, D), the long channel axis last, so that the compiler
   fills its vector registers, and the inputs are read time step by time step.
3. *Recompute.* The forward pass keeps one state in every `CHUNK` steps. The backward pass
   runs each chunk forward again from there, and then backward with a gradient written by hand.
4. *Divide.* A compiled loop keeps one core busy. Channels do not know of each other, so each
   core gets its share of them.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from tf_mamba_edu.scan.devices import (
    cores,
    in_compiled_function,
    on_gpu,
)
from tf_mamba_edu.scan.gradients import once

CHUNK = 16  # steps between two stored states: L / CHUNK + CHUNK states live in the backward pass
CHANNELS_A_CORE = 64  # fewer are not worth a loop of their own


def repeat(steps, body, variables):
    """Runs variables = body(i, *variables) for i = 0 .. steps - 1."""
    result = tf.while_loop(
        lambda i, *_: i < steps,
        lambda i, *v: (i + 1, *body(i, *v)),
        (tf.constant(0), *variables),
        maximum_iterations=steps,
    )
    return result[1:]


def new_array(dtype, size, element_shape):
    """An array to be written element by element, and read more than once."""
    return tf.TensorArray(
        dtype, size, element_shape=element_shape, clear_after_read=False
    )


def next_state(h, x_t, delta_t, A, B_t):
    """exp(Delta_t A) h_{t-1} + Delta_t x_t B_t on a state (B, N, D)."""
    A_bar = tf.exp(delta_t[:, None, :] * A)  # (B, N, D)
    written = (delta_t * x_t)[:, None, :] * B_t[:, :, None]  # (B, N, D)
    return A_bar * h + written  # (B, N, D)


def forward(x, delta, A, B, C, h):
    """Time-major loop over chunks.

    x, delta (L, B, D); A (N, D); B, C (L, B, N); h (B, N, D).

    Returns y (L, B, D), the last state (B, N, D) and the stored states (chunks, B, N, D).
    """
    length = tf.shape(x)[0]
    chunks = (length + CHUNK - 1) // CHUNK

    def chunk(c, h, ys, kept):
        kept = kept.write(c, h)
        start = c * CHUNK

        def step(i, h, ys):
            t = start + i
            h = next_state(h, x[t], delta[t], A, B[t])  # (B, N, D)
            y_t = tf.reduce_sum(C[t][:, :, None] * h, axis=1)  # (B, D)
            return h, ys.write(t, y_t)

        steps = tf.minimum(CHUNK, length - start)
        return *repeat(steps, step, (h, ys)), kept

    ys = new_array(x.dtype, length, x.shape[1:])
    kept = new_array(x.dtype, chunks, h.shape)
    h, ys, kept = repeat(chunks, chunk, (h, ys, kept))
    return ys.stack(), h, kept.stack()


def states_before(start, steps, h, x, delta, A, B):
    """The states before the steps of a chunk: (CHUNK, B, N, D)."""

    def step(i, h, before):
        t = start + i
        before = before.write(i, h)
        return next_state(h, x[t], delta[t], A, B[t]), before

    before = new_array(x.dtype, CHUNK, h.shape)
    return repeat(steps, step, (h, before))[1].stack()


def backward_step(g, h_before, x_t, delta_t, A, B_t, C_t, dy_t):
    """One step of the reversed recurrence.

    g (B, N, D) is what step t + 1 hands over. With all of g_t = C_t dy_t + A_bar_{t+1} g_{t+1},
    h_t = exp(Delta_t A) h_{t-1} + Delta_t x_t B_t gives every other gradient. Those of B_t and
    C_t are sums over all channels; here they are summed in part, and (B, N, D / 16).

    Returns what to hand to step t - 1, and the gradients of A (B, N, D), x_t, Delta_t, B_t, C_t.
    """
    B_t, C_t = B_t[:, :, None], C_t[:, :, None]  # (B, N, 1)
    u_t, dy_t = (
        (delta_t * x_t)[:, None, :],
        dy_t[:, None, :],
    )  # (B, 1, D)
    A_bar = tf.exp(delta_t[:, None, :] * A)  # (B, N, D)
    decayed = A_bar * h_before  # (B, N, D)
    h = decayed + u_t * B_t  # (B, N, D)
    g = g + C_t * dy_t  # (B, N, D): all of g_t
    g_B = tf.reduce_sum(g * B_t, axis=1)  # (B, D)
    g_decayed = g * decayed  # (B, N, D)
    d_delta = tf.reduce_sum(g_decayed * A, axis=1) + g_B * x_t
    return A_bar * g, (
        g_decayed * delta_t[:, None, :],
        g_B * delta_t,
        d_delta,
        partly_summed(g * u_t),
        partly_summed(h * dy_t),
    )


def partly_summed(values):
    """Sums (B, N, D) over D in part: to (B, N, D / 16), or less where 16 does not divide D.

    A sum over the innermost axis is slow: the compiler first writes all terms to memory. A sum
    of 16 rows, side by side, goes into the loop that computes them; the rest waits for the end.
    """
    D = values.shape[-1]
    rows = next(r for r in (16, 8, 4, 2, 1) if D % r == 0)
    sizes = tf.concat([tf.shape(values)[:2], [rows, D // rows]], axis=0)
    shape = (*values.shape[:2], rows, D // rows)
    values = tf.ensure_shape(tf.reshape(values, sizes), shape)
    return tf.reduce_sum(values, axis=2)  # (B, N, D / rows)


def backward(x, delta, A, B, C, kept, dy, g):
    """Reversed loop; g (B, N, D): the gradient of the last state.

    Returns the gradients of x, delta, A, B, C and the initial state, in the layouts of `forward`.
    """
    length, chunks = tf.shape(x)[0], tf.shape(kept)[0]

    def chunk(i, g, dA, *written):
        start = (chunks - 1 - i) * CHUNK
        steps = tf.minimum(CHUNK, length - start)
        before = states_before(
            start, steps, kept[chunks - 1 - i], x, delta, A, B
        )

        def step(j, g, dA, *written):
            k = steps - 1 - j
            t = start + k
            at_t = x[t], delta[t], A, B[t], C[t], dy[t]
            g, (dA_t, *found) = backward_step(g, before[k], *at_t)
            written = [
                w.write(t, f)
                for w, f in zip(written, found, strict=True)
            ]
            return g, dA + dA_t, *written

        return repeat(steps, step, (g, dA, *written))

    part = partly_summed(g).shape
    shapes = x.shape[1:], x.shape[1:], part, part
    written = [new_array(x.dtype, length, s) for s in shapes]
    g, dA, *written = repeat(
        chunks, chunk, (g, tf.zeros_like(g), *written)
    )
    dx, d_delta, dB, dC = (w.stack() for w in written)
    dB, dC = tf.reduce_sum(dB, axis=-1), tf.reduce_sum(dC, axis=-1)
    return dx, d_delta, tf.reduce_sum(dA, axis=0), dB, dC, g


def by_time(t):
    """(B, L, D) to (L, B, D), and back."""
    return tf.transpose(t, [1, 0, 2])


def channels_last(h):
    """(B, D, N) to (B, N, D), and back."""
    return tf.transpose(h, [0, 2, 1])


def share_of(t, axis, first, count):
    """`count` channels from `first` on, along one axis; `first` is a tensor, `count` a number."""
    if t.shape[axis] == count:
        return t
    begin, size = [0] * t.shape.rank, tf.unstack(tf.shape(t))
    begin[axis], size[axis] = first, count
    shape = t.shape.as_list()
    shape[axis] = count
    return tf.ensure_shape(tf.slice(t, begin, size), shape)


# The loops are fast only when compiled, so each direction is compiled by itself: the scan is then
# as fast in eager mode as inside a compiled model, and automatic differentiation never crosses
# the border of a compiled function. B and L are left open: a new L compiles, but does not retrace.
@functools.cache
def compiled_forward(D, N, count, dtype):
    """Makes `forward` for `count` of D channels, in the layouts of `selective_scan`."""
    sequence, rows, matrix, state = signature(D, N, dtype)

    @tf.function(
        jit_compile=True,
        input_signature=[
            sequence,
            sequence,
            matrix,
            rows,
            rows,
            state,
            FIRST,
        ],
    )
    def run(x, delta, A, B, C, initial_state, first):
        y, last_state, kept = forward(
            by_time(share_of(x, 2, first, count)),
            by_time(share_of(delta, 2, first, count)),
            tf.transpose(share_of(A, 0, first, count)),
            by_time(B),
            by_time(C),
            channels_last(share_of(initial_state, 1, first, count)),
        )
        return by_time(y), channels_last(last_state), kept

    return run


@functools.cache
def compiled_backward(D, N, count, dtype):
    """Makes `backward` for `count` of D channels, in the layouts of `selective_scan`."""
    sequence, rows, matrix, state = signature(D, N, dtype)
    kept = tf.TensorSpec((None, None, N, count), dtype)

    @tf.function(
        jit_compile=True,
        input_signature=[
            sequence,
            sequence,
            matrix,
            rows,
            rows,
            kept,
            sequence,
            state,
            FIRST,
        ],
    )
    def run(x, delta, A, B, C, kept, dy, d_last_state, first):
        dx, d_delta, dA, dB, dC, dh = backward(
            by_time(share_of(x, 2, first, count)),
            by_time(share_of(delta, 2, first, count)),
            tf.transpose(share_of(A, 0, first, count)),
            by_time(B),
            by_time(C),
            kept,
            by_time(share_of(dy, 2, first, count)),
            channels_last(share_of(d_last_state, 1, first, count)),
        )
        return (
            by_time(dx),
            by_time(d_delta),
            tf.transpose(dA),
            by_time(dB),
            by_time(dC),
            channels_last(dh),
        )

    return run


FIRST = tf.TensorSpec((), tf.int32)


def signature(D, N, dtype):
    """What (B, L, D), (B, L, N), (D, N) and (B, D, N) look like, with any B and L."""
    shapes = (None, None, D), (None, None, N), (D, N), (None, D, N)
    return [tf.TensorSpec(shape, dtype) for shape in shapes]


def number_of_shares(x) -> int:
    """Into how many equal shares the channels of x are cut: one a core, if they are enough.

    One on a GPU, and inside a function that is compiled as a whole, whose loops run one after
    the other.
    """
    D = x.shape[-1]
    count = min(cores(), D // CHANNELS_A_CORE)
    if count < 2 or in_compiled_function() or on_gpu(x):
        return 1
    while D % count:
        count -= 1
    return count


# Not compiled, only traced: its calls of compiled functions do not depend on each other, and
# TensorFlow runs them at the same time.
@tf.function(reduce_retracing=True)
def divided_forward(x, delta, A, B, C, initial_state, D, N, shares):
    """Forward pass of all channels; stored states stay in shares."""
    run = compiled_forward(D, N, D // shares, x.dtype)
    results = [
        run(x, delta, A, B, C, initial_state, tf.constant(first))
        for first in range(0, D, D // shares)
    ]
    y, last_state, kept = zip(*results, strict=True)
    return tf.concat(y, axis=2), tf.concat(last_state, axis=1), kept


@tf.function(reduce_retracing=True)
def divided_backward(x, delta, A, B, C, kept, dy, d_last_state, D, N):
    """The backward pass of all channels, in the shares of the forward pass."""
    count = D // len(kept)
    run = compiled_backward(D, N, count, x.dtype)
    results = [
        run(
            x,
            delta,
            A,
            B,
            C,
            k,
            dy,
            d_last_state,
            tf.constant(i * count),
        )
        for i, k in enumerate(kept)
    ]
    dx, d_delta, dA, dB, dC, dh = zip(*results, strict=True)
    return (
        tf.concat(dx, axis=2),
        tf.concat(d_delta, axis=2),
        tf.concat(dA, axis=0),
        tf.add_n(dB),  # all channels share B and C
        tf.add_n(dC),
        tf.concat(dh, axis=1),
    )


@tf.custom_gradient
def fused_scan(
    x: tf.Tensor,
    delta: tf.Tensor,
    A: tf.Tensor,
    B: tf.Tensor,
    C: tf.Tensor,
    initial_state: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs the recurrence of `recurrent_scan` in compiled loops with a hand-written gradient.

    Section 3.3.2 of arXiv 2312.00752 (kernel fusion and recomputation), for a CPU. O(B L D N)
    time; memory beyond input and output: O(B D N (L / CHUNK + CHUNK)) with gradients.

    Args:
        x: (B, L, D) input.
        delta: (B, L, D) step sizes, positive.
        A: (D, N) diagonal of the state matrix of each channel, negative; D and N must be known.
        B: (B, L, N) input vectors.
        C: (B, L, N) output vectors.
        initial_state: (B, D, N) state before the first step.

    Returns:
        (y, last_state) of shapes (B, L, D) and (B, D, N).

    Raises:
        ValueError: if D or N is not known when a graph is built.
    """
    # In eager mode the tape would record the compiled call as well, and prepare to differentiate
    # it: stop_gradient keeps the gradient below the only one.
    inputs = [
        tf.stop_gradient(t) for t in (x, delta, A, B, C, initial_state)
    ]
    D, N = A.shape
    if D is None or N is None:
        raise ValueError(
            "`A` must have known sizes D and N for the fused scan. "
            f"Received: A of shape {A.shape}"
        )
    inputs[0] = tf.ensure_shape(inputs[0], (None, None, D))
    shares = number_of_shares(inputs[0])
    y, last_state, kept = divided_forward(*inputs, D, N, shares)
    y = tf.ensure_shape(y, x.shape)
    last_state = tf.ensure_shape(last_state, (x.shape[0], D, N))

    def gradient(*arriving):
        stopped = [tf.stop_gradient(t) for t in arriving]
        gradients = divided_backward(*inputs[:5], kept, *stopped, D, N)
        gradients = [
            tf.ensure_shape(g, t.shape)
            for g, t in zip(gradients, inputs, strict=True)
        ]
        sources = x, delta, A, B, C, initial_state, *arriving
        return once(gradients, sources)

    return (y, last_state), gradient
