"""The selective scan as the equations say it: one step after another.

This is the slow, obvious version. It is the oracle of every faster one.
"""

from __future__ import annotations

import tensorflow as tf


def recurrent_scan(
    x: tf.Tensor,
    delta: tf.Tensor,
    A: tf.Tensor,
    B: tf.Tensor,
    C: tf.Tensor,
    initial_state: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t x_t in a loop.

    With y_t = C_t h_t, Algorithm 2 of arXiv 2312.00752, equations 2a and 2b; Delta is ready to
    use (already through softplus). Gradients come from automatic differentiation, which stores
    every state: O(B L D N) time and, with gradients, as much memory.

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

    def step(h, inputs):
        x_t, delta_t, B_t = inputs  # (B, D), (B, D), (B, N)
        A_bar = tf.exp(delta_t[:, :, None] * A)  # (B, D, N)
        B_bar_x = (delta_t * x_t)[:, :, None] * B_t[
            :, None, :
        ]  # (B, D, N)
        return A_bar * h + B_bar_x  # (B, D, N)

    time_major = [
        tf.transpose(t, [1, 0, 2]) for t in (x, delta, B)
    ]  # (L, B, .) each
    states = tf.scan(
        step, time_major, initializer=initial_state
    )  # (L, B, D, N)
    y = tf.einsum("lbdn,bln->bld", states, C)  # (B, L, D)
    last_state = tf.concat([initial_state[None], states], axis=0)[
        -1
    ]  # (B, D, N), also for L = 0
    return y, last_state
