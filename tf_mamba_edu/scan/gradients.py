"""Gradients written by hand are not differentiated again: that must be an error, not a number."""

from __future__ import annotations

import tensorflow as tf


def once(gradients, sources):
    """Hands on gradients; to differentiate them is an error.

    Args:
        gradients: some tensors.
        sources: all tensors that they depend on.

    Returns:
        The gradients, as a list.
    """
    count = len(gradients)

    @tf.custom_gradient
    def hand_on(*tensors):
        def refuse(*_):
            raise NotImplementedError(
                "The gradient of a scan is written by hand and cannot be differentiated again. "
                'For second derivatives use method="recurrent".'
            )

        return [tf.identity(t) for t in tensors[:count]], refuse

    return hand_on(*gradients, *sources)
