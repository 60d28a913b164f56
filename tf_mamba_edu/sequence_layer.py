"""What all layers over sequences share: a state that callers may carry, and its description."""

from __future__ import annotations

import keras
import tensorflow as tf


def at_least_float32(dtype: str) -> str:
    """Returns "float32" for a half precision, and any other dtype as it is."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


class SequenceLayer(keras.layers.Layer):
    """A layer from (B, L, channels) to (B, L, channels) that can take in and hand on a state.

    `call(x, initial_state=None, return_state=False)` returns y, or (y, state). A subclass tells
    in `state_spec` what its state looks like; the rest follows from it.
    """

    def state_spec(self, batch_size: int | None = None):
        """Returns shapes and dtypes of the state, for a functional model that carries it.

        Args:
            batch_size: B, or None where it is not known.

        Returns:
            One or more `keras.KerasTensor`, in the structure of the state.

        Raises:
            ValueError: if the layer is not built.
        """
        raise NotImplementedError

    def zero_state(self, batch_size):
        """Returns the state before any input: zeros, as `state_spec` describes them."""
        return keras.tree.map_structure(
            lambda spec: tf.zeros(
                (batch_size, *spec.shape[1:]), spec.dtype
            ),
            self.state_spec(),
        )

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(
        self, x, initial_state=None, return_state=False, mask=None
    ):
        y = keras.KerasTensor(x.shape, self.compute_dtype)
        return (y, self.state_spec(x.shape[0])) if return_state else y
