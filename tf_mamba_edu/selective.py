"""S6: a state space model whose B, C and Delta are functions of the input."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.initializers import symmetric_uniform
from tf_mamba_edu.scan import choose_method, selective_scan
from tf_mamba_edu.sequence_layer import (
    SequenceLayer,
    at_least_float32,
)
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    channels_of,
    check_built,
    check_mask,
    check_positive_int,
    check_shape,
    check_step_range,
)

DELTA_FLOOR = 1e-4  # the smallest Delta that initialization draws, as in the official code

HIDDEN = -1e4  # softplus of it is 0, in float16 too: a step of size 0 leaves the state as it is


@keras.saving.register_keras_serializable("tf_mamba_edu")
class DeltaBiasInitializer(keras.initializers.Initializer):
    """Draws Delta log-uniformly, and returns its inverse softplus.

    So softplus(bias) is a Delta of the scales wanted, whatever the input adds to it later. The
    paper (section 3.6) writes Uniform; the official code, followed here, draws log-uniformly,
    and clamps at 1e-4.

    Args:
        dt_min: smallest Delta, positive.
        dt_max: largest Delta, at least dt_min.
    """

    def __init__(self, dt_min: float = 1e-3, dt_max: float = 1e-1):
        self.dt_min, self.dt_max = dt_min, dt_max

    def __call__(self, shape, dtype=None):
        low, high = math.log(self.dt_min), math.log(self.dt_max)
        delta = tf.exp(
            keras.initializers.RandomUniform(low, high)(shape, dtype)
        )
        delta = tf.maximum(delta, DELTA_FLOOR)
        return delta + tf.math.log(
            -tf.math.expm1(-delta)
        )  # softplus of this is delta

    def get_config(self):
        return {"dt_min": self.dt_min, "dt_max": self.dt_max}


@keras.saving.register_keras_serializable("tf_mamba_edu")
class SelectiveSSM(SequenceLayer):
    """Maps a sequence (B, L, D) to a sequence (B, L, D) through a selective state space (S6).

    Algorithm 2 of arXiv 2312.00752: from each x_t, linear maps compute B_t, C_t and, through
    rank R and softplus, Delta_t; then `selective_scan` runs. A starts as -(1..N) in each channel
    and is stored as log(-A), so that it stays negative. State, A, D and Delta's bias are float32
    even where the dtype is half of that. Time O(B L D (N + R)), state B D N numbers whatever L.

    Args:
        d_state: N, numbers of state per channel.
        dt_rank: R, rank of the map from x to Delta; "auto" is ceil(D / 16).
        dt_min: smallest Delta at initialization.
        dt_max: largest Delta at initialization.
        method: how the scan runs, see `selective_scan`.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if an argument is out of range, or the input is not a floating (B, L, D).
    """

    def __init__(
        self,
        d_state: int = 16,
        dt_rank: int | str = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        method: str = "auto",
        **kwargs,
    ):
        super().__init__(
            autocast=False, **kwargs
        )  # the carried state must stay float32
        self.supports_masking = True
        self.d_state = check_positive_int("d_state", d_state)
        self.dt_rank = (
            dt_rank
            if dt_rank == "auto"
            else check_positive_int("dt_rank", dt_rank)
        )
        check_scan_options(dt_min, dt_max, method)
        self.dt_min, self.dt_max, self.method = dt_min, dt_max, method

    def build(self, input_shape):
        D = channels_of("SelectiveSSM", input_shape)
        N = self.d_state
        R = (
            math.ceil(D / 16)
            if self.dt_rank == "auto"
            else self.dt_rank
        )
        self.x_proj = keras.layers.Dense(
            R + 2 * N,
            use_bias=False,
            kernel_initializer=symmetric_uniform(D**-0.5),
            dtype=self.dtype_policy,
            name="x_proj",
        )
        self.x_proj.build((None, None, D))
        self.dt_proj = keras.layers.Dense(
            D,
            use_bias=False,
            kernel_initializer=symmetric_uniform(R**-0.5),
            dtype=self.dtype_policy,
            name="dt_proj",
        )
        self.dt_proj.build((None, None, R))
        exact = dict(
            dtype=at_least_float32(self.variable_dtype), autocast=False
        )  # time scales
        minus_A = np.tile(
            np.arange(1, N + 1, dtype="float32"), (D, 1)
        )  # (D, N)
        self.dt_bias = self.add_weight(
            shape=(D,),
            initializer=DeltaBiasInitializer(self.dt_min, self.dt_max),
            name="dt_bias",
            **exact,
        )
        self.A_log = self.add_weight(
            shape=(D, N),
            initializer=lambda shape, dtype: tf.cast(
                np.log(minus_A), dtype
            ),
            name="A_log",
            **exact,
        )
        self.D = self.add_weight(
            shape=(D,), initializer="ones", name="D", **exact
        )
        self._sizes = (R, N, N)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: D})
        self.built = True

    def select(self, x) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes Delta before bias and softplus, B and C from x.

        Args:
            x: (..., D) input.

        Returns:
            (delta, B, C) of shapes (..., D), (..., N) and (..., N).
        """
        low_rank, B, C = tf.split(
            self.x_proj(x), self._sizes, axis=-1
        )  # (..., R), (..., N) x 2
        return self.dt_proj(low_rank), B, C

    def step_sizes(self, x) -> tf.Tensor:
        """Computes step sizes, Delta = softplus(dt_proj(...) + bias).

        Args:
            x: (..., D) input.

        Returns:
            (..., D) float32 step sizes.
        """
        delta, _, _ = self.select(x)
        return tf.math.softplus(
            tf.cast(delta, self.dt_bias.dtype) + self.dt_bias
        )

    def call(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        """Maps (B, L, D) to y, or to (y, last_state (B, D, N)).

        Where a mask (B, L) hides a step, Delta is 0 there, and the state stays as it is.
        """
        mask = check_mask(x, mask)
        x = as_sequence("x", x, self.compute_dtype)
        delta, B, C = self.select(x)  # (B, L, D), (B, L, N), (B, L, N)
        if mask is not None:
            delta = tf.where(mask[:, :, None], delta, HIDDEN)
        return selective_scan(
            x,
            delta,
            -tf.exp(self.A_log),
            B,
            C,
            self.D,
            delta_bias=self.dt_bias,
            delta_softplus=True,
            initial_state=initial_state,
            method=self.method,
            return_last_state=return_state,
        )

    def step(self, x, state) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one time step: O(B D N), the price of each generated token.

        Args:
            x: (B, D) input.
            state: (B, D, N) state.

        Returns:
            (y, state) of shapes (B, D) and (B, D, N).
        """
        x = as_floating("x", x, tf.as_dtype(self.compute_dtype))
        D, N = self.A_log.shape
        check_shape("x", x, "B D", (None, D))
        state = as_floating(
            "state", state, tf.as_dtype(self.A_log.dtype)
        )
        check_shape("state", state, "B D N", (x.shape[0], D, N))
        _, B, C = self.select(x)  # (B, N)
        delta = self.step_sizes(x)  # (B, D)
        u, B, C = (tf.cast(t, delta.dtype) for t in (x, B, C))
        A_bar = tf.exp(
            -delta[:, :, None] * tf.exp(self.A_log)
        )  # (B, D, N)
        state = (
            A_bar * state + (delta * u)[:, :, None] * B[:, None, :]
        )  # (B, D, N)
        y = tf.einsum("bdn,bn->bd", state, C) + self.D * u  # (B, D)
        return tf.cast(y, x.dtype), state

    def state_spec(self, batch_size=None):
        check_built(self)
        return keras.KerasTensor(
            (batch_size, *self.A_log.shape), self.A_log.dtype
        )

    def get_config(self):
        return {
            **super().get_config(),
            "d_state": self.d_state,
            "dt_rank": self.dt_rank,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "method": self.method,
        }


def check_scan_options(dt_min, dt_max, method="auto") -> None:
    """Raises a ValueError unless 0 < dt_min <= dt_max and the method is known."""
    check_step_range(dt_min, dt_max)
    choose_method(method)
