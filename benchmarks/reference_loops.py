"""The best loops that stood before `fused`: what it has to beat, time-major and on one core.

Inputs are x, delta (L, B, D); A (D, N); B, C (L, B, N). Each direction is one compiled loop.
"""

from __future__ import annotations

import tensorflow as tf

STEPS = 16  # between two stored states


def loop(count, body, variables):
    """Runs variables = body(i, *variables) for i = 0 .. count - 1."""
    return tf.while_loop(
        lambda i, *_: i < count,
        lambda i, *v: (i + 1, *body(i, *v)),
        (0, *variables),
        maximum_iterations=count,
    )[1:]


def array(size, shape):
    """An array that a loop fills."""
    return tf.TensorArray(tf.float32, size, element_shape=shape, clear_after_read=False)


def arranged(A, B, C):
    """A (N, 1, D), and B, C (L, N, B, 1): ready to meet a state (N, B, D)."""
    B, C = (tf.transpose(t, [0, 2, 1])[..., None] for t in (B, C))
    return tf.transpose(A)[:, None, :], B, C


def advance(h, x_t, delta_t, A, B_t):
    """The state (N, B, D) after one more step."""
    return tf.exp(delta_t * A) * h + (delta_t * x_t) * B_t


@tf.function(jit_compile=True)
def run_forward(x, delta, A, B, C):
    """Returns y (L, B, D) and the state before every STEPS steps (L / STEPS, N, B, D)."""
    A, B, C = arranged(A, B, C)
    L, size, D = x.shape
    state = (A.shape[0], size, D)

    def chunk(c, h, ys, kept):
        def step(k, h, ys):
            t = c * STEPS + k
            h = advance(h, x[t], delta[t], A, B[t])  # (N, B, D)
            return h, ys.write(t, tf.reduce_sum(C[t] * h, axis=0))

        return *loop(STEPS, step, (h, ys)), kept.write(c, h)

    start = tf.zeros(state), array(L, (size, D)), array(L // STEPS, state)
    _, ys, kept = loop(L // STEPS, chunk, start)
    return ys.stack(), kept.stack()


@tf.function(jit_compile=True)
def run_backward(x, delta, A, B, C, kept, dy):
    """Returns the gradients of x, delta, A, B and C, in the layouts of the inputs."""
    A, B, C = arranged(A, B, C)
    L, size, D = x.shape
    state = kept.shape[1:]  # (N, B, D)
    chunks = L // STEPS

    def chunk(i, g, dA, *grads):
        c = chunks - 1 - i

        def again(k, h, before):
            t = c * STEPS + k
            return advance(h, x[t], delta[t], A, B[t]), before.write(k, h)

        before = loop(STEPS, again, (kept[c], array(STEPS, state)))[1].stack()

        def step(j, g, dA, *grads):
            k = STEPS - 1 - j
            t = c * STEPS + k
            u = delta[t] * x[t]  # (B, D)
            A_bar = tf.exp(delta[t] * A)  # (N, B, D)
            carried = A_bar * before[k]  # (N, B, D)
            g += C[t] * dy[t]  # (N, B, D)
            in_u = tf.reduce_sum(g * B[t], axis=0)  # (B, D)
            decay = g * carried  # (N, B, D)
            found = (
                in_u * delta[t],
                in_u * x[t] + tf.reduce_sum(decay * A, axis=0),
                tf.reduce_sum(g * u, axis=-1),  # (N, B)
                tf.reduce_sum((carried + u * B[t]) * dy[t], axis=-1),
            )
            grads = [array.write(t, f) for array, f in zip(grads, found, strict=True)]
            return g * A_bar, dA + decay * delta[t], *grads

        return loop(STEPS, step, (g, dA, *grads))

    grads = [array(L, s) for s in (2 * [(size, D)] + 2 * [state[:2]])]
    zero = tf.zeros(state)
    _, dA, *grads = loop(chunks, chunk, (zero, zero, *grads))
    dx, d_delta, dB, dC = (g.stack() for g in grads)
    dB, dC = (tf.transpose(t, [0, 2, 1]) for t in (dB, dC))  # (L, B, N)
    return dx, d_delta, tf.transpose(tf.reduce_sum(dA, axis=1)), dB, dC


@tf.custom_gradient
def reference_loop(x, delta, A, B, C):
    """Returns y (L, B, D) of a loop on a state (N, B, D); its gradient recomputes the states."""
    inputs = [tf.stop_gradient(t) for t in (x, delta, A, B, C)]
    y, kept = run_forward(*inputs)
    return y, lambda dy: run_backward(*inputs, kept, dy)


@tf.function(jit_compile=True)
def sixteen_states(x, delta, A, B, C):
    """Returns y (L, B, D) of a loop on N states (B, D), one a tensor. Forward only."""
    L, size, D = x.shape
    rows = tf.unstack(tf.transpose(A))  # N of (D,)

    def step(t, ys, *states):
        u = delta[t] * x[t]  # (B, D)
        B_t, C_t = (tf.unstack(v[t][:, :, None], axis=1) for v in (B, C))  # N of (B, 1)
        states = [
            tf.exp(delta[t] * a) * h + u * b for a, h, b in zip(rows, states, B_t, strict=True)
        ]
        y_t = tf.add_n([c * h for c, h in zip(C_t, states, strict=True)])  # (B, D)
        return ys.write(t, y_t), *states

    start = array(L, (size, D)), *[tf.zeros((size, D)) for _ in rows]
    return loop(L, step, start)[0].stack()
