"""The failure museum: wrong code fails as the book shows, and the package's own code does not."""

import math
import re
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import (
    CausalConv1D,
    MambaAdamW,
    MambaBlock,
    MambaConfig,
    MambaLM,
    SelectiveSSM,
    failure_museum,
    king_james_bible,
    selective_scan,
)
from tf_mamba_edu.failure_museum import (
    GrowingSSM,
    SameConv1D,
    cumulative_sum_scan,
    decay_everything,
    random_window_split,
    scan_by_keras,
    softmax_head,
    zero_all_biases,
)
from tf_mamba_edu.scan.associative import linear_recurrence
from tf_mamba_edu.training import consecutive_windows, random_windows

ROOT = Path(__file__).resolve().parent.parent
LOGITS = {"from_logits": True}
METHODS = ["recurrent", "associative", "fused"]


def built(layer, channels=64):
    layer.build((None, None, channels))
    return layer


# 1. Two cumulative sums


def scan_error(scan, length):
    """The worst error against a loop in float64, as a share of the largest output."""
    layer = built(SelectiveSSM())
    x = np.random.default_rng(0).normal(size=(1, length, 64)).astype("float32")
    delta, (_, B, C) = layer.step_sizes(x), layer.select(x)
    inputs = [np.asarray(t) for t in (x, delta, -tf.exp(layer.A_log), B, C)]
    x, delta, A, B, C = (t.astype("float64") for t in inputs)
    h, truth = np.zeros(A.shape), []
    for t in range(length):
        h = np.exp(delta[0, t, :, None] * A) * h + (delta * x)[0, t, :, None] * B[0, t]
        truth.append(h @ C[0, t])
    return np.abs(scan(*inputs)[0] - truth).max() / np.abs(truth).max()


def test_two_sums_are_right_when_short():
    assert scan_error(cumulative_sum_scan, 8) < 1e-5
    assert scan_error(cumulative_sum_scan, 256) > 0.3
    assert scan_error(cumulative_sum_scan, 2048) > 0.3


def test_two_cumulative_sums_without_epsilon_are_no_numbers():
    found = scan_error(lambda *inputs: cumulative_sum_scan(*inputs, epsilon=0.0), 2048)
    assert np.isnan(found)


@pytest.mark.parametrize("method", METHODS)
def test_the_scans_of_the_package_are_right_for_long_sequences(method):
    assert scan_error(lambda *inputs: selective_scan(*inputs, method=method), 512) < 1e-5


# 2. A convolution that sees the future


def how_far_ahead(layer, channels=6, length=12):
    """How many steps after t an output at t depends on; 0 for a causal layer."""
    built(layer, channels)
    x = tf.random.stateless_normal((1, length, channels), seed=(0, 0))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = tf.unstack(layer(x), axis=1)
    reached = [np.flatnonzero(np.any(tape.gradient(y, x)[0] != 0, axis=-1)) for y in outputs]
    return max(places.max() - t for t, places in enumerate(reached))


@pytest.mark.parametrize(("kernel_size", "ahead"), [(2, 1), (3, 1), (4, 2)])
def test_padding_same_sees_the_future(kernel_size, ahead):
    assert how_far_ahead(SameConv1D(kernel_size)) == ahead
    keras_same = keras.layers.DepthwiseConv1D(kernel_size, padding="same")
    assert how_far_ahead(keras_same) == ahead
    assert how_far_ahead(CausalConv1D(kernel_size)) == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_block_of_the_package_does_not_see_the_future(method):
    assert how_far_ahead(MambaBlock(d_state=4, method=method)) == 0


