"""The selective scan as one compiled loop that never stores its states.

Three ideas make it fast on a CPU (chapter 8 measures each of them):

1. *Fuse.* A-bar and B-bar x are computed inside the loop, for one step at a time. Stored for
   all steps they would be N times larger than the input.
2. *Lay out.* The state is kept as (N, B, D), the long channel axis last, so that the compiler
   fills its vector registers, and the inputs are read time step by time step.
3. *Recompute.* The forward pass keeps one state in every `CHUNK` steps. The backward pass
   runs each chunk forward again from there, and then backward with a gradient written by hand.
"""

from __future__ import annotations

import tensorflow as tf

CHUNK = 16  # steps between two stored states: L / CHUNK + CHUNK states live in the backward pass


def _while(steps, body, variables):
    """tf.while_loop for body(i, *variables) -> variables, i = 0 .. steps - 1."""
    result = tf.while_loop(
        lambda i, *_: i < steps,
        lambda i, *v: (i + 1, *body(i, *v)),
        (tf.constant(0), *variables),
        maximum_iterations=steps,
    )
    return result[1:]


def _array(dtype, size, element_shape):
    return tf.TensorArray(
        dtype, size, element_shape=element_shape, clear_after_read=False
    )


def _step(h, x_t, delta_t, A, B_t):
    """h_t = exp(Delta_t A) h_{t-1} + Delta_t x_t B_t on a state of shape (N, B, D)."""
    A_bar = tf.exp(delta_t * A[:, None, :])  # (N, B, D)
    return A_bar * h + (delta_t * x_t) * B_t[:, :, None]  # (N, B, D)


def _forward(x, delta, A, B, C, h):
    """Time-major loop. x, delta (L, B, D); A (N, D); B, C (L, N, B); h (N, B, D).

    Returns y (L, B, D), the last state (N, B, D) and the stored states (chunks, N, B, D).
    """
    length = tf.shape(x)[0]
    chunks = (length + CHUNK - 1) // CHUNK

    def chunk(c, h, ys, kept):
        kept = kept.write(c, h)
        start = c * CHUNK

        def step(i, h, ys):
            t = start + i
            h = _step(h, x[t], delta[t], A, B[t])  # (N, B, D)
            y_t = tf.reduce_sum(C[t][:, :, None] * h, axis=0)  # (B, D)
            return h, ys.write(t, y_t)

        h, ys = _while(tf.minimum(CHUNK, length - start), step, (h, ys))
        return h, ys, kept

    ys = _array(x.dtype, length, x.shape[1:])
    kept = _array(x.dtype, chunks, h.shape)
    h, ys, kept = _while(chunks, chunk, (h, ys, kept))
    return ys.stack(), h, kept.stack()


def _backward(x, delta, A, B, C, kept, grad_y, g):
    """Reversed loop over the chunks, from the gradient `g` of the last state (N, B, D).

    With g_t the gradient of the loss in h_t, which also flows back through h_{t+1}:
        g_t = C_t dy_t + A_bar_{t+1} g_{t+1}
    and h_t = exp(Delta_t A) h_{t-1} + Delta_t x_t B_t gives every other gradient from g_t.
    Returns the gradients of x, delta, A, B, C and the initial state, in the layouts of `_forward`.
    """
    length = tf.shape(x)[0]
    chunks = tf.shape(kept)[0]

    def recompute(start, steps, h):
        """The state before each step of one chunk: (CHUNK, N, B, D)."""

        def step(i, h, before):
            t = start + i
            return _step(h, x[t], delta[t], A, B[t]), before.write(i, h)

        _, before = _while(
            steps, step, (h, _array(x.dtype, CHUNK, h.shape))
        )
        return before.stack()

    def chunk(i, g, dA, dx, ddelta, dB, dC):
        c = chunks - 1 - i
        start = c * CHUNK
        steps = tf.minimum(CHUNK, length - start)
        before = recompute(start, steps, kept[c])

        def step(j, g, dA, dx, ddelta, dB, dC):
            k = steps - 1 - j
            t = start + k
            x_t, delta_t, dy_t = x[t], delta[t], grad_y[t]  # (B, D)
            B_t = B[t][:, :, None]  # (N, B, 1)
            decayed = (
                tf.exp(delta_t * A[:, None, :]) * before[k]
            )  # (N, B, D): A_bar h_{t-1}
            h = decayed + (delta_t * x_t) * B_t  # (N, B, D)
            g = g + C[t][:, :, None] * dy_t  # (N, B, D): all of g_t
            g_B = tf.reduce_sum(g * B_t, axis=0)  # (B, D)
            g_decayed = g * decayed  # (N, B, D)
            dx = dx.write(t, g_B * delta_t)
            ddelta = ddelta.write(
                t,
                tf.reduce_sum(g_decayed * A[:, None, :], 0) + g_B * x_t,
            )
            dB = dB.write(
                t, tf.reduce_sum(g * (delta_t * x_t), axis=-1)
            )  # (N, B)
            dC = dC.write(t, tf.reduce_sum(h * dy_t, axis=-1))  # (N, B)
            g = (
                tf.exp(delta_t * A[:, None, :]) * g
            )  # (N, B, D): handed to step t - 1
            return g, dA + g_decayed * delta_t, dx, ddelta, dB, dC

        return _while(steps, step, (g, dA, dx, ddelta, dB, dC))

    gradients = [
        _array(x.dtype, length, t.shape[1:]) for t in (x, delta, B, C)
    ]
    g, dA, *gradients = _while(
        chunks, chunk, (g, tf.zeros_like(g), *gradients)
    )
    dx, ddelta, dB, dC = (t.stack() for t in gradients)
    return dx, ddelta, tf.reduce_sum(dA, axis=1), dB, dC, g


