"""A Mamba block that reads a sequence in both directions, for tasks that know all of it."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mamba_edu.block import MambaBlock, block_arguments
from tf_mamba_edu.validation import (
    as_sequence,
    channels_of,
    check_mask,
)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class BidirectionalMambaBlock(keras.layers.Layer):
    """Two Mamba blocks, one of which reads from the end: (B, L, E) to (B, L, E).

    y = forward(u) + reverse(backward(reverse(u))). Every output sees the whole sequence, so there
    is no state to carry and nothing to generate: it is for classification and tagging. Twice the
    weights and the time of a `MambaBlock`.

    Args:
        block: arguments of both blocks, see `MambaBlock`.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if `block` is no dict, or the input is not a floating (B, L, E).
    """

    def __init__(self, *, block: dict | None = None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self.block_arguments = block_arguments(block)
        self.forward, self.backward = (
            MambaBlock(
                **self.block_arguments,
                dtype=self.dtype_policy,
                name=name,
            )
            for name in ("forward", "backward")
        )

    def build(self, input_shape):
        E = channels_of("BidirectionalMambaBlock", input_shape)
        self.forward.build(input_shape)
        self.backward.build(input_shape)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: E})
        self.built = True

    def call(self, u, mask=None):
        """Runs both directions on (B, L, E).

        Positions that a mask (B, L) hides leave either state as it is, so that it does not matter
        whether a text is padded in front or behind.
        """
        mask = check_mask(u, mask)
        u = as_sequence("u", u, self.compute_dtype)
        back = None if mask is None else tf.reverse(mask, [1])
        y = self.backward(tf.reverse(u, [1]), mask=back)  # (B, L, E)
        return self.forward(u, mask=mask) + tf.reverse(y, [1])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "block": self.block_arguments}
