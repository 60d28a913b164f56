"""The convolution and the Mamba block: formulas, causality, initialization, Keras manners."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tf_mamba_edu import CausalConv1D, MambaBlock, ResidualBlock, SelectiveSSM
from tf_mamba_edu.block import BlockState

B, L, E, D, N, K = 2, 6, 8, 16, 3, 4
SIZES = {"d_state": N, "d_conv": K, "expand": 2, "dt_rank": 2, "method": "recurrent"}


def conv(**options):
    return CausalConv1D(**({"kernel_size": K} | options))


def block(**options):
    return MambaBlock(**(SIZES | options))


def residual(**options):
    keras_options = {k: options.pop(k) for k in ("name", "dtype", "norm_eps") if k in options}
    return ResidualBlock(block=SIZES | options, **keras_options)


LAYERS = {"CausalConv1D": conv, "MambaBlock": block, "ResidualBlock": residual}
layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def built(make, channels=E, **options):
    layer = make(**options)
    layer.build((None, None, channels))
    return layer


def inputs(seed=0, length=L):
    return np.random.default_rng(seed).normal(size=(B, length, E)).astype("float32")


def silu(x):
    return x / (1 + np.exp(-x))


def close(got, want, tolerance=1e-6):
    tf.nest.assert_same_structure(got, want)
    for one, other in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def spread_evenly(values, bound):
    """Whether values look drawn from Uniform(-bound, bound) and none lies outside."""
    values = np.asarray(values, np.float64).ravel()
    inside = np.max(np.abs(values)) <= bound + 1e-7
    uniform = scipy.stats.uniform(-bound, 2 * bound)
    return inside and scipy.stats.kstest(values, uniform.cdf).pvalue > 0.01


# What they compute


@pytest.mark.parametrize("width", [1, 2, 4, 9])
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_convolution_sums_the_last_inputs_of_each_channel(width, use_bias):
    layer, x = built(conv, kernel_size=width, use_bias=use_bias), inputs()
    bias = layer.bias.numpy() if use_bias else np.zeros(E)
    want = [
        [np.convolve(x[b, :, d], layer.kernel.numpy()[::-1, d])[:L] + bias[d] for d in range(E)]
        for b in range(B)
    ]
    close(layer(x), np.transpose(want, (0, 2, 1)))


def test_the_convolution_equals_the_depthwise_layer_of_keras():
    layer, x = built(conv), inputs()
    reference = keras.layers.DepthwiseConv1D(K, padding="valid")
    padded = np.pad(x, ((0, 0), (K - 1, 0), (0, 0)))
    reference.build(padded.shape)
    reference.set_weights([layer.kernel.numpy()[:, :, None], layer.bias.numpy()])
    close(layer(x), reference(padded))


def test_the_block_computes_figure_3():
    layer, u = built(block), inputs()
    x, z = np.split(u @ layer.in_proj.kernel.numpy(), 2, axis=-1)
    y = layer.ssm(silu(layer.conv(x).numpy())).numpy()
    close(layer(u), (y * silu(z)) @ layer.out_proj.kernel.numpy())


def test_the_residual_block_adds_its_input_to_the_block_of_the_normalized():
    layer, x = built(residual, norm_eps=0.1), inputs()
    layer.norm.scale.assign(np.linspace(0.5, 2, E))
    norm = x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 0.1) * np.linspace(0.5, 2, E)
    close(layer(x), x + layer.block(norm.astype("float32")).numpy(), 1e-5)


@layers
def test_step_by_step_equals_the_whole_run(make):
    layer, x = built(make), inputs()
    y, last_state = layer(x, return_state=True)
    close(layer(x), y)
    state = layer.zero_state(B)
    for t in range(L):
        y_t, state = layer.step(x[:, t], state)
        close(y_t, y[:, t])
    close(state, last_state)


@layers
@pytest.mark.parametrize("cut", [1, 4])
def test_two_runs_with_a_carried_state_equal_one(make, cut):
    layer, x = built(make), inputs()
    y, last_state = layer(x, return_state=True)
    first, state = layer(x[:, :cut], return_state=True)
    second, last = layer(x[:, cut:], initial_state=state, return_state=True)
    close(tf.concat([first, second], axis=1), y)
    close(last, last_state)
    close(layer(x[:, cut:], initial_state=state), second)


@layers
def test_the_state_does_not_grow(make):
    layer = built(make)
    shapes = []
    for length in (1, L):
        _, state = layer(inputs(length=length), return_state=True)
        shapes.append([part.shape for part in tf.nest.flatten(state)])
    assert shapes[0] == shapes[1] == [part.shape for part in tf.nest.flatten(layer.zero_state(B))]


@pytest.mark.parametrize(("make", "reach"), [(conv, K), (block, L), (residual, L)], ids=LAYERS)
def test_no_output_depends_on_a_later_input(make, reach):
    layer, x = built(make), tf.constant(inputs())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = [tf.reduce_sum(y_t**2) for y_t in tf.unstack(layer(x), axis=1)]
    for t, y_t in enumerate(outputs):
        size = np.abs(tape.gradient(y_t, x)).max(axis=(0, 2))  # of d y_t / d x_s, for each s
        seen = np.arange(L) <= t
        assert not np.any(size[~seen])
        assert np.all(size[seen & (np.arange(L) > t - reach)] > 0)


@layers
def test_every_weight_gets_a_gradient(make):
    layer = built(make)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(inputs()) ** 2)
    gradients = tape.gradient(total, layer.trainable_variables)
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in gradients)


# Initialization, as in the official code


def test_projections_start_uniform_and_out_proj_smaller_in_a_deep_model():
    layer = built(block, channels=64, n_layers=9)
    assert spread_evenly(layer.in_proj.kernel, 64**-0.5)
    assert spread_evenly(layer.out_proj.kernel, 128**-0.5 / 3)
    assert layer.in_proj.bias is None and layer.out_proj.bias is None


def test_the_convolution_starts_uniform():
    layer = built(conv, channels=512)
    assert spread_evenly(layer.kernel, K**-0.5)
    assert spread_evenly(layer.bias, K**-0.5)


def test_the_ssm_of_a_block_gets_its_options():
    layer = built(block, dt_min=0.02, dt_max=0.03)
    delta = np.log1p(np.exp(layer.ssm.dt_bias))
    assert isinstance(layer.ssm, SelectiveSSM)
    assert layer.ssm.A_log.shape == (D, N) and layer.ssm.dt_proj.kernel.shape == (2, D)
    assert np.all((delta > 0.0199) & (delta < 0.0301)) and layer.ssm.method == "recurrent"


def test_automatic_rank_is_a_sixteenth_of_the_models_width():
    layer = built(block, channels=33, dt_rank="auto")
    assert layer.ssm.dt_proj.kernel.shape == (3, 66)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("conv_bias", [False, True])
def test_parameter_count(bias, conv_bias):
    ssm = D * (2 + 2 * N) + 2 * D + D + D * N + D
    projections = E * 2 * D + D * E + bias * (2 * D + E)
    want = ssm + projections + K * D + conv_bias * D
    assert built(block, bias=bias, conv_bias=conv_bias).count_params() == want
    assert built(residual, bias=bias, conv_bias=conv_bias).count_params() == want + E


# Another layer in place of the SSM


def gru(**options):
    return keras.layers.GRU(D, return_sequences=True, name="gru", **options)


def test_a_block_runs_the_layer_that_it_is_given():
    inner = gru()
    layer, u = built(block, ssm=inner), inputs()
    x, z = np.split(u @ layer.in_proj.kernel.numpy(), 2, axis=-1)
    y = inner(silu(layer.conv(x).numpy())).numpy()
    assert layer.ssm is inner
    close(layer(u), (y * silu(z)) @ layer.out_proj.kernel.numpy())


@pytest.mark.parametrize("make", [block, residual])
def test_a_saved_block_keeps_the_layer_that_it_was_given(make, tmp_path):
    model = keras.Sequential([keras.Input((None, E)), make(ssm=gru())])
    model.save(tmp_path / "block.keras")
    loaded = keras.saving.load_model(tmp_path / "block.keras")
    close(loaded(inputs()), model(inputs()), 0)
    inner = loaded.layers[0].ssm if make is block else loaded.layers[0].block.ssm
    assert isinstance(inner, keras.layers.GRU) and inner.units == D


# Keras manners


@layers
def test_an_empty_batch_gives_an_empty_result(make):
    y, state = built(make)(inputs()[:0], return_state=True)
    assert y.shape == (0, L, E)
    assert all(part.shape[0] == 0 for part in tf.nest.flatten(state))


@layers
def test_unknown_batch_and_length_in_a_functional_model(make):
    x = keras.Input((None, E))
    model = keras.Model(x, make()(x))
    assert model.output_shape == (None, None, E)
    for length in (L, 2):
        assert model(inputs(length=length)).shape == (B, length, E)


@layers
def test_compute_output_shape_is_the_input_shape(make):
    assert make().compute_output_shape((None, 7, E)) == (None, 7, E)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CausalConv1D, {"kernel_size": 3, "use_bias": False}),
        (MambaBlock, SIZES | {"dt_min": 0.01, "dt_max": 0.2, "conv_bias": False, "n_layers": 3}),
        (MambaBlock, {"bias": True, "dt_rank": "auto", "expand": 1}),
        (ResidualBlock, {"norm_eps": 1e-3, "block": SIZES, "dropout": 0.25}),
    ],
)
def test_config_makes_the_same_layer_again(kind, options):
    layer = kind(**options, name="some", dtype="float64")
    config = layer.get_config()
    assert options.items() <= config.items() and config["name"] == "some"
    again = kind.from_config(config)
    assert again.get_config() == config and again.compute_dtype == "float64"


def test_the_config_of_a_built_block_does_not_hold_its_own_ssm():
    assert built(block).get_config()["ssm"] is None


@layers
def test_a_saved_layer_gives_the_same_output(make, tmp_path):
    model = keras.Sequential([keras.Input((None, E)), make()])
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    close(loaded(inputs()), model(inputs()), 0)


def test_mixed_precision_keeps_the_residual_sum_and_the_state_in_float32():
    layer = built(residual, dtype="mixed_bfloat16")
    y, state = layer(inputs(), return_state=True)
    assert y.dtype == tf.float32 and state.ssm.dtype == tf.float32
    assert layer.block(inputs()).dtype == tf.bfloat16
    y_t, state = layer.step(inputs()[:, 0], state)
    assert y_t.dtype == tf.float32 and state.ssm.dtype == tf.float32


# Bad input


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (conv, {"kernel_size": 0}, "`kernel_size` must be a positive integer. Received: kern"),
        (block, {"d_state": 0}, "`d_state` must be a positive integer. Received: d_state=0"),
        (block, {"d_conv": 1.0}, "`d_conv` must be a positive integer. Received: d_conv=1.0"),
        (block, {"expand": "2"}, "`expand` must be a positive integer. Received: expand='2'"),
        (block, {"n_layers": True}, "`n_layers` must be a positive integer. Received: n_layers=T"),
        (block, {"dt_rank": 0}, "`dt_rank` must be a positive integer. Received: dt_rank=0"),
        (block, {"dt_min": 1.0}, "0 < dt_min <= dt_max. Received: dt_min=1.0, dt_max=0.1"),
        (block, {"method": "parallel"}, "`method` must be .* Received: method='parallel'"),
        (residual, {"d_state": -1}, "`d_state` must be a positive integer. Received: d_state=-1"),
    ],
)
def test_bad_arguments_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@layers
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, E), int), "must have a floating dtype.* of dtype int64"),
        (np.full((B, L, E), "a"), "must have a floating dtype.* of dtype string"),
        (np.ones((B, L, E), complex), "must have a floating dtype.* of dtype complex128"),
        (np.ones((B, 0, E)), r"must hold at least one step \(L >= 1\).* of shape \(2, 0, 8\)"),
        (np.ones((L, E)), r"needs an input of shape \(batch, length, channels\).*\(6, 8\)"),
        (np.ones((1, B, L, E)), r"needs an input of shape \(batch, length, channels\).*2, 6, 8\)"),
    ],
)
def test_bad_input_is_named(make, x, message):
    with pytest.raises(ValueError, match=message):
        make()(x)


@layers
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((B, L, E + 1), r"expected axis -1 of input shape to have value 8.*\(2, 6, 9\)"),
        ((L, E), r"expected ndim=3, found ndim=2.*\(6, 8\)"),
    ],
)
def test_input_that_does_not_fit_the_built_layer_is_named(make, shape, message):
    with pytest.raises(ValueError, match=message):
        built(make)(np.ones(shape, "float32"))


@layers
def test_unknown_channels_are_refused(make):
    with pytest.raises(ValueError, match="with a known number of channels"):
        make()(keras.Input((None, None)))


def test_carried_inputs_that_do_not_fit_the_convolution_are_named():
    message = r"`initial_state` must have shape \(B=2, K-1=3, D=8\). Received: .* \(2, 2, 8\)"
    with pytest.raises(ValueError, match=message):
        built(conv)(inputs(), initial_state=np.zeros((B, K - 2, E), "float32"))


@pytest.mark.parametrize("make", [block, residual])
def test_a_state_that_is_no_block_state_is_named(make):
    with pytest.raises(ValueError, match="`initial_state` must be a BlockState"):
        built(make)(inputs(), initial_state=np.zeros((B, D, N)))


@pytest.mark.parametrize("make", [block, residual])
@pytest.mark.parametrize(
    ("conv_shape", "ssm_shape", "message"),
    [
        ((B, K, D), (B, D, N), r"`initial_state` must have shape \(B=2, K-1=3, D=16\)"),
        ((B, K - 1, D), (B + 1, D, N), r"`initial_state` must have shape \(B=2, D=16, N=3\)"),
    ],
)
def test_a_block_state_that_does_not_fit_is_named(make, conv_shape, ssm_shape, message):
    state = BlockState(tf.zeros(conv_shape), tf.zeros(ssm_shape))
    with pytest.raises(ValueError, match=message):
        built(make)(inputs(), initial_state=state)


@layers
@pytest.mark.parametrize("shape", [(B, L, E), (B, E + 1)])
def test_a_step_on_a_wrong_shape_is_named(make, shape):
    layer = built(make)
    message = r"must have shape \(B, [DE]=8\). Received: \w of shape \(2, "
    with pytest.raises(ValueError, match=message):
        layer.step(np.ones(shape, "float32"), layer.zero_state(B))


@layers
def test_a_step_on_integers_is_named(make):
    layer = built(make)
    with pytest.raises(ValueError, match="must have a floating dtype.* of dtype int64"):
        layer.step(np.ones((B, E), int), layer.zero_state(B))


@layers
def test_a_step_with_the_state_of_another_batch_is_named(make):
    layer = built(make)
    with pytest.raises(ValueError, match=r"`state` must have shape \(B=2, K-1=3.*\(3, 3, "):
        layer.step(inputs()[:, 0], layer.zero_state(B + 1))


# Dropout


def test_a_channel_is_dropped_for_the_whole_sequence():
    keras.utils.set_random_seed(0)
    x = inputs(length=40)
    layer = ResidualBlock(block=SIZES, dropout=0.5)
    kept = layer(x) - x
    added = layer(x, training=True) - x
    dropped = np.abs(added) < 1e-7  # (B, L, E)
    np.testing.assert_array_equal(dropped.all(1), dropped.any(1))
    assert 0 < dropped[:, 0].sum() < B * E
    close(np.where(dropped, 0, added), np.where(dropped, 0, 2 * kept), 1e-5)
    again = layer(x, training=True) - x
    assert (dropped != (np.abs(again) < 1e-7)).any()
    close(layer(x, training=False), x + kept)


def test_without_dropout_training_changes_nothing():
    layer = ResidualBlock(block=SIZES)
    close(layer(inputs(), training=True), layer(inputs()), 0)
    y, state = layer(inputs(), return_state=True, training=True)
    close((y, state), layer(inputs(), return_state=True), 0)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "half", None])
def test_a_rate_of_dropout_is_a_share(rate):
    wanted = f"`dropout` must be a number from 0 to below 1. Received: dropout={rate!r}"
    with pytest.raises(ValueError) as caught:
        ResidualBlock(dropout=rate)
    assert str(caught.value) == wanted
