"""Code that is wrong on purpose, as it is found in public: shown, measured, never used.

Every function here runs without an error and gives wrong results. The failure museum, a page of
the book, shows when and why; a test holds each of them to its failure.
"""

from __future__ import annotations

import tensorflow as tf


def cumulative_sum_scan(x, delta, A, B, C, epsilon: float = 1e-12):
    """Computes the selective scan with two cumulative sums, **wrongly** for long sequences.

    With P_t the product of all A-bar up to t, h_t = P_t sum_{s <= t} B-bar_s x_s / P_s. That is
    right on paper. P_t shrinks with t, and once it is below epsilon the quotients are wrong;
    without epsilon it underflows to 0, and they are 0 / 0.

    Args:
        x: (B, L, D) input.
        delta: (B, L, D) step sizes, positive.
        A: (D, N) diagonal of the state matrix of each channel, negative.
        B: (B, L, N) input vectors.
        C: (B, L, N) output vectors.
        epsilon: added to P_s, "so that nothing is divided by zero".

    Returns:
        y (B, L, D). Time and memory O(B L D N).
    """
    log_A_bar = delta[..., None] * A  # (B, L, D, N)
    B_bar_x = (delta * x)[..., None] * B[:, :, None, :]  # (B, L, D, N)
    P = tf.exp(tf.cumsum(log_A_bar, axis=1))  # (B, L, D, N)
    h = P * tf.cumsum(B_bar_x / (P + epsilon), axis=1)  # (B, L, D, N)
    return tf.einsum("bldn,bln->bld", h, C)  # (B, L, D)
