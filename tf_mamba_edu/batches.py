"""Arrays in batches for `fit`, which then ends when the work ends."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_mamba_edu.validation import check_positive_int


def batched(arrays: tuple, batch_size: int = 32) -> tf.data.Dataset:
    """Cuts arrays into batches for `fit`, in order, and `untuned`.

    Args:
        arrays: (inputs, targets) or (inputs, targets, sample weights), each an array with B rows
            or a list, tuple or dict of such.
        batch_size: rows in a batch; the last one holds what is left.

    Returns:
        A dataset of the same tuples, cut into batches; give it to `fit` with `shuffle=False`.

    Raises:
        ValueError: if `batch_size` is not a positive integer, or the arrays differ in rows.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    arrays = keras.tree.lists_to_tuples(tuple(arrays))
    rows = sorted({len(a) for a in keras.tree.flatten(arrays)})
    if len(rows) != 1:
        raise ValueError(
            f"`arrays` must have equally many rows. Received rows: {rows}"
        )
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    return untuned(dataset.batch(batch_size))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switches off the thread with which `tf.data` tunes a pipeline.

    It is told to end when the iterator does, but may look too early, and sleep on. `fit` then
    waits for it at the end of an epoch: at times as long again as the epoch took.

    Args:
        dataset: one that needs no tuning: in memory, or of a fixed parallelism.

    Returns:
        The same dataset with that option.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
