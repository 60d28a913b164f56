"""The S6 layer: its formula, the official initialization, carried state, Keras manners."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_mamba_edu import SelectiveSSM
from tf_mamba_edu.selective import DeltaBiasInitializer

B, L, D, N, R = 2, 5, 8, 3, 2


def layer(**options):
    return SelectiveSSM(**({"d_state": N, "dt_rank": R, "method": "recurrent"} | options))


def built(channels=D, **options):
    one = layer(**options)
    one.build((None, None, channels))
    return one


def inputs(seed=0, length=L):
    return np.random.default_rng(seed).normal(size=(B, length, D)).astype("float32")


def close(got, want, tolerance=1e-5):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def softplus(x):
    return np.log1p(np.exp(x))


def spread_evenly(values, low, high):
    """Whether values look drawn from Uniform(low, high) and none lies outside."""
    uniform = scipy.stats.uniform(low, high - low)
    values = np.asarray(values, np.float64).ravel()
    inside = low - 1e-7 <= values.min() and values.max() <= high + 1e-7
    return inside and scipy.stats.kstest(values, uniform.cdf).pvalue > 0.01


# What it computes


def test_the_layer_computes_algorithm_2():
    one, x = built(), inputs().astype("float64")
    low_rank, B_t, C_t = np.split(x @ one.x_proj.kernel.numpy(), [R, R + N], axis=-1)
    delta = softplus(low_rank @ one.dt_proj.kernel.numpy() + one.dt_bias.numpy())
    A, h, y = -np.exp(one.A_log.numpy()), np.zeros((B, D, N)), np.zeros((B, L, D))
    for t in range(L):
        h = np.exp(delta[:, t, :, None] * A) * h
        h += (delta[:, t] * x[:, t])[:, :, None] * B_t[:, t, None, :]
        y[:, t] = (h * C_t[:, t, None, :]).sum(-1) + one.D.numpy() * x[:, t]
    got, state = one(inputs(), return_state=True)
    close(got, y)
    close(state, h)
    close(one.step_sizes(inputs()), delta)


def test_the_methods_agree():
    one, other = built(method="fused"), built()
    other.set_weights(one.get_weights())
    close(one(inputs()), other(inputs()), 1e-6)


def test_step_by_step_equals_the_whole_run():
    one, x = built(), inputs()
    y, last_state = one(x, return_state=True)
    state = one.zero_state(B)
    for t in range(L):
        y_t, state = one.step(x[:, t], state)
        close(y_t, y[:, t], 1e-6)
    close(state, last_state, 1e-6)


@pytest.mark.parametrize("cut", [1, 3])
def test_two_runs_with_a_carried_state_equal_one(cut):
    one, x = built(), inputs()
    y, last_state = one(x, return_state=True)
    first, state = one(x[:, :cut], return_state=True)
    second, state = one(x[:, cut:], initial_state=state, return_state=True)
    close(tf.concat([first, second], axis=1), y, 1e-6)
    close(state, last_state, 1e-6)


def test_every_weight_gets_a_gradient():
    one = built()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(one(inputs()) ** 2)
    gradients = tape.gradient(total, one.trainable_variables)
    assert len(gradients) == 5
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in gradients)


# Initialization, as in the official code


def test_delta_starts_log_uniform_between_its_bounds():
    one = built(channels=4096)
    delta = softplus(one.dt_bias.numpy().astype("float64"))
    assert 1e-3 * (1 - 1e-4) <= delta.min() and delta.max() <= 1e-1 * (1 + 1e-4)
    assert scipy.stats.kstest(delta, scipy.stats.loguniform(1e-3, 1e-1).cdf).pvalue > 0.01


def test_delta_never_starts_below_its_floor():
    bias = DeltaBiasInitializer(1e-6, 1e-5)((100,), "float32")
    close(softplus(bias.numpy().astype("float64")), 1e-4, 1e-8)


def test_A_starts_as_minus_one_to_N_in_every_channel():
    close(-np.exp(built().A_log), np.tile(-np.arange(1.0, N + 1), (D, 1)), 1e-6)


def test_D_starts_as_one():
    np.testing.assert_array_equal(built().D, np.ones(D))


def test_projections_start_uniform():
    one = built(channels=256, dt_rank=4)
    assert spread_evenly(one.dt_proj.kernel, -(4**-0.5), 4**-0.5)
    assert spread_evenly(one.x_proj.kernel, -1 / 16, 1 / 16)
    assert one.dt_proj.bias is None and one.x_proj.bias is None


@pytest.mark.parametrize(("channels", "rank"), [(1, 1), (16, 1), (17, 2), (64, 4)])
def test_automatic_rank_is_a_sixteenth_of_the_channels(channels, rank):
    assert built(channels, dt_rank="auto").dt_proj.kernel.shape == (rank, channels)


def test_parameter_count():
    assert built().count_params() == D * (R + 2 * N) + R * D + D + D * N + D


# Keras manners


def test_mixed_precision_keeps_the_state_and_its_weights_in_float32():
    one = built(dtype="mixed_float16")
    y, state = one(inputs(), return_state=True)
    assert y.dtype == tf.float16 and state.dtype == tf.float32
    assert {v.dtype for v in (one.A_log, one.D, one.dt_bias)} == {"float32"}
    y_t, state = one.step(inputs()[:, 0], state)
    assert y_t.dtype == tf.float16 and state.dtype == tf.float32
    exact = built()
    exact.set_weights(one.get_weights())
    close(tf.cast(y, tf.float32), exact(inputs()), 5e-3)


def test_an_empty_batch_gives_an_empty_result():
    y, state = built()(inputs()[:0], return_state=True)
    assert y.shape == (0, L, D) and state.shape == (0, D, N)


def test_unknown_batch_and_length_in_a_functional_model():
    x = keras.Input((None, D))
    model = keras.Model(x, layer()(x))
    assert model.output_shape == (None, None, D)
    for length in (L, 2):
        assert model(inputs(length=length)).shape == (B, length, D)


def test_compute_output_shape_is_the_input_shape():
    assert layer().compute_output_shape((None, 7, D)) == (None, 7, D)


def test_config_makes_the_same_layer_again():
    own = dict(d_state=5, dt_rank=2, dt_min=0.01, dt_max=0.2, method="recurrent", name="s")
    config = SelectiveSSM(**own, dtype="float64").get_config()
    assert own.items() <= config.items()
    again = SelectiveSSM.from_config(config)
    assert again.get_config() == config and again.compute_dtype == "float64"


def test_a_saved_layer_gives_the_same_output(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), layer()])
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "`d_state` must be a positive integer. Received: d_state=0"),
        ({"d_state": 2.5}, "`d_state` must be a positive integer. Received: d_state=2.5"),
        ({"dt_rank": -1}, "`dt_rank` must be a positive integer. Received: dt_rank=-1"),
        ({"dt_rank": "full"}, "`dt_rank` must be a positive integer. Received: dt_rank='full'"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max. Received: dt_min=0.0"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max. Received: dt_min=0.2, dt_max=0.1"),
        ({"method": "parallel"}, "`method` must be one of .* Received: method='parallel'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, D), int), "`x` must have a floating dtype.* Received: x of dtype int64"),
        (np.full((B, L, D), "a"), "`x` must have a floating dtype.* Received: x of dtype string"),
        (
            np.ones((B, L, D), complex),
            "`x` must have a floating dtype.* Received: x of dtype compl",
        ),
        (np.ones((B, 0, D)), r"`x` must hold at least one step \(L >= 1\).*shape \(2, 0, 8\)"),
        (np.ones((L, D)), r"needs an input of shape \(batch, length, channels\).*\(5, 8\)"),
        (np.ones((1, B, L, D)), r"needs an input of shape \(batch, length, channels\)"),
    ],
)
def test_bad_input_is_named(x, message):
    with pytest.raises(ValueError, match=message):
        layer()(x)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((B, L, D + 1), r"expected axis -1 of input shape to have value 8.*\(2, 5, 9\)"),
        ((L, D), r"expected ndim=3, found ndim=2.*\(5, 8\)"),
    ],
)
def test_input_that_does_not_fit_the_built_layer_is_named(shape, message):
    with pytest.raises(ValueError, match=message):
        built()(np.ones(shape, "float32"))


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="with a known number of channels"):
        layer()(keras.Input((None, None)))


def test_a_state_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"`initial_state` must have shape \(B=2, D=8, N=3\)"):
        built()(inputs(), initial_state=np.zeros((1, D, N)))


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        ((B, L, D), (B, D, N), r"`x` must have shape \(B, D=8\). Received: x of shape \(2, 5, 8\)"),
        ((B, D - 1), (B, D, N), r"`x` must have shape \(B, D=8\). Received: x of shape \(2, 7\)"),
        ((B, D), (1, D, N), r"`state` must have shape \(B=2, D=8, N=3\). Received: state of shape"),
        ((B, D), (B, D), r"`state` must have shape \(B=2, D=8, N=3\). Received: state of shape"),
    ],
)
def test_bad_input_of_a_step_is_named(x, state, message):
    with pytest.raises(ValueError, match=message):
        built().step(np.ones(x, "float32"), np.zeros(state, "float32"))


def test_a_step_on_integers_is_refused():
    with pytest.raises(ValueError, match="`x` must have a floating dtype.* of dtype int64"):
        built().step(np.ones((B, D), int), np.zeros((B, D, N)))
