"""The parallel scan for a GPU: a few steps in registers, a tree over what is left.

`associative.associative_scan` writes A-bar and B-bar x of every step to memory, and reads and
writes them again on every level of its tree. Here each thread first runs a chunk of `CHUNK` steps
by itself, and only the whole chunk, one pair (a, b), goes into the tree: an eighth of the numbers.
Afterwards each thread runs its chunk again, from the state that the tree has found.
"""

from __future__ import annotations

import tensorflow as tf

from tf_mamba_edu.scan.associative import states
from tf_mamba_edu.scan.gradients import once

CHUNK = 8  # steps a thread runs by itself; measured on an H100, see chapter 08


def sizes_of(t):
    """The sizes of a tensor: numbers where they are known, else tensors."""
    known, found = t.shape.as_list(), tf.unstack(tf.shape(t))
    return [
        f if k is None else k for k, f in zip(known, found, strict=True)
    ]


def in_chunks(t):
    """(B, L, D) to (chunks, CHUNK, B, D), filled up with steps that change nothing."""
    t = tf.pad(t, [[0, 0], [0, -sizes_of(t)[1] % CHUNK], [0, 0]])
    B, L, D = sizes_of(t)
    t = tf.transpose(t, [1, 0, 2])  # (L, B, D)
    return tf.reshape(t, (L // CHUNK, CHUNK, B, D))


def from_chunks(steps, length):
    """A list of CHUNK arrays (chunks, B, D), one a step, back to (B, L, D)."""
    t = tf.stack(steps, axis=1)  # (chunks, CHUNK, B, D)
    chunks, _, B, D = sizes_of(t)
    t = tf.reshape(t, (chunks * CHUNK, B, D))[:length]
    return tf.transpose(t, [1, 0, 2])


def discretized(x, delta, A, B):
    """A-bar and B-bar x of each step of all chunks: CHUNK arrays (chunks, B, N, D) of each."""
    A_bar = [tf.exp(delta[:, k, :, None, :] * A) for k in range(CHUNK)]
    B_bar_x = [
        (delta[:, k] * x[:, k])[:, :, None, :] * B[:, k, :, :, None]
        for k in range(CHUNK)
    ]
    return A_bar, B_bar_x


def through_chunk(h, A_bar, B_bar_x):
    """The states after each step, from that before the first."""
    found = []
    for a, b in zip(A_bar, B_bar_x, strict=True):
        h = a * h + b  # (chunks, B, N, D)
        found.append(h)
    return found


def before_each(a, b, first):
    """States before all chunks, and the last, from (a, b) of each."""
    after = states(a, b, first)  # (chunks, B, N, D), by a scan
    return tf.concat([first[None], after[:-1]], axis=0), after[-1]


def forward(x, delta, A, B, C, h):
    """The scan on two levels.

    x, delta (B, L, D); A (N, D); B, C (B, L, N); h (B, N, D).

    Returns y (B, L, D), the last state (B, N, D) and the state before each chunk.
    """
    length = sizes_of(x)[1]
    x, delta, B, C = (in_chunks(t) for t in (x, delta, B, C))
    A_bar, B_bar_x = discretized(x, delta, A, B)
    whole = tf.exp(tf.reduce_sum(delta, axis=1)[:, :, None, :] * A)
    from_zero = through_chunk(tf.zeros_like(whole), A_bar, B_bar_x)[-1]
    before, last_state = before_each(whole, from_zero, h)
    after = through_chunk(before, A_bar, B_bar_x)
    y = [
        tf.reduce_sum(C[:, k, :, :, None] * after[k], axis=2)
        for k in range(CHUNK)
    ]  # (chunks, B, D) each
    return from_chunks(y, length), last_state, before


def backward(x, delta, A, B, C, before, dy, g):
    """The same from the other end, from the gradient g of the last state (B, N, D).

    Returns the gradients of x, delta, A, B, C and the initial state, in the layouts of `forward`.
    """
    length = sizes_of(x)[1]
    x, delta, B, C, dy = (in_chunks(t) for t in (x, delta, B, C, dy))
    A_bar, B_bar_x = discretized(x, delta, A, B)
    whole = tf.exp(tf.reduce_sum(delta, axis=1)[:, :, None, :] * A)
    C_dy = [
        C[:, k, :, :, None] * dy[:, k, :, None, :] for k in range(CHUNK)
    ]  # (chunks, B, N, D) each
    handed = tf.zeros_like(whole)
    for k in reversed(range(CHUNK)):
        handed = A_bar[k] * (handed + C_dy[k])
    backward_in_time = (tf.reverse(t, [0]) for t in (whole, handed))
    g, dh = before_each(*backward_in_time, g)
    g = tf.reverse(g, [0])  # what the next chunk hands over
    states_in = [before, *through_chunk(before, A_bar, B_bar_x)[:-1]]
    dA, found = 0.0, []
    for k in reversed(range(CHUNK)):
        g = g + C_dy[k]  # (chunks, B, N, D): all of g_t
        g_A_bar = g * A_bar[k]
        g_decayed = g_A_bar * states_in[k]
        g_B = tf.reduce_sum(g * B[:, k, :, :, None], axis=2)
        d_delta = tf.reduce_sum(g_decayed * A, axis=2) + g_B * x[:, k]
        u = (delta[:, k] * x[:, k])[:, :, None, :]  # (chunks, B, 1, D)
        h = A_bar[k] * states_in[k] + B_bar_x[k]
        dB = tf.reduce_sum(g * u, axis=3)  # (chunks, B, N)
        dC = tf.reduce_sum(h * dy[:, k, :, None, :], axis=3)
        d_A = g_decayed * delta[:, k, :, None, :]
        dA += tf.reduce_sum(d_A, axis=(0, 1))  # (N, D)
        found.insert(0, (g_B * delta[:, k], d_delta, dB, dC))
        g = g_A_bar
    dx, d_delta, dB, dC = (
        from_chunks(steps, length) for steps in zip(*found, strict=True)
    )
    return dx, d_delta, dA, dB, dC, dh


# Compiled by itself, each direction, as in `fused`. A new L is traced and compiled anew: the tree
# is built when L is known.
@tf.function(jit_compile=True)
def compiled_forward(x, delta, A, B, C, initial_state):
    """`forward` in the layouts of `selective_scan`."""
    h = tf.transpose(initial_state, [0, 2, 1])  # (B, N, D)
    y, h, before = forward(x, delta, tf.transpose(A), B, C, h)
    return y, tf.transpose(h, [0, 2, 1]), before


@tf.function(jit_compile=True)
def compiled_backward(x, delta, A, B, C, before, dy, d_last_state):
    """`backward` in the layouts of `selective_scan`."""
    g = tf.transpose(d_last_state, [0, 2, 1])  # (B, N, D)
    A = tf.transpose(A)  # (N, D)
    dx, d_delta, dA, dB, dC, dh = backward(
        x, delta, A, B, C, before, dy, g
    )
    dh = tf.transpose(dh, [0, 2, 1])
    return dx, d_delta, tf.transpose(dA), dB, dC, dh


@tf.custom_gradient
def chunked_scan(
    x: tf.Tensor,
    delta: tf.Tensor,
    A: tf.Tensor,
    B: tf.Tensor,
    C: tf.Tensor,
    initial_state: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs the recurrence of `recurrent_scan` as a parallel scan over chunks, for a GPU.

    O(B L D N) work in O(CHUNK + log L) depth; memory O(B L D N), about 2 / CHUNK of that of the
    scan over single steps in the forward pass. Where L is not known when the graph is built, by
    doubling, O(log L) times the work for the chunks.

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
    inputs = [
        tf.stop_gradient(t) for t in (x, delta, A, B, C, initial_state)
    ]  # the gradient below is to be the only one
    y, last_state, before = compiled_forward(*inputs)

    def gradient(*arriving):
        stopped = [tf.stop_gradient(t) for t in arriving]
        found = compiled_backward(*inputs[:5], before, *stopped)
        sources = x, delta, A, B, C, initial_state, *arriving
        return once(found, sources)

    return (y, last_state), gradient
