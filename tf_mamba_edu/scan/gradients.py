"""Gradients written by hand are not differentiated again: that must be an error, not a number."""

from __future__ import annotations

import functools

import tensorflow as tf

WHY = (
    "the gradient of a scan is written by hand and cannot be differentiated again. For second "
    'derivatives use method="recurrent".'
)


def once(gradients, sources):
    """Hands on gradients; to differentiate them is an error.

    In eager mode a `NotImplementedError`; in a graph TensorFlow's `LookupError`, or what AutoGraph
    makes of it.

    Args:
        gradients: some tensors.
        sources: all tensors that they depend on.

    Returns:
        The gradients, as a list.
    """
    count = len(gradients)

    @functools.partial(tf.function, autograph=False)
    def in_a_graph(*tensors):
        return [
            tf.raw_ops.PreventGradient(input=t, message=WHY)
            for t in tensors[:count]
        ]

    @tf.custom_gradient
    def eagerly(*tensors):
        def refuse(*_):
            raise NotImplementedError(WHY)

        return [tf.identity(t) for t in tensors[:count]], refuse

    # In a graph a function does it: a SavedModel could not store the custom gradient of a custom
    # gradient, and would warn. Outside, a tape would differentiate the function as soon as it is
    # called, whether or not anybody asks.
    hand_on = eagerly if tf.executing_eagerly() else in_a_graph
    return list(hand_on(*gradients, *sources))
