"""Code that is wrong on purpose, as it is found in public: shown, measured, never used.

Every function here runs without an error and gives wrong results. The failure museum, a page of
the book, shows when and why; a test holds each of them to its failure.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.convolution import CausalConv1D
from tf_mamba_edu.scan import selective_scan
from tf_mamba_edu.scan.associative import combine
from tf_mamba_edu.selective import SelectiveSSM


def cumulative_sum_scan(x, delta, A, B, C, epsilon: float = 1e-12):
    """Scans with two cumulative sums: **wrong** if long.

    With P_t the product of all A-bar up to t, h_t = P_t sum_{s <= t} B-bar_s x_s / P_s. That is
    right on paper. P_t shrinks with t, and once it is below epsilon the quotients are wrong;
    without epsilon they are right until it underflows to 0, and then infinite.

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


class SameConv1D(CausalConv1D):
    """A convolution with padding "same": it **sees the future**.

    "Same" puts half of the zeros behind the sequence: with K = 4, output t depends on inputs
    t - 1 to t + 2. Same weights as `CausalConv1D`, same shapes, no error.
    """

    def call(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        kernel = self.kernel[:, :, None]  # (K, D, 1)
        y = keras.ops.depthwise_conv(x, kernel, padding="same")
        return y + self.bias if self.use_bias else y  # (B, L, D)


class GrowingSSM(SelectiveSSM):
    """S6 without the minus sign of A = -exp(A_log): it **grows**.

    Since A > 0, A-bar = exp(Delta A) is above 1, and every state grows from step to step. Short
    sequences stay finite.
    """

    def call(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        delta, B, C = self.select(x)  # (B, L, D), (B, L, N), (B, L, N)
        return selective_scan(
            x,
            delta,
            tf.exp(self.A_log),
            B,
            C,
            self.D,
            delta_bias=self.dt_bias,
            delta_softplus=True,
            initial_state=initial_state,
            method=self.method,
            return_last_state=return_state,
        )


def zero_all_biases(model) -> None:
    """Sets all biases to zero, **and with them Delta's**.

    A loop over a whole model, as it is usual for Transformers, undoes what its layers did. Delta's
    bias holds the time scales. With 0, every Delta starts at softplus(0) = 0.69, and a fresh model
    forgets within some twenty steps.

    Args:
        model: a layer or model that is built.
    """
    for variable in model.trainable_variables:
        if "bias" in variable.name:
            variable.assign(tf.zeros_like(variable))


def decay_everything(
    learning_rate, weight_decay: float = 0.1
) -> keras.optimizers.AdamW:
    """Returns AdamW as it comes: it **decays time scales**.

    A_log, D and Delta's bias shrink toward 0, that is, A toward -1 and Delta toward 0.69.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: per step, times the learning rate.
    """
    return keras.optimizers.AdamW(
        learning_rate, weight_decay=weight_decay
    )


def random_window_split(
    tokens, length: int, stride: int = 1, share: float = 0.3, seed=0
) -> tuple[np.ndarray, np.ndarray]:
    """Splits windows at random: **validation text is trained on**.

    A window held out shares all but a few of its tokens with neighbors that are not.

    Args:
        tokens: (n,) the text.
        length: L, tokens in a window.
        stride: from the start of one window to the start of the next.
        share: of the windows that is held out.
        seed: of the random split.

    Returns:
        (training windows, validation windows), both (count, L).
    """
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length)
    windows = windows[::stride]  # (count, L)
    order = np.random.default_rng(seed).permutation(len(windows))
    held_out = int(share * len(windows))
    return windows[order[held_out:]], windows[order[:held_out]]


def softmax_head(vocab_size: int) -> list[keras.layers.Layer]:
    """An output layer with a softmax: **one too many**.

    A loss with from_logits=True takes the probabilities for logits, and cannot fall below
    log(1 + (V - 1) / e). Keras notices a softmax at the very end of a model; a reshape behind it is
    enough, and it does not.

    Args:
        vocab_size: V, number of tokens.
    """
    return [
        keras.layers.Dense(vocab_size, activation="softmax"),
        keras.layers.Reshape((-1, vocab_size)),
    ]


def scan_by_keras(a, b) -> tf.Tensor:
    """Runs h_t = a_t h_{t-1} + b_t, but **not under XLA**.

    Right in eager mode and in a plain graph. Compiled by XLA, Keras 3.15.1 fails for L > 3: it puts
    even and odd entries together in a `tf.cond`, and XLA compiles both of its branches, of which
    one has shapes that do not fit.

    Args:
        a: (L, ...) multipliers.
        b: (L, ...) inputs.

    Returns:
        (L, ...) states.
    """
    return keras.ops.associative_scan(combine, (a, b), axis=0)[1]
