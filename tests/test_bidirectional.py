"""The block that reads in both directions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu.bidirectional import BidirectionalMambaBlock

B, L, E = 2, 9, 6


def layer(**options):
    keras.utils.set_random_seed(0)
    made = BidirectionalMambaBlock(block={"d_state": 3}, **options)
    made.build((None, None, E))
    return made


def inputs(length=L, seed=0):
    return np.random.default_rng(seed).normal(size=(B, length, E)).astype("float32")


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_it_is_the_sum_of_two_directions():
    block, u = layer(), inputs()
    close(block(u), block.forward(u) + block.backward(u[:, ::-1])[:, ::-1])


def test_every_output_sees_every_input():
    block, u = layer(), tf.constant(inputs())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(u)
        outputs = tf.unstack(block(u), axis=1)
    for y in outputs:
        assert np.abs(tape.gradient(y, u)).sum(-1).min() > 0


@pytest.mark.parametrize("front", [False, True])
def test_padding_on_either_side_changes_nothing(front):
    block, u = layer(), inputs()
    padding = np.full((B, 5, E), 3.0, "float32")
    parts = (padding, u) if front else (u, padding)
    mask = np.concatenate([np.full(p.shape[:2], p is u) for p in parts], axis=1)
    y = block(np.concatenate(parts, axis=1), mask=mask).numpy()
    close(y[mask].reshape(u.shape), block(u))


def test_a_mask_of_keras_is_used():
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    embedding = keras.layers.Embedding(6, E, mask_zero=True)
    place = keras.Input((None,), dtype="int32")
    block = layer()
    model = keras.Model(place, block(embedding(place)))
    for row, length in zip(ids, (3, 2), strict=True):
        close(model(row[None])[0, :length], block(embedding(row[None, :length]))[0])


def test_it_trains_and_is_saved(tmp_path):
    block = layer()
    model = keras.Sequential([keras.Input((None, E)), block, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(inputs(), inputs()[..., :1], verbose=0)
    model.save(tmp_path / "m.keras")
    close(keras.models.load_model(tmp_path / "m.keras")(inputs()), model(inputs()))


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near(dtype):
    y = layer(dtype=dtype)(inputs())
    assert y.dtype == dtype.split("_")[1]
    close(tf.cast(y, "float32"), layer()(inputs()), 0.05)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`block` must be a dict"):
        BidirectionalMambaBlock(block=3)
    with pytest.raises(ValueError, match="needs an input of shape"):
        layer().build((None, E))
    with pytest.raises(ValueError, match="at least one step"):
        layer()(inputs(0))
    with pytest.raises(ValueError, match="`mask` must"):
        layer()(inputs(), mask=np.ones((B, L)))