def _by_time(t):
    return tf.transpose(t, [1, 0, 2])  # (B, L, D) <-> (L, B, D)


def _by_time_and_state(t):
    return tf.transpose(t, [1, 2, 0])  # (B, L, N) -> (L, N, B)


def _from_time_and_state(t):
    return tf.transpose(
        t, [2, 0, 1]
    )  # (L, N, B) -> (B, L, N), and (B, D, N) -> (N, B, D)


# The loops are fast only when compiled, so each direction is compiled by itself: the scan is then
# as fast in eager mode as inside a compiled model, and automatic differentiation never crosses
# the border of a compiled function. Sizes are left open: a new L compiles, but does not retrace.
@tf.function(jit_compile=True, reduce_retracing=True)
def _compiled_forward(x, delta, A, B, C, initial_state):
    y, last_state, kept = _forward(
        _by_time(x),
        _by_time(delta),
        tf.transpose(A),
        _by_time_and_state(B),
        _by_time_and_state(C),
        _from_time_and_state(initial_state),
    )
    return _by_time(y), _by_time_and_state(last_state), kept


@tf.function(jit_compile=True, reduce_retracing=True)
def _compiled_backward(
    x, delta, A, B, C, kept, grad_y, grad_last_state
):
    dx, ddelta, dA, dB, dC, dh = _backward(
        _by_time(x),
        _by_time(delta),
        tf.transpose(A),
        _by_time_and_state(B),
        _by_time_and_state(C),
        kept,
        _by_time(grad_y),
        _from_time_and_state(grad_last_state),
    )
    return (
        _by_time(dx),
        _by_time(ddelta),
        tf.transpose(dA),
        _from_time_and_state(dB),
        _from_time_and_state(dC),
        _by_time_and_state(dh),
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
    """Runs the recurrence of `recurrent_scan` in one compiled loop with a hand-written gradient.

    Section 3.3.2 of arXiv 2312.00752 (kernel fusion and recomputation), for a CPU. O(B L D N)
    time; memory beyond input and output: O(B D N (L / CHUNK + CHUNK)) with gradients.

    Args:
        x: (B, L, D) input.
        delta: (B, L, D) step sizes, positive.
        A: (D, N) diagonal of the state matrix of each channel, negative.
        B: (B, L, N) input vectors.
        C: (B, L, N) output vectors.
        initial_state: (B, D, N) state before the first step.

    Returns:
        (y, last_state) of shapes (B, L, D) and (B, D, N).
    """
    # In eager mode the tape would record the compiled call as well, and prepare to differentiate
    # it: stop_gradient keeps the gradient below the only one.
    inputs = [
        tf.stop_gradient(t) for t in (x, delta, A, B, C, initial_state)
    ]
    y, last_state, kept = _compiled_forward(*inputs)

    def gradient(grad_y, grad_last_state):
        return _compiled_backward(
            *inputs[:5], kept, grad_y, grad_last_state
        )

    return (y, last_state), gradient
