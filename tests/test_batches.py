"""Batches for `fit`: every row, in order, and no thread that `fit` would wait for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu.batches import batched, untuned
from tf_mamba_edu.tasks import InductionHeads


def test_batches_hold_every_row_in_order():
    x, y = np.arange(14).reshape(7, 2), np.arange(7)
    parts = list(batched((x, y), 3))
    assert [len(part[0]) for part in parts] == [3, 3, 1]
    for i, whole in enumerate((x, y)):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole)


def test_batches_keep_lists_dicts_and_weights_apart():
    rows = np.arange(4)
    (inputs, targets, weights) = next(iter(batched(([rows, {"a": rows}], rows, rows), 2)))
    assert isinstance(inputs, tuple) and set(inputs[1]) == {"a"}
    for part in (inputs[0], inputs[1]["a"], targets, weights):
        np.testing.assert_array_equal(part, [0, 1])


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_bad_batch_size_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        batched((np.zeros(3), np.zeros(3)), batch_size)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"equally many rows.*\[3, 4\]"):
        batched((np.zeros(3), np.zeros(4)), 2)


@pytest.mark.parametrize(
    "dataset",
    [
        batched((np.zeros(3), np.zeros(3)), 2),
        untuned(tf.data.Dataset.range(3).prefetch(2)),
        InductionHeads(8).dataset(2, 16, seed=0, steps=3),
    ],
    ids=["batched", "untuned", "task"],
)
def test_no_thread_tunes_the_pipeline(dataset):
    assert dataset.options().autotune.enabled is False


def test_fit_on_batches_is_fit_on_arrays():
    x = np.random.default_rng(0).normal(size=(10, 3)).astype("float32")
    ends = []
    for way in ("arrays", "batches"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        if way == "arrays":
            model.fit(x, x[:, 0], 4, epochs=2, shuffle=False, verbose=0)
        else:
            model.fit(batched((x, x[:, 0]), 4), epochs=2, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
