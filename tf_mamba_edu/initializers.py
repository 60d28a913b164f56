"""Random initial values, and how to do without them when a checkpoint replaces them all."""

from __future__ import annotations

import contextlib
import contextvars

import keras
import tensorflow as tf

_skipped = contextvars.ContextVar("skipped", default=False)


@contextlib.contextmanager
def no_random_values():
    """Makes the initializers of this module return zeros: for weights that are loaded anyway."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


class _Skippable:
    """An initializer that makes zeros inside of `no_random_values`."""

    def __call__(self, shape, dtype=None):
        if _skipped.get():
            return tf.zeros(shape, dtype)
        return super().__call__(shape, dtype)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class Uniform(_Skippable, keras.initializers.RandomUniform):
    """Draws from Uniform(minval, maxval); zeros inside of `no_random_values`."""


@keras.saving.register_keras_serializable("tf_mamba_edu")
class Normal(_Skippable, keras.initializers.RandomNormal):
    """Draws from Normal(mean, stddev^2); zeros inside of `no_random_values`."""


def symmetric_uniform(bound: float) -> Uniform:
    """Returns the initializer Uniform(-bound, bound), PyTorch's default for bound = fan_in^-1/2."""
    return Uniform(-bound, bound)
