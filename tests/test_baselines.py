"""The models that Mamba is compared with: causal, and the same step by step as all at once."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu.baselines import (
    GRULM,
    BaselineConfig,
    CausalSelfAttention,
    TransformerLM,
    positions,
    rotated,
)

V, E = 11, 8
CONFIG = BaselineConfig(vocab_size=V, d_model=E, n_layers=2, n_heads=2)
models = pytest.mark.parametrize("kind", ["gru", "transformer", "rotary"])


def model(kind, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    if kind == "gru":
        return GRULM(CONFIG, **kwargs)
    config = dataclasses.replace(CONFIG, rotary=kind == "rotary")
    return TransformerLM(config, **kwargs)


def tokens(batch=2, length=9, seed=0):
    return np.random.default_rng(seed).integers(0, V, (batch, length))


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@models
def test_logits_are_one_score_for_each_token(kind):
    lm = model(kind)
    assert lm(tokens()).shape == (2, 9, V) == lm.compute_output_shape((2, 9))


@models
def test_no_output_sees_a_later_token(kind):
    lm, ids = model(kind), tokens()
    before = lm(ids).numpy()
    for t in range(1, 9):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        after = lm(changed).numpy()
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.abs(after[:, t:] - before[:, t:]).max() > 1e-4


@models
def test_an_output_sees_all_earlier_tokens(kind):
    lm, ids = model(kind), tokens()
    before = lm(ids).numpy()[:, -1]
    for t in range(9):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        assert np.abs(lm(changed).numpy()[:, -1] - before).max() > 1e-7


@models
@pytest.mark.parametrize("split", [1, 4, 8])
def test_a_text_in_two_parts_equals_the_whole(kind, split):
    lm, ids = model(kind), tokens()
    first, cache = lm.prefill(ids[:, :split])
    if kind != "gru":
        cache = lm.make_room(cache, 9 - split)
    second, _ = lm.prefill(ids[:, split:], cache)
    close(tf.concat([first, second], axis=1), lm(ids))


@models
def test_the_last_logits_may_be_had_alone(kind):
    lm = model(kind)
    close(lm.prefill(tokens(), last_only=True)[0], lm(tokens())[:, -1])


@models
@pytest.mark.parametrize("compiled", [False, True])
def test_step_by_step_equals_all_at_once(kind, compiled):
    lm, ids = model(kind), tokens(length=20)
    want, cache = lm(ids), lm.init_cache(2)
    if kind != "gru":
        cache = lm.init_cache(2, capacity=3)
    step = tf.function(lm.step, jit_compile=True) if compiled else lm.step
    for t in range(20):
        if kind != "gru":
            cache = lm.make_room(cache)
        logits, cache = step(ids[:, t], cache)
        close(logits, want[:, t])
    if kind != "gru":
        assert cache.keys[0].shape[0] == 24 and int(cache.length) == 20


@models
def test_greedy_text_is_what_the_full_model_says(kind):
    lm, ids = model(kind), tokens(length=3)
    got = lm.generate(ids, 12, temperature=0).numpy()
    want = ids
    for _ in range(12):
        best = np.argmax(lm(want)[:, -1], axis=-1)
        want = np.concatenate([want, best[:, None]], axis=1)
    np.testing.assert_array_equal(got, want)


def test_attention_is_that_of_keras():
    x = np.random.default_rng(0).normal(size=(2, 7, E)).astype("float32")
    ours, keras_own = (
        CausalSelfAttention(2),
        keras.layers.MultiHeadAttention(2, E // 2, use_bias=False),
    )
    y, keys, values = ours(x)
    keras_own(x, x)
    q, k, v = np.split(ours.qkv.kernel.numpy(), 3, axis=1)
    heads = [w.reshape(E, 2, E // 2) for w in (q, k, v)]
    q, k, v = heads
    names = {w.path.split("/")[-2]: w for w in keras_own.weights}
    for name, value in (("query", q), ("key", k), ("value", v)):
        names[name].assign(value)
    names["attention_output"].assign(ours.out.kernel.numpy().reshape(2, E // 2, E))
    close(y, keras_own(x, x, use_causal_mask=True))
    assert keys.shape == values.shape == (7, 2, 2, E // 2)


def test_positions_go_on_where_a_part_ends():
    whole = positions(0, 50, 6)
    close(tf.concat([positions(0, 20, 6), positions(20, 30, 6)], axis=0), whole)
    close(whole[0], [0, 0, 0, 1, 1, 1])
    close(whole[:, 0], np.sin(np.arange(50)), 1e-5)
    assert positions(0, 3, 5).shape == (3, 5)


@pytest.mark.parametrize("width", [2, 6, 7])
def test_places_turn_pairs_of_numbers(width):
    x = np.random.default_rng(0).normal(size=(5, 2, 3, width)).astype("float32")
    places, half = np.array([0, 1, 7, 300, 4000]), width // 2
    got = rotated(x, places).numpy()
    for i in range(half):
        z = x[..., i] + 1j * x[..., i + half]
        z *= np.exp(1j * places * 1e4 ** (-i / half))[:, None, None]
        close(got[..., i] + 1j * got[..., i + half], z, 2e-3)
    close(got[..., 2 * half :], x[..., 2 * half :])


@pytest.mark.parametrize("width", [6, 7])
def test_products_of_turned_vectors_depend_on_the_distance_alone(width):
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, width)).astype("float32")

    def product(place, other):
        return np.sum(rotated(q, [place]) * rotated(k, [other]))

    close(product(7, 3), product(107, 103), 1e-4)
    close(product(5, 5), np.sum(q * k), 1e-5)
    assert abs(product(7, 3) - product(7, 4)) > 1e-2


@pytest.mark.parametrize("rotary", [False, True])
def test_only_turned_keys_know_the_order(rotary):
    keras.utils.set_random_seed(0)
    layer = CausalSelfAttention(2, rotary)
    x = np.random.default_rng(1).normal(size=(2, 6, E)).astype("float32")
    in_order, *_ = layer(x)
    shuffled, *_ = layer(x[:, [3, 0, 4, 1, 2, 5]])
    moved = np.abs(shuffled[:, -1] - in_order[:, -1]).max()
    assert moved > 1e-3 if rotary else moved < 1e-6


@models
@pytest.mark.parametrize("compiled", [False, True])
def test_lengths_may_be_unknown(kind, compiled):
    lm = model(kind)
    call = tf.function(
        lm, input_signature=[tf.TensorSpec((None, None), tf.int32)], jit_compile=compiled
    )
    for length in (1, 4, 9):
        ids = tokens(length=length).astype("int32")
        close(call(ids), lm(ids))


@models
def test_it_learns(kind):
    lm = model(kind)
    ids = (np.arange(17) + np.arange(64)[:, None]) % V
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    lm.compile(keras.optimizers.Adam(0.02), loss)
    history = lm.fit(ids[:, :-1], ids[:, 1:], epochs=12, batch_size=16, verbose=0)
    assert history.history["loss"][-1] < 0.3 < history.history["loss"][0]


@models
def test_a_model_is_saved_and_loaded(kind, tmp_path):
    lm = model(kind)
    lm.save(tmp_path / "lm.keras")
    close(keras.models.load_model(tmp_path / "lm.keras")(tokens()), lm(tokens()))


@models
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near(kind, dtype):
    got = model(kind, dtype=dtype)(tokens())
    assert got.dtype == dtype.split("_")[1]
    close(tf.cast(got, "float32"), model(kind)(tokens()), 0.05)


@models
def test_all_weights_learn(kind):
    lm = model(kind)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(lm(tokens()) ** 2)
    gradients = tape.gradient(loss, lm.trainable_variables)
    assert all(g is not None and np.abs(g).max() > 0 for g in map(tf.convert_to_tensor, gradients))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_layers=0), "`n_layers` must be a positive integer"),
        (dict(vocab_size=2.5), "`vocab_size` must be a positive integer"),
        (dict(n_heads=3), "`n_heads` must divide d_model. Received: n_heads=3, d_model=8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    sizes = dict(vocab_size=V, d_model=E, n_layers=2) | changes
    with pytest.raises(ValueError, match=message):
        BaselineConfig(**sizes)


@models
def test_ids_must_be_whole_numbers(kind):
    with pytest.raises(ValueError, match="`token_ids` must hold integer token ids"):
        model(kind).prefill(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one token"):
        model(kind).prefill(np.zeros((2, 0), int))
