"""One linear map, three ways: recurrence, convolution and continuous system; and its layer."""

import functools
import json
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mamba_edu import LSSL, ContinuousSSM, MambaBlock, zoh
from tf_mamba_edu.lti import (
    convolve_direct,
    convolve_fft,
    fast_kernel,
    run_recurrence,
    ssm_kernel,
)

B, L, D, N = 3, 7, 4, 2
CONVOLUTIONS = {"direct": convolve_direct, "fft": convolve_fft}
convolutions = pytest.mark.parametrize("convolve", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
precisions = pytest.mark.parametrize("dtype", TOLERANCE)
some = settings(max_examples=12)  # each runs step by step, eagerly


def close(got, want, tolerance=1e-5):
    """Equal up to a share of the largest value: an FFT promises no more."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    assert got.shape == want.shape
    scale = np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def stable_matrices(rng, channels=D, states=N):
    """(A, B, C) of `channels` continuous systems that swing and fade, float64."""
    S = rng.normal(size=(channels, states, states))
    decay = np.eye(states) * rng.uniform(0.05, 2.0, (channels, states, 1))
    vectors = rng.normal(size=(2, channels, states))
    return S - np.swapaxes(S, 1, 2) - decay, *vectors


@functools.cache
def discrete_matrices(seed=0, states=N, dtype="float64"):
    """(A_bar, B_bar, C) of D channels, as arrays."""
    A, B_vector, C = stable_matrices(np.random.default_rng(seed), states=states)
    system = *zoh(A, B_vector, 0.3, diagonal=False), C
    return tuple(np.asarray(m).astype(dtype) for m in system)


def inputs(batch=B, length=L, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, length, D)).astype(dtype)


# Three views of one map


@st.composite
def cases(draw):
    """Sizes, a step and a seed for everything else."""
    sizes = {"batch": (1, 3), "length": (1, 40), "channels": (1, 3), "states": (1, 4)}
    drawn = {name: draw(st.integers(*bounds)) for name, bounds in sizes.items()}
    return drawn, draw(st.floats(0.01, 1.0)), draw(st.integers(0, 2**32 - 1))


def continuous_outputs(A, B_vector, C, delta, x, state):
    """(y, last_state) of each channel by `ContinuousSSM.simulate`, float64."""
    y, last_state = np.empty_like(x), np.empty_like(state)
    for b, d in np.ndindex(state.shape[:2]):
        system = ContinuousSSM(A[d], B_vector[d], C[d])
        y[b, :, d], states = system.simulate(x[b, :, d], delta[d], state[b, d])
        last_state[b, d] = states[-1]
    return y, last_state


@precisions
@some
@given(case=cases())
def test_recurrence_convolution_and_continuous_system_agree(dtype, case):
    sizes, delta, seed = case
    rng = np.random.default_rng(seed)
    matrices = stable_matrices(rng, sizes["channels"], sizes["states"])
    delta = delta * rng.uniform(0.5, 1.0, sizes["channels"])
    x = rng.normal(size=(sizes["batch"], sizes["length"], sizes["channels"]))
    state = np.zeros((sizes["batch"], sizes["channels"], sizes["states"]))
    want, want_state = continuous_outputs(*matrices, delta, x, state)

    A, B_vector, C, steps, u = (v.astype(dtype) for v in (*matrices, delta, x))
    A_bar, B_bar = zoh(A, B_vector, steps, diagonal=False)
    recurrent, last_state = run_recurrence(u, A_bar, B_bar, C)
    kernel = fast_kernel(A_bar, B_bar, C, sizes["length"])
    assert recurrent.dtype == last_state.dtype == kernel.dtype == dtype
    for y in (recurrent, convolve_direct(u, kernel), convolve_fft(u, kernel)):
        close(y, want, TOLERANCE[dtype])
    close(last_state, want_state, TOLERANCE[dtype])


def test_an_initial_state_counts_as_in_the_continuous_system():
    rng = np.random.default_rng(1)
    matrices, delta = stable_matrices(rng), np.full(D, 0.2)
    x, state = inputs(dtype="float64"), rng.normal(size=(B, D, N))
    A_bar, B_bar = zoh(*matrices[:2], delta, diagonal=False)
    y, last_state = run_recurrence(x, A_bar, B_bar, matrices[2], state)
    want, want_state = continuous_outputs(*matrices, delta, x, state)
    close(y, want, 1e-12)
    close(last_state, want_state, 1e-12)


@pytest.mark.parametrize("cut", [1, 4, L - 1])
def test_a_run_may_be_split_anywhere(cut):
    system, x = discrete_matrices(), inputs(dtype="float64")
    y, last_state = run_recurrence(x, *system)
    first, state = run_recurrence(x[:, :cut], *system)
    second, state = run_recurrence(x[:, cut:], *system, initial_state=state)
    close(tf.concat([first, second], 1), y, 1e-14)
    close(state, last_state, 1e-14)


# The kernel


def oracle_kernel(A_bar, B_bar, C, length):
    """C A_bar^k B_bar by matrix powers, float64."""
    A_bar, B_bar, C = (np.asarray(m, np.float64) for m in (A_bar, B_bar, C))
    powers = [np.linalg.matrix_power(A_bar, k) for k in range(length)]
    return np.stack([np.einsum("dn,dnm,dm->d", C, power, B_bar) for power in powers], 1)


@precisions
@pytest.mark.parametrize("kernel", [ssm_kernel, fast_kernel])
@pytest.mark.parametrize("states", [1, 5])
def test_a_kernel_holds_the_powers_of_A_bar(kernel, dtype, states):
    system = discrete_matrices(2, states=states, dtype=dtype)
    got = kernel(*system, 50)
    assert got.dtype == dtype
    close(got, oracle_kernel(*system, 50), TOLERANCE[dtype])


def test_the_fast_kernel_equals_the_slow_one_for_every_length():
    system = discrete_matrices(3)
    whole = ssm_kernel(*system, 1025)
    for length in (*range(1, 41), 63, 64, 65, 100, 1023, 1024, 1025):
        kernel = fast_kernel(*system, length)
        assert kernel.shape == (D, length)
        close(kernel, whole[:, :length], 1e-12)


@pytest.mark.parametrize("kernel", [ssm_kernel, fast_kernel])
def test_a_kernel_is_the_answer_to_an_impulse(kernel):
    system, impulse = discrete_matrices(4), np.zeros((1, 20, D))
    impulse[:, 0] = 1.0
    answer, _ = run_recurrence(impulse, *system)
    close(kernel(*system, 20), tf.transpose(answer[0]), 1e-12)


def test_A_bar_stands_left_of_B_bar():
    A_bar = np.array([[[0.0, 1.0], [0.0, 0.0]]])  # moves the second number to the first place
    B_bar, C = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    want = np.array([[0.0, 1.0, 0.0]])
    for kernel in (ssm_kernel, fast_kernel):
        close(kernel(A_bar, B_bar, C, 3), want)
    close(run_recurrence(np.array([[[1.0], [0.0], [0.0]]]), A_bar, B_bar, C)[0][..., 0], want)


# Convolution


@convolutions
@precisions
@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 31, 97])
def test_a_convolution_is_that_of_numpy_cut_to_the_length(convolve, dtype, length):
    x, kernel = inputs(length=length, dtype=dtype), inputs(1, length, 1, dtype)[0].T
    want = np.empty(x.shape)
    for b, d in np.ndindex(B, D):
        full = np.convolve(x[b, :, d].astype(float), kernel[d].astype(float))
        want[b, :, d] = full[:length]
    got = convolve(x, kernel)
    assert got.dtype == dtype
    close(got, want, TOLERANCE[dtype])


def convolved(x, method="fft"):
    return CONVOLUTIONS[method](x, fast_kernel(*discrete_matrices(), x.shape[1]))


VIEWS = {
    "recurrence": lambda x: run_recurrence(x, *discrete_matrices())[0],
    "direct": lambda x: convolved(x, "direct"),
    "fft": convolved,
}
views = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def jacobian(view, length=6):
    """(L, D, L, D): how each output depends on each input."""
    x = tf.constant(inputs(1, length, dtype="float64"))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = view(x)
    return tape.jacobian(y, x, experimental_use_pfor=False).numpy()[0, :, :, 0]


@views
def test_no_output_depends_on_a_later_input(view):
    depends = np.abs(jacobian(view)).max(axis=(1, 3))  # (L, L)
    assert np.all(np.triu(depends, 1) < 1e-14)
    assert np.all(depends[np.tril_indices(6)] > 1e-4)


@views
def test_the_map_is_a_toeplitz_matrix_for_each_channel_by_itself(view):
    depends, kernel = jacobian(view), oracle_kernel(*discrete_matrices(), 6)
    want = np.zeros_like(depends)
    for t, s, d in np.ndindex(6, 6, D):
        want[t, d, s, d] = kernel[d, t - s] if t >= s else 0
    close(depends, want, 1e-12)


@views
def test_the_answer_to_a_sum_is_the_sum_of_the_answers(view):
    x, other = inputs(dtype="float64"), inputs(seed=1, dtype="float64")
    close(view(2.0 * x - 3.0 * other), 2.0 * view(x) - 3.0 * view(other), 1e-12)


@views
@pytest.mark.parametrize("delay", [1, 3])
def test_an_input_that_comes_later_gets_the_same_answer_later(view, delay):
    x = inputs(dtype="float64")
    later = np.concatenate([np.zeros((B, delay, D)), x], 1)
    answer = view(later)
    close(answer[:, :delay] + 1.0, np.ones((B, delay, D)), 1e-12)
    close(answer[:, delay:], view(x), 1e-12)


@views
def test_sequences_of_a_batch_know_nothing_of_each_other(view):
    x = inputs(dtype="float64")
    close(view(x), tf.concat([view(x[i : i + 1]) for i in range(B)], 0), 1e-14)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
def test_the_functions_run_compiled_and_with_unknown_sizes(jit_compile):
    def outputs(x):
        kernel = fast_kernel(*discrete_matrices(), L)
        return (
            run_recurrence(x, *discrete_matrices()),
            convolve_direct(x, kernel),
            convolve_fft(x, kernel),
        )

    spec = tf.TensorSpec((None, None, D), tf.float64)
    run = tf.function(outputs, input_signature=[spec], jit_compile=jit_compile)
    x = inputs(dtype="float64")
    for got, want in zip(*map(tf.nest.flatten, (run(x), outputs(x))), strict=True):
        close(got, want, 1e-12)


@pytest.mark.parametrize("batch", [0, 1])
def test_an_empty_batch_gives_an_empty_result(batch):
    x = inputs(batch)
    kernel = fast_kernel(*discrete_matrices(dtype="float32"), L)
    y, state = run_recurrence(x, *discrete_matrices())
    shapes = [v.shape for v in (y, state, convolve_direct(x, kernel), convolve_fft(x, kernel))]
    assert shapes == [(batch, L, D), (batch, D, N), (batch, L, D), (batch, L, D)]


# What is refused


def refuses(message, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*arguments, **options)


@pytest.mark.parametrize("kernel", [ssm_kernel, fast_kernel])
@pytest.mark.parametrize("length", [0, -3, 2.0, "7", None, True, np.float32(4)])
def test_a_length_must_be_a_positive_integer(kernel, length):
    message = f"`length` must be a positive integer. Received: length={length!r}"
    refuses(message, kernel, *discrete_matrices(), length)


def test_a_length_may_be_an_integer_of_numpy():
    assert fast_kernel(*discrete_matrices(), np.int32(3)).shape == (D, 3)


@pytest.mark.parametrize("kernel", [ssm_kernel, fast_kernel])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"A_bar": (N, N)}, "`A_bar` must have 3 axes, (D, N, N). Received: A_bar of shape (2, 2)"),
        ({"A_bar": (D, N, N + 1)}, "`A_bar` must have shape (D=4, N=2, N=2)"),
        ({"B_bar": (D, N + 1)}, "`B_bar` must have shape (D=4, N=2), with N as in `A_bar`"),
        ({"B_bar": (D,)}, "`B_bar` must have 2 axes, (D, N). Received: B_bar of shape (4,)"),
        ({"C": (D, N + 1)}, "`C` must have shape (D=4, N=2), with N as in `A_bar`. Received: C of"),
        ({"C": (1, N)}, "`C` must have shape (D=4, N=2), with D as in `A_bar`"),
    ],
)
def test_matrices_that_do_not_fit_are_named(kernel, shapes, message):
    shapes = {"A_bar": (D, N, N), "B_bar": (D, N), "C": (D, N)} | shapes
    refuses(message, kernel, *map(np.ones, shapes.values()), 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, D + 1)), "`A_bar` must have shape (D=5, N, N), with D as in `x`"),
        (np.ones((L, D)), "`x` must have 3 axes, (B, L, channels). Received: x of shape (7, 4)"),
        (np.ones((B, 0, D)), "`x` must hold at least one step (L >= 1). Received: x of shape"),
        (np.ones((B, L, D), int), "`x` must have a floating dtype such as float32. Received: x of"),
    ],
)
def test_a_sequence_that_does_not_fit_is_named(x, message):
    refuses(message, run_recurrence, x, *discrete_matrices())


@convolutions
@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        ((B, L, D), (D, L - 1), "`kernel` must have shape (D=4, L=7), with L as in `x`"),
        ((B, L, D), (L, D), "`kernel` must have shape (D=4, L=7), with D as in `x`"),
        ((B, L, D), (L,), "`kernel` must have 2 axes, (D, L). Received: kernel of shape (7,)"),
        ((B, 0, D), (D, 0), "`x` must hold at least one step (L >= 1)"),
        ((L, D), (D, L), "`x` must have 3 axes"),
    ],
)
def test_a_kernel_that_does_not_fit_is_named(convolve, x, kernel, message):
    refuses(message, convolve, np.ones(x), np.ones(kernel))


def test_integers_are_refused():
    ones, x = np.ones((D, N, N)), inputs()
    whole = np.ones((D, N), int)
    refuses("`B_bar` must have a floating dtype", ssm_kernel, ones, whole, ones[0], 3)
    refuses("`C` must have a floating dtype", fast_kernel, ones, np.ones((D, N)), whole, 3)
    refuses("`A_bar` must have a floating dtype", ssm_kernel, ones.astype(int), whole, whole, 3)
    for convolve in CONVOLUTIONS.values():
        refuses("`kernel` must have a floating dtype", convolve, x, np.ones((D, L), int))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros((B, D, N), int), "`initial_state` must have a floating dtype"),
        (np.zeros((1, D, N)), "`initial_state` must have shape (B=3, D=4, N=2). Received: initial"),
        (np.zeros((D, N)), "`initial_state` must have shape (B=3, D=4, N=2). Received: initial"),
    ],
)
def test_a_state_that_does_not_fit_is_named(state, message):
    refuses(message, run_recurrence, inputs(), *discrete_matrices(), initial_state=state)
    refuses(message, built(), inputs(), initial_state=state)


# The layer


def built(channels=D, **options):
    layer = LSSL(**({"d_state": N, "dt_min": 0.05, "dt_max": 0.5} | options))
    layer.build((None, None, channels))
    return layer


def randomized(seed=1, scale=1.0, **options):
    """A layer whose weights are all random, none at its initial value."""
    layer, rng = built(**options), np.random.default_rng(seed)
    layer.set_weights([w + scale * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def by_hand(layer, x):
    """(y, last_state) from the formula of the layer, in continuous time, float64."""
    S, a, B_vector, C, skip, log_dt = (np.float64(w) for w in layer.get_weights())
    A = [s - s.T - np.diag(np.exp(v)) for s, v in zip(S, a, strict=True)]
    state = np.zeros((len(x), *B_vector.shape))
    y, state = continuous_outputs(A, B_vector, C, np.exp(log_dt), np.float64(x), state)
    return y + skip * x, state


@precisions
def test_the_layer_computes_its_formula_in_both_views(dtype):
    layer, x = randomized(dtype=dtype), inputs(dtype=dtype)
    want, want_state = by_hand(layer, x)
    tolerance = TOLERANCE[dtype]
    y, state = layer(x, return_state=True)
    assert y.dtype == state.dtype == dtype
    close(y, want, tolerance)
    close(state, want_state, tolerance)
    close(layer(x), want, tolerance)


def test_the_convolution_is_taken_where_it_can_be(monkeypatch):
    def refused(*_):
        raise RuntimeError("as a recurrence")

    layer = built()
    monkeypatch.setattr("tf_mamba_edu.lti.run_recurrence", refused)
    assert layer(inputs()).shape == (B, L, D)
    for options in ({"return_state": True}, {"initial_state": layer.zero_state(B)}):
        with pytest.raises(RuntimeError, match="as a recurrence"):
            layer(inputs(), **options)


def test_step_by_step_equals_the_whole_run():
    layer, x = randomized(), inputs()
    y, last_state = layer(x, return_state=True)
    state = layer.zero_state(B)
    for t in range(L):
        y_t, state = layer.step(x[:, t], state)
        close(y_t, y[:, t])
    close(state, last_state)
    close(layer(x), y)


@pytest.mark.parametrize("cut", [1, 5])
def test_two_runs_with_a_carried_state_equal_one(cut):
    layer, x = randomized(), inputs()
    first, state = layer(x[:, :cut], return_state=True)
    second = layer(x[:, cut:], initial_state=state)
    close(tf.concat([first, second], 1), layer(x))


def test_no_output_of_the_layer_depends_on_a_later_input():
    layer = randomized(dtype="float64")
    for view in (layer, lambda x: layer(x, return_state=True)[0]):
        depends = np.abs(jacobian(view, 4)).max(axis=(1, 3))  # (L, L)
        assert np.all(np.triu(depends, 1) < 1e-14)
        assert np.all(depends[np.tril_indices(4)] > 1e-6)


def loss_of(layer, x, recurrent):
    y = layer(x, return_state=True)[0] if recurrent else layer(x)
    return tf.reduce_sum(y * np.cos(np.arange(y.shape.num_elements())).reshape(y.shape))


@pytest.mark.parametrize("recurrent", [False, True], ids=["convolution", "recurrence"])
def test_gradients_equal_finite_differences(recurrent):
    layer, epsilon = randomized(dtype="float64", channels=2), 1e-5
    x = tf.Variable(np.random.default_rng(2).normal(size=(2, 4, 2)))
    run = tf.function(lambda: loss_of(layer, x, recurrent))
    variables = [x, *(w.value for w in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        loss = loss_of(layer, x, recurrent)
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        value, differences = variable.numpy(), np.empty(variable.shape)
        for index in np.ndindex(*variable.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * epsilon
                variable.assign(moved)
                ends.append(run())
            differences[index] = (ends[0] - ends[1]) / (2 * epsilon)
        variable.assign(value)
        close(gradient, differences, 1e-8)
        assert np.any(differences)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@precisions
def test_no_weights_make_the_layer_unstable(dtype, scale):
    for seed in range(10):
        layer, rng = built(d_state=5, dtype=dtype), np.random.default_rng(seed)
        for weight in (layer.S, layer.B, layer.C, layer.D):
            weight.assign(scale * rng.normal(size=weight.shape))
        layer.log_decay.assign(rng.normal(size=(D, 5)))
        layer.log_dt.assign(rng.uniform(-7, 1, D))
        A_bar, B_bar = layer.discretize()
        assert np.all(np.isfinite(B_bar))
        assert np.abs(np.linalg.eigvals(np.float64(A_bar))).max() < 1


def test_weights_far_out_of_proportion_do_no_more_than_stop_the_decay():
    for seed in range(10):
        layer = built(dtype="float64")
        rng = np.random.default_rng(seed)
        layer.set_weights([10 * rng.normal(size=w.shape) for w in layer.get_weights()])
        A_bar, _ = layer.discretize()
        assert np.abs(np.linalg.eigvals(A_bar)).max() < 1 + 1e-9


def test_training_keeps_the_layer_stable():
    model = keras.Sequential([keras.Input((L, D)), built(d_state=3)])
    model.compile(keras.optimizers.SGD(1.0, clipnorm=10.0), "mse")  # far too fast
    model.fit(inputs(16), 50 * inputs(16, seed=1), batch_size=4, epochs=4, verbose=0)
    A_bar, _ = model.layers[0].discretize()
    assert np.abs(np.linalg.eigvals(np.float64(A_bar))).max() < 1


# The layer: initialization


def test_parameter_count():
    assert built().count_params() == D * N * N + 3 * D * N + 2 * D


def test_steps_start_between_their_bounds():
    steps = np.exp(built(channels=2000, dt_min=0.01, dt_max=0.2).get_weights()[-1])
    assert 0.01 * 0.999 <= steps.min() < 0.0105 and 0.19 < steps.max() <= 0.2 * 1.001
    assert np.median(np.log(steps)) == pytest.approx(np.log(0.01 * 0.2) / 2, abs=0.15)


def test_a_fresh_layer_decays_at_rate_one_and_passes_its_input():
    layer = built(channels=500, d_state=4)
    S, a, B_vector, C, skip, _ = layer.get_weights()
    assert not np.any(a) and np.all(B_vector == 1) and np.all(skip == 1)
    assert S.std() == pytest.approx(1, abs=0.05)
    assert C.std() == pytest.approx(0.5, abs=0.05)


# The layer: Keras manners


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "jit"])
def test_a_compiled_layer_equals_the_eager_one(jit_compile):
    layer, x = randomized(), inputs()

    def outputs(x):
        return layer(x), *layer(x, return_state=True)

    run = tf.function(outputs, jit_compile=jit_compile)
    for got, want in zip(run(x), outputs(x), strict=True):
        close(got, want)


@pytest.mark.parametrize(
    ("length", "jit_compile"),
    [(12, True), (None, False)],
    ids=["convolution with jit", "recurrence"],
)
def test_a_layer_learns_a_moving_average(length, jit_compile):
    x = np.random.default_rng(0).normal(size=(64, 12, 2)).astype("float32")
    y = 0.5 * x + 0.5 * np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    model = keras.Sequential([keras.Input((length, 2)), LSSL(3, 0.3, 0.5)])
    with warnings.catch_warnings():  # Keras says that it goes on without XLA
        warnings.simplefilter("ignore")
        model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=jit_compile)
    losses = model.fit(x, y, batch_size=16, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


def test_unknown_batch_and_length_in_a_functional_model():
    layer = built()
    x = keras.Input((None, D))
    model = keras.Model(x, layer(x))
    assert model.output_shape == (None, None, D)
    for batch, length in ((B, L), (1, 1), (2, 33)):
        data = inputs(batch, length)
        close(model.predict(data, verbose=0), layer(data))


def test_a_functional_model_may_carry_the_state(tmp_path):
    layer = built()
    x, before = keras.Input((None, D)), keras.Input((D, N))
    y, after = layer(x, initial_state=before, return_state=True)
    model = keras.Model([x, before], [y, after])
    model.save(tmp_path / "model.keras")
    for run in (model, keras.models.load_model(tmp_path / "model.keras")):
        state, pieces = layer.zero_state(B), []
        for piece in tf.split(inputs(), [2, 1, 4], axis=1):
            piece, state = run([piece, state])
            pieces.append(piece)
        close(tf.concat(pieces, 1), layer(inputs()))


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("length", [None, L])
def test_the_shapes_and_dtypes_that_a_functional_model_shows_are_true(policy, length):
    layer = LSSL(N, dtype=policy)
    x = keras.Input((length, D), dtype="float32")
    promised = [layer(x), *layer(x, return_state=True)]
    given = [layer(inputs()), *layer(inputs(), return_state=True)]
    for promise, value in zip(promised, given, strict=True):
        assert promise.dtype == value.dtype.name
        assert value.shape.is_compatible_with(promise.shape)
    assert layer.compute_output_shape((None, length, D)) == (None, length, D)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_state_and_weights_in_float32(policy):
    layer = randomized(dtype=policy, scale=0.3)
    y, state = layer(inputs(), return_state=True)
    assert y.dtype == layer(inputs()).dtype == layer.compute_dtype != "float32"
    assert state.dtype == layer.zero_state(B).dtype == tf.float32
    assert {w.dtype for w in layer.weights} == {"float32"}
    y_t, state = layer.step(inputs()[:, 0], state)
    assert y_t.dtype == layer.compute_dtype and state.dtype == tf.float32
    exact = built()
    exact.set_weights(layer.get_weights())
    for got in (y, layer(inputs())):
        close(tf.cast(got, tf.float32), exact(inputs()), 1e-2)
    silence = np.zeros((B, L, D), "float32")
    _, after = layer(silence, initial_state=state, return_state=True)
    close(after, exact(silence, initial_state=state, return_state=True)[1], 1e-6)


@pytest.mark.parametrize("return_state", [False, True], ids=["convolution", "recurrence"])
def test_the_layer_takes_an_empty_batch(return_state):
    shapes = [v.shape for v in tf.nest.flatten(built()(inputs(0), return_state=return_state))]
    assert shapes == [(0, L, D), (0, D, N)][: 1 + return_state]


def test_config_makes_the_same_layer_again():
    own = dict(d_state=5, dt_min=0.01, dt_max=0.2, name="s")
    config = LSSL(**own, dtype="float64", trainable=False).get_config()
    assert own.items() <= config.items()
    again = LSSL.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.compute_dtype == "float64" and not again.trainable


def test_a_saved_layer_gives_the_same_output(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), randomized()])
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))
    assert loaded.layers[0].dt_min == 0.05


# In a Mamba block


def test_the_layer_takes_the_place_of_the_selective_one():
    block, u = MambaBlock(d_conv=3, ssm=LSSL(N)), inputs()
    y, state = block(u, return_state=True)
    assert isinstance(block.ssm, LSSL) and y.shape == u.shape
    assert state.ssm.shape == (B, 2 * D, N) == block.state_spec(B).ssm.shape
    close(block(u), y)
    first, state = block(u[:, :3], return_state=True)
    second, state = block(u[:, 3:6], initial_state=state, return_state=True)
    last, _ = block.step(u[:, 6], state)
    close(tf.concat([first, second, last[:, None]], 1), y)


def test_a_saved_block_keeps_it(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), MambaBlock(ssm=LSSL(N))])
    model.save(tmp_path / "block.keras")
    loaded = keras.saving.load_model(tmp_path / "block.keras")
    assert isinstance(loaded.layers[0].ssm, LSSL)
    close(loaded(inputs()), model(inputs()), 1e-6)


# Bad input of the layer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "`d_state` must be a positive integer. Received: d_state=0"),
        ({"d_state": 2.5}, "`d_state` must be a positive integer. Received: d_state=2.5"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max. Received: dt_min=0.0"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max. Received: dt_min=0.2, dt_max=0.1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    refuses(message, LSSL, **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, D), int), "Received: x of dtype int64"),
        (np.ones((B, 0, D)), "`x` must hold at least one step (L >= 1). Received: x of shape"),
        (np.ones((L, D)), "LSSL needs an input of shape (batch, length, channels)"),
    ],
)
def test_bad_input_of_the_layer_is_named(x, message):
    refuses(message, LSSL(N), x)


def test_other_channels_than_those_built_for_are_named():
    refuses("expected axis -1 of input shape to have value 4", built(), np.ones((B, L, D + 1)))
    refuses("with a known number of channels", LSSL(N), keras.Input((L, None)))


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (np.ones((B, L, D)), np.zeros((B, D, N)), "`x` must have shape (B, D=4). Received: x of"),
        (np.ones((B, 3)), np.zeros((B, D, N)), "`x` must have shape (B, D=4). Received: x of"),
        (np.ones((B, D)), np.zeros((1, D, N)), "`state` must have shape (B=3, D=4, N=2)"),
        (np.ones((B, D)), None, "`state` must be a tensor or array"),
        (np.ones((B, D), int), np.zeros((B, D, N)), "`x` must have a floating dtype"),
        (np.ones((B, D)), np.zeros((B, D, N), int), "`state` must have a floating dtype"),
    ],
)
def test_bad_input_of_a_step_is_named(x, state, message):
    refuses(message, built().step, x, state)


def test_a_layer_without_weights_has_no_state():
    refuses("does not know its channels yet", LSSL(N).zero_state, B)
    refuses("does not know its channels yet", LSSL(N).step, np.ones((B, D)), np.zeros((B, D, N)))