def loss_on_noise(convolution, vocab_size=16, steps=100):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, vocab_size, (32 * steps + 256, 33))
    model = keras.Sequential(
        [
            keras.layers.Embedding(vocab_size, 32),
            convolution,
            keras.layers.Activation("silu"),
            keras.layers.Dense(vocab_size),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(**LOGITS)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(noise[256:, :-1], noise[256:, 1:], verbose=0)
    return model.evaluate(noise[:256, :-1], noise[:256, 1:], verbose=0)


def test_who_sees_the_future_learns_noise():
    assert loss_on_noise(CausalConv1D()) > math.log(16) - 0.01
    assert loss_on_noise(SameConv1D()) < 1


# 3. The lost minus sign


def outputs_and_gradients_are_finite(layer, length):
    x = tf.random.stateless_normal((2, length, 64), seed=(0, 1))
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_mean(y**2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    return all(np.isfinite(t).all() for t in (y, *gradients))


def test_without_the_sign_states_overflow():
    stable, growing = built(SelectiveSSM()), built(GrowingSSM())
    growing.set_weights(stable.get_weights())
    assert outputs_and_gradients_are_finite(growing, 16)
    assert not outputs_and_gradients_are_finite(growing, 128)
    assert outputs_and_gradients_are_finite(stable, 256)


def test_no_value_of_the_weight_makes_the_package_overflow():
    layer = built(SelectiveSSM())
    for value in (-20.0, 0.0, 20.0):
        layer.A_log.assign(tf.fill(layer.A_log.shape, value))
        assert outputs_and_gradients_are_finite(layer, 256)


# 4. All biases to zero


def symbol_then_noise(count, length=64):
    """One of eight symbols, noise, and at the end the question which one it was."""
    symbols = np.random.default_rng(0).integers(2, 10, count)
    tokens = np.zeros((count, length), "int32")
    tokens[:, 0], tokens[:, -1] = symbols, 1
    return tokens, symbols - 2


def reader(spoil):
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32")
    normal = keras.initializers.RandomNormal(stddev=1.0)
    x = keras.layers.Embedding(10, 32, normal)(ids)
    y = keras.layers.RMSNormalization()(SelectiveSSM()(x)[:, -1])
    model = keras.Model(ids, keras.layers.Dense(8)(y))
    if spoil:
        zero_all_biases(model)
    return model


def far_over_near(model):
    """The gradient at the first of 64 tokens, as a share of the one at the last."""
    tokens, symbols = symbol_then_noise(64)
    behind = keras.Model(model.layers[1].output, model.output)
    x = model.layers[1](tokens)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = keras.losses.sparse_categorical_crossentropy(symbols, behind(x), **LOGITS)
    size = np.sqrt(np.mean(tape.gradient(loss, x) ** 2, axis=(0, 2)))
    return size[0] / size[-1]


def test_zero_biases_cut_far_gradients():
    assert far_over_near(reader(spoil=True)) < 1e-12
    assert far_over_near(reader(spoil=False)) > 1e-5


def test_zero_biases_learn_nothing_far():
    found = []
    for spoil in (False, True):
        model = reader(spoil)
        loss = keras.losses.SparseCategoricalCrossentropy(**LOGITS)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        tokens, symbols = symbol_then_noise(32 * 100)
        model.fit(tokens, symbols, verbose=0)
        found.append(model.evaluate(tokens[:256], symbols[:256], verbose=0)[1])
    assert found[0] > 0.9 and found[1] < 0.35


def test_zeroed_biases_spoil_delta_in_every_block_of_a_model():
    lm = MambaLM(MambaConfig(7, 16, 2, d_state=2), method="recurrent")
    tokens = np.arange(14).reshape(2, 7) % 7
    fresh = [np.median(delta) for delta in lm.step_sizes(tokens)]
    zero_all_biases(lm)
    spoiled = [np.median(delta) for delta in lm.step_sizes(tokens)]
    assert max(fresh) < 0.1 and min(spoiled) > 0.5


# 5. Weight decay on time scales

TIME_SCALES = ["A_log", "D", "dt_bias"]


def kept(optimizer, steps=20):
    """What 20 steps without a gradient leave of each weight of a layer."""
    layer = built(SelectiveSSM())
    weights = layer.trainable_variables
    before = [w.numpy() for w in weights]
    optimizer.build(weights)
    for _ in range(steps):
        optimizer.apply([tf.zeros_like(w) for w in weights], weights)
    return {
        w.path: np.linalg.norm(w) / np.linalg.norm(old)
        for w, old in zip(weights, before, strict=True)
    }


def test_plain_adamw_decays_time_scales():
    found = kept(decay_everything(0.1, weight_decay=0.1))
    assert all(left == pytest.approx(0.99**20, rel=1e-3) for left in found.values())


def test_mamba_adamw_spares_time_scales():
    for path, left in kept(MambaAdamW(0.1, weight_decay=0.1)).items():
        wanted = 1.0 if path.split("/")[-1] in TIME_SCALES else 0.99**20
        assert left == pytest.approx(wanted, rel=1e-3), path


def test_decay_shortens_the_longest_memory():
    layer = built(SelectiveSSM())
    longest = 1 / np.log1p(np.exp(layer.dt_bias)).min()
    optimizer = decay_everything(1.0, weight_decay=0.1)
    optimizer.build([layer.dt_bias])
    for _ in range(10):  # e to the -1 of the bias is left
        optimizer.apply([tf.zeros_like(layer.dt_bias)], [layer.dt_bias])
    assert 1 / np.log1p(np.exp(layer.dt_bias)).min() < longest / 20


# 6. Windows split at random


def share_leaked(train, validation):
    return np.isin(np.unique(validation), train).mean()


def test_windows_at_random_share_words():
    places = np.arange(10_000)
    assert share_leaked(*random_window_split(places, 128)) > 0.99
    assert share_leaked(*random_window_split(places, 128, stride=64)) > 0.6
    assert share_leaked(*random_window_split(places, 128, stride=128)) == 0


def test_our_windows_share_nothing():
    places = np.arange(10_000)
    parts = places[:3000], places[3000:4000], places[4000:]
    train, _ = random_windows([parts[0], parts[2]], 128, 2000, seed=0)
    validation, targets = consecutive_windows([parts[1]], 128)
    assert share_leaked(train, validation) == share_leaked(train, targets) == 0
    assert len(np.unique(validation)) == validation.size


def test_blocks_of_the_bible_are_not_in_its_training_part():
    bible, width = king_james_bible(), 20

    def runs(passages):
        for passage in passages:
            words = passage.split()
            yield from (tuple(words[i : i + width]) for i in range(len(words) - width))

    known = set(runs(bible.train))
    held_out = list(runs(bible.validation[:3]))
    repeated = np.mean([run in known for run in held_out])
    assert len(held_out) > 5000 and repeated < 0.05  # the text repeats itself a little


def two_word_loss(train, validation, vocab_size):
    """Loss of the third word after two, of counts smoothed with the unigram's."""
    alone, behind = Counter(train), defaultdict(Counter)
    for a, b, c in zip(train, train[1:], train[2:], strict=False):
        behind[a, b][c] += 1
    total = []
    for a, b, c in zip(validation, validation[1:], validation[2:], strict=False):
        p = (alone[c] + 1) / (len(train) + vocab_size)
        seen = behind.get((a, b), Counter())
        kinds = len(seen)
        if kinds:
            p = (seen[c] + kinds * p) / (sum(seen.values()) + kinds)
        total.append(-math.log(p))
    return np.mean(total)


def test_windows_at_random_flatter_counts():
    words = king_james_bible().train[0].split()
    number = {word: i for i, word in enumerate(sorted(set(words)))}
    text = np.array([number[word] for word in words])
    places = np.arange(len(text))
    train, validation = random_window_split(places, 128)
    leaky = two_word_loss(
        text[np.unique(train)].tolist(), text[np.unique(validation)].tolist(), len(number)
    )
    cut = len(text) * 7 // 10
    honest = two_word_loss(text[:cut].tolist(), text[cut:].tolist(), len(number))
    assert leaky < 2.5 and honest > 4.5


# 7. A softmax too many


def floor(vocab_size):
    return math.log(1 + (vocab_size - 1) / math.e)


@pytest.mark.parametrize("vocab_size", [2, 16, 2000])
def test_a_softmax_too_many_has_a_floor(vocab_size):
    dense, reshape = softmax_head(vocab_size)
    sure = np.zeros((1, 3, 4), "float32")
    sure[..., 0] = 1
    dense.build(sure.shape)
    kernel = np.zeros(dense.kernel.shape)
    kernel[0, 0] = 100.0  # all probability on token 0
    dense.kernel.assign(kernel)
    loss = keras.losses.SparseCategoricalCrossentropy(**LOGITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras sees nothing
        found = float(loss(np.zeros((1, 3)), reshape(dense(sure))))
    assert found == pytest.approx(floor(vocab_size), rel=1e-5)


def final_loss(*head, V=16, steps=60):
    tokens = np.random.default_rng(0).integers(0, V, (32 * steps, 8))
    model = keras.Sequential([keras.Input((8,), dtype="int32"), keras.layers.Embedding(V, 32)])
    for layer in head:
        model.add(layer)
    loss = keras.losses.SparseCategoricalCrossentropy(**LOGITS)
    model.compile(keras.optimizers.Adam(0.03), loss)
    model.fit(tokens, (5 * tokens + 3) % V, verbose=0)
    return model.evaluate(tokens[:64], (5 * tokens[:64] + 3) % V, verbose=0)


def test_training_with_a_softmax_too_many_stops_at_the_floor():
    assert final_loss(*softmax_head(16)) == pytest.approx(floor(16), abs=0.01)
    assert final_loss(keras.layers.Dense(16)) < 0.01


def test_the_package_returns_logits():
    lm = MambaLM(MambaConfig(7, 8, 1, d_state=2), method="recurrent")
    lm.embedding.embeddings.assign(10 * lm.embedding.embeddings)
    logits = lm(np.arange(10).reshape(2, 5) % 7).numpy()
    assert logits.min() < 0
    assert np.abs(logits.sum(-1) - 1).max() > 0.1


# 8. A scan that does not compile


def steps_of(length):
    a, b = np.random.default_rng(length).uniform(size=(2, length, 3)).astype("float32")
    h, truth = 0, []
    for t in range(length):
        h = a[t] * h + b[t]
        truth.append(h)
    return tf.constant(a), tf.constant(b), np.array(truth)


def is_right(scan, length):
    a, b, truth = steps_of(length)
    return np.allclose(scan(a, b), truth, atol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 4, 7, 16])
def test_keras_scan_is_right_in_eager_mode(length):
    assert is_right(scan_by_keras, length)


@pytest.mark.skipif(keras.__version__ != "3.15.1", reason="seen in Keras 3.15.1")
def test_keras_scan_fails_under_xla():
    compiled = tf.function(scan_by_keras, jit_compile=True, reduce_retracing=False)
    assert is_right(compiled, 2) and is_right(compiled, 3)
    for length in (4, 5, 8):
        with pytest.raises(tf.errors.InvalidArgumentError, match="concatenate"):
            compiled(*steps_of(length)[:2])


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 33])
def test_the_scan_of_the_package_compiles(length):
    assert is_right(tf.function(linear_recurrence, jit_compile=True), length)


# The page


def test_the_page_names_tests_that_exist_and_shows_every_wrong_code():
    page = (ROOT / "book" / "failure_museum.md").read_text("utf-8")
    named = set(re.findall(r"\btest_[a-z_0-9]+\b(?!\.py)", page))
    assert len(named) >= 10 and named <= set(globals()), named - set(globals())
    for name, value in vars(failure_museum).items():
        if getattr(value, "__module__", "") == failure_museum.__name__:
            assert f"`{name}`" in page or f"failure_museum.{name}\n" in page, name
