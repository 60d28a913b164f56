"""The causal depthwise convolution in front of the selective SSM."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mamba_edu.initializers import symmetric_uniform
from tf_mamba_edu.sequence_layer import SequenceLayer
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    channels_of,
    check_built,
    check_mask,
    check_positive_int,
    check_shape,
)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class CausalConv1D(SequenceLayer):
    """Mixes each channel with its own last few inputs: a causal depthwise convolution.

    y_t = bias + sum_k kernel_k x_{t-K+1+k}, with zeros (or a carried state) before the start:
    y_t never sees the future. Time O(B L D K).

    Args:
        kernel_size: K, how many inputs each output sees.
        use_bias: whether a bias is added.
        **kwargs: name, dtype and so on, as for every Keras layer.
    """

    def __init__(
        self, kernel_size: int = 4, use_bias: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.kernel_size = check_positive_int(
            "kernel_size", kernel_size
        )
        self.use_bias = use_bias

    def build(self, input_shape):
        D, K = (
            channels_of("CausalConv1D", input_shape),
            self.kernel_size,
        )
        uniform = symmetric_uniform(K**-0.5)
        self.kernel = self.add_weight(
            shape=(K, D), initializer=uniform, name="kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(D,), initializer=uniform, name="bias"
            )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: D})
        self.built = True

    def call(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        """Runs the layer on (B, L, D); returns y, or (y, the last inputs (B, K - 1, D)).

        Inputs that a mask (B, L) hides count as zero, and the last inputs are those up to the
        last that it shows.
        """
        mask = check_mask(x, mask)
        x, K = as_sequence("x", x), self.kernel_size
        if mask is not None:
            x = tf.where(mask[:, :, None], x, 0)  # (B, L, D)
        if initial_state is None:
            initial_state = tf.zeros(
                (tf.shape(x)[0], K - 1, x.shape[-1]), x.dtype
            )
        state = self._fitting("initial_state", initial_state, x)
        padded = tf.concat([state, x], axis=1)  # (B, K - 1 + L, D)
        y = windowed_sum(padded, tf.convert_to_tensor(self.kernel), K)
        if self.bias is not None:
            y = y + self.bias  # (B, L, D)
        if not return_state:
            return y
        if mask is None:
            return y, padded[:, tf.shape(x)[1] :]
        counts = tf.range(1, tf.shape(x)[1] + 1)  # (L,)
        end = tf.reduce_max(tf.where(mask, counts, 0), axis=1)  # (B,)
        last = end[:, None] + tf.range(K - 1)  # (B, K - 1)
        return y, tf.gather(padded, last, axis=1, batch_dims=1)

    def step(self, x, state) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one time step on x (B, D) and the last inputs (B, K - 1, D): (y, state)."""
        x = as_floating("x", x, tf.as_dtype(self.compute_dtype))
        check_shape("x", x, "B D", (None, self.kernel.shape[-1]))
        state = self._fitting("state", state, x)  # (B, K - 1, D)
        window = tf.concat([state, x[:, None]], axis=1)  # (B, K, D)
        y = tf.einsum(
            "bkd,kd->bd", window, tf.cast(self.kernel, x.dtype)
        )  # (B, D)
        if self.bias is not None:
            y = y + tf.cast(self.bias, x.dtype)
        return y, window[:, 1:]

    def _fitting(self, name, state, x):
        """The last inputs (B, K - 1, D) as a tensor, if they fit x."""
        state = as_floating(name, state, x.dtype)
        sizes = x.shape[0], self.kernel_size - 1, self.kernel.shape[-1]
        check_shape(name, state, "B K-1 D", sizes)
        return state

    def state_spec(self, batch_size=None):
        check_built(self)
        return keras.KerasTensor(
            (batch_size, self.kernel_size - 1, self.kernel.shape[-1]),
            self.compute_dtype,
        )

    def get_config(self):
        config = {
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
        }
        return {**super().get_config(), **config}


# Compiled by itself: op by op, the gradient takes four times as long on a CPU. (And a convolution
# of the library, though fast op by op, is slower still where the whole model is compiled.)
@tf.function(jit_compile=True, reduce_retracing=True)
def windowed_sum(padded, kernel, K):
    """Returns (B, L, D): at t, the sum of kernel_k padded_{t+k}."""
    return sum(
        padded[:, k : k + 1 - K or None] * kernel[k] for k in range(K)
    )  # (B, L, D)
