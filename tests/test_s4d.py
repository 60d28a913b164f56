"""S4D: diagonal systems in complex numbers are the real ones they stand for; and the layer."""

import functools
import inspect
import json
import re

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mamba_edu import S4D, ContinuousSSM, MambaBlock, zoh
from tf_mamba_edu.lti import run_recurrence, ssm_kernel
from tf_mamba_edu.s4d import (
    INITIALIZATIONS,
    as_real_system,
    diagonal_kernel,
    initial_eigenvalues,
)

B, L, D, N = 3, 9, 4, 6
KINDS = ("legs", "real")  # complex pairs and real numbers
initializations = pytest.mark.parametrize("initialization", INITIALIZATIONS)
kinds = pytest.mark.parametrize("kind", KINDS)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
precisions = pytest.mark.parametrize("dtype", TOLERANCE)
some = settings(max_examples=12)  # each runs step by step, eagerly


def close(got, want, tolerance=1e-5):
    """Equal up to a share of the largest value: an FFT promises no more."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    scale = np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def all_close(got, want, tolerance=1e-5):
    for one, other in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        close(one, other, tolerance)


def inputs(batch=B, length=L, channels=D, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=(batch, length, channels)).astype(dtype)


# The kernel of diagonal systems


def diagonal_systems(seed, channels=D, states=3, real=False):
    """(A, B, C, delta): stable, float64 or complex128."""
    rng = np.random.default_rng(seed)
    shape = (channels, states)
    A = -rng.uniform(0.05, 2.0, shape)
    B_vector, C = rng.normal(size=(2, *shape))
    delta = rng.uniform(0.01, 1.0, channels)
    if real:
        return A, B_vector, C, delta
    A = A + 1j * rng.uniform(-6, 6, shape)
    turns = rng.normal(size=(2, *shape))
    return A, B_vector + 1j * turns[0], C + 1j * turns[1], delta


def of_precision(system, dtype):
    """The same system in float32 and complex64, or in float64 and complex128."""
    complex_dtype = {"float32": "complex64", "float64": "complex128"}[dtype]
    return [v.astype(complex_dtype if np.iscomplexobj(v) else dtype) for v in system]


def term_by_term(A, B_vector, C, delta, length):
    """The kernel as the sum that the paper writes."""
    kernel = np.zeros((len(A), length))
    for d, k in np.ndindex(kernel.shape):
        for a, b, c in zip(A[d], B_vector[d], C[d], strict=True):
            held = (np.exp(a * delta[d]) - 1) / a * b
            term = c * held * np.exp(a * delta[d]) ** k
            kernel[d, k] += 2 * term.real if np.iscomplexobj(A) else term
    return kernel


@precisions
@pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_the_kernel_is_the_sum_of_its_terms(dtype, real, length):
    system = diagonal_systems(1, real=real)
    kernel = diagonal_kernel(*of_precision(system, dtype), length)
    assert kernel.dtype == dtype and kernel.shape == (D, length)
    close(kernel, term_by_term(*system, length), TOLERANCE[dtype])


@precisions
@some
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 4), st.integers(1, 30))
def test_the_kernel_is_that_of_the_real_system(dtype, seed, channels, states, length):
    system = diagonal_systems(seed, channels, states)
    A, B_vector, C, delta = of_precision(system, dtype)
    kernel = diagonal_kernel(A, B_vector, C, delta, length)
    assert kernel.dtype == dtype
    real_A, real_B, real_C = as_real_system(*system[:3])
    A_bar, B_bar = zoh(real_A, real_B, system[3], diagonal=False)
    close(kernel, ssm_kernel(A_bar, B_bar, real_C, length), TOLERANCE[dtype])


def test_the_kernel_of_a_real_system_is_that_of_a_diagonal_matrix():
    A, B_vector, C, delta = diagonal_systems(2, real=True)
    A_bar, B_bar = zoh(tf.linalg.diag(A), B_vector, delta, diagonal=False)
    close(diagonal_kernel(A, B_vector, C, delta, 20), ssm_kernel(A_bar, B_bar, C, 20), 1e-12)


def test_the_real_system_has_the_eigenvalues_in_pairs():
    A, B_vector, C, _ = diagonal_systems(3)
    real = as_real_system(A, B_vector, C)
    assert [v.shape for v in real] == [(D, 6, 6), (D, 6), (D, 6)]
    assert {v.dtype for v in real} == {tf.float64}
    for d in range(D):
        pairs = np.r_[A[d], A[d].conj()]
        close(np.sort_complex(np.linalg.eigvals(real[0][d])), np.sort_complex(pairs), 1e-12)


def test_an_eigenvalue_of_zero_only_adds_up():
    kernel = diagonal_kernel(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)), np.array([0.5]), 4)
    close(kernel, [[0.5] * 4])


@pytest.mark.parametrize("real", [False, True], ids=["complex", "real"])
def test_the_precision_of_A_is_that_of_the_kernel(real):
    want = term_by_term(*diagonal_systems(5, real=real), 9)
    for dtype, other in (("float32", "float64"), ("float64", "float32")):
        system = of_precision(diagonal_systems(5, real=real), dtype)
        rest = of_precision(system[1:], other)
        kernel = diagonal_kernel(system[0], *rest, 9)
        assert kernel.dtype == dtype
        close(kernel, want, 1e-5)


@pytest.mark.parametrize("length", [np.int32(5), tf.constant(5)], ids=["numpy", "tensor"])
def test_a_length_may_be_an_integer_of_numpy_or_tensorflow(length):
    system = diagonal_systems(4)
    close(diagonal_kernel(*system, length), diagonal_kernel(*system, 5), 0)


def test_the_kernel_runs_compiled():
    system = diagonal_systems(5)
    run = tf.function(lambda *s: diagonal_kernel(*s, 8), jit_compile=True, autograph=False)
    close(run(*map(tf.constant, system)), diagonal_kernel(*system, 8), 1e-12)


# Initialization


def legs_normal_part(size):
    """A + P P^T of HiPPO-LegS, entry by entry: -1/2 and an antisymmetric part."""
    matrix = np.empty((size, size))
    for n, k in np.ndindex(size, size):
        both = 0.5 * ((2 * n + 1) * (2 * k + 1)) ** 0.5
        matrix[n, k] = -both if n > k else both if n < k else -0.5
    return matrix


@pytest.mark.parametrize("size", [2, 4, 16, 64])
def test_initial_eigenvalues_are_those_of_the_paper(size):
    half = range(size // 2)
    spectrum = scipy.linalg.eigvals(legs_normal_part(size))
    want = {
        "legs": sorted(spectrum[spectrum.imag > 0], key=lambda z: z.imag),
        "lin": [-0.5 + 1j * np.pi * n for n in half],
        "inv": [-0.5 + 1j * size / np.pi * (size / (2 * n + 1) - 1) for n in half],
        "real": [-(n + 1.0) for n in range(size)],
    }
    for initialization, values in want.items():
        got = initial_eigenvalues(initialization, size)
        assert got.dtype == (np.float64 if initialization == "real" else np.complex128)
        close(got, values, 1e-12)


def test_inverse_frequencies_come_near_those_of_legs():
    inverse, legs = (initial_eigenvalues(name, 64).imag for name in ("inv", "legs"))
    assert 0.9 < inverse.max() / legs.max() < 1.1


def test_random_eigenvalues_fill_the_disk_around_minus_one():
    z = initial_eigenvalues("random", 20_000, seed=1) + 1
    assert z.shape == (10_000,) and np.all(np.abs(z) <= 1) and np.all(z.imag >= 0)
    for share in (0.1, 0.5, 0.9):  # of the area
        assert np.mean(np.abs(z) ** 2 < share) == pytest.approx(share, abs=0.02)
        assert np.mean(np.angle(z) < np.pi * share) == pytest.approx(share, abs=0.02)
    assert abs(np.corrcoef(np.abs(z), np.angle(z))[0, 1]) < 0.04


def test_the_seed_decides_the_random_ones():
    draw = functools.partial(initial_eigenvalues, "random", 8)
    close(draw(seed=3), draw(seed=3), 0)
    close(draw(), draw(seed=0), 0)
    assert not np.allclose(draw(seed=3), draw(seed=4))


# The layer as a map


def built(initialization="legs", d_state=N, channels=D, **options):
    layer = S4D(d_state, initialization, **options)
    layer.build((None, None, channels))
    return layer


def randomized(initialization="legs", **options):
    """A layer with the A of the initialization; all that is read of it is random."""
    options = {"dt_min": 0.05, "dt_max": 0.8, **options}
    layer, rng = built(initialization, **options), np.random.default_rng(1)
    for weight in (layer.C, layer.D):
        weight.assign(rng.normal(size=weight.shape))
    return layer


def states_of(layer, batch=B, seed=2):
    shape = layer.zero_state(batch).shape
    return np.random.default_rng(seed).normal(size=shape).astype(layer.variable_dtype)


def continuous_outputs(layer, x, state):
    """(y, last_state) from the weights alone: a real system a channel, solved in float64."""
    weights = {w.name: np.float64(w.numpy()) for w in layer.weights}
    y, last_state = np.empty_like(x), np.empty_like(state)
    for b, d in np.ndindex(state.shape[:2]):
        decay, ones = np.diag(-np.exp(weights["A_log"][d])), np.ones(state.shape[2])
        A, B_vector, C = decay, ones, weights["C"][0, d]
        if "A_imag" in weights:
            turn = np.diag(weights["A_imag"][d])
            A = np.block([[decay, -turn], [turn, decay]])
            B_vector = np.r_[np.ones(len(decay)), np.zeros(len(decay))]
            C = np.r_[2 * C, -2 * weights["C"][1, d]]
        system = ContinuousSSM(A, B_vector, C, weights["D"][d])
        y[b, :, d], states = system.simulate(x[b, :, d], np.exp(weights["log_dt"][d]), state[b, d])
        last_state[b, d] = states[-1]
    return y, last_state


@precisions
@initializations
def test_the_layer_solves_a_continuous_system(initialization, dtype):
    layer, x = randomized(initialization, dtype=dtype), inputs(dtype="float64")
    for state in (np.zeros((B, D, N)), states_of(layer).astype("float64")):
        want = continuous_outputs(layer, x, state)
        got = layer(x.astype(dtype), state.astype(dtype), return_state=True)
        all_close(got, want, 10 * TOLERANCE[dtype])
        assert {v.dtype for v in got} == {tf.as_dtype(dtype)}


@initializations
def test_the_layer_is_the_recurrence_of_its_system(initialization):
    layer, x = randomized(initialization, dtype="float64"), inputs(dtype="float64")
    A, B_vector, C, delta = layer.system()
    real = (tf.linalg.diag(A), B_vector, C)
    if initialization != "real":
        real = as_real_system(A, B_vector, C)
    A_bar, B_bar = zoh(*real[:2], delta, diagonal=False)
    y, last_state = run_recurrence(x, A_bar, B_bar, real[2])
    all_close(layer(x, return_state=True), (y + layer.D * x, last_state), 1e-9)


@initializations
def test_a_call_equals_stepping(initialization):
    layer, x = randomized(initialization), inputs(length=5)
    for state in (layer.zero_state(B), states_of(layer)):
        y, last_state = layer(x, initial_state=state, return_state=True)
        assert y.shape == (B, 5, D) and last_state.shape == (B, D, N)
        close(layer(x, initial_state=state), y, 0)
        for t in range(5):
            y_t, state = layer.step(x[:, t], state)
            close(y_t, y[:, t])
        close(state, last_state)


@initializations
def test_no_state_is_a_state_of_zeros(initialization):
    layer, x = randomized(initialization), inputs()
    y, state = layer(x, return_state=True)
    close(layer(x), y)
    all_close(layer(x, initial_state=layer.zero_state(B), return_state=True), (y, state), 0)
    assert not np.any(layer.zero_state(B)) and layer.zero_state(B).shape == (B, D, N)


@kinds
def test_a_run_may_be_cut_anywhere(kind):
    layer, x = randomized(kind), inputs()
    start = states_of(layer)
    want = layer(x, initial_state=start, return_state=True)
    for cut in range(1, L):
        first, state = layer(x[:, :cut], initial_state=start, return_state=True)
        second, state = layer(x[:, cut:], initial_state=state, return_state=True)
        all_close((tf.concat([first, second], 1), state), want)


@initializations
def test_three_pieces_of_a_fresh_run_make_the_whole(initialization):
    layer, state, pieces = randomized(initialization), None, []
    for piece in tf.split(inputs(), [4, 1, 4], axis=1):
        piece, state = layer(piece, initial_state=state, return_state=True)
        pieces.append(piece)
    close(tf.concat(pieces, 1), layer(inputs()))


@kinds
def test_no_output_depends_on_a_later_input_or_another_sequence_or_channel(kind):
    layer = randomized(kind, dtype="float64")
    x = tf.constant(inputs(dtype="float64"))
    for view in (layer, lambda x: layer(x, return_state=True)[0]):
        for b, t, d in ((0, 0, 1), (1, 4, 0), (2, L - 1, 3)):
            bump = np.zeros(x.shape)
            bump[b, t, d] = 1.0
            change = (view(x + bump) - view(x)).numpy()
            assert np.all(np.abs(change[b, t:, d]) > 1e-6)
            change[b, t:, d] = 0
            assert np.abs(change).max() < 1e-13


def test_the_layer_of_the_paper_keeps_its_precision():
    layer, x = built(d_state=64, channels=2), inputs(2, 512, 2)
    y, last_state = layer(x, return_state=True)
    exact = continuous_outputs(layer, x.astype("float64"), np.zeros((2, 2, 64)))
    all_close((y, last_state), exact, 2e-4)


@pytest.mark.parametrize("length", [1, 2, 31, 64])
@kinds
def test_any_length_will_do(kind, length):
    layer, x = randomized(kind, dtype="float64"), inputs(2, length, dtype="float64")
    want = continuous_outputs(layer, x, np.zeros((2, D, N)))
    close(layer(x), want[0], 1e-11)
    all_close(layer(x, return_state=True), want, 1e-11)


@pytest.mark.parametrize("d_state", [1, 5])
def test_real_states_may_be_odd_in_number(d_state):
    layer, x = randomized("real", d_state=d_state, dtype="float64"), inputs(dtype="float64")
    want = continuous_outputs(layer, x, np.zeros((B, D, d_state)))
    all_close(layer(x, return_state=True), want, 1e-11)


# Compiled, trained


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("legs", "static"), ("legs", "unknown"), ("legs", "jit"), ("real", "jit")],
)
def test_a_compiled_layer_equals_the_eager_one(kind, mode):
    layer = randomized(kind)

    def outputs(x, state):
        carried = layer(x, initial_state=state, return_state=True)
        return layer(x), *carried, *layer.step(x[:, 0], state)

    sizes = (B, L) if mode == "static" else (None, None)
    signature = [tf.TensorSpec((*sizes, D)), tf.TensorSpec((sizes[0], D, N))]
    run = tf.function(
        outputs, input_signature=signature, jit_compile=mode == "jit", autograph=False
    )
    for batch, length in ((B, L), (1, 1))[: 2 if mode == "unknown" else 1]:
        x, state = inputs(batch, length), states_of(layer, batch)
        all_close(run(x, state), outputs(x, state))


def loss_of(outputs):
    """A number that every entry of every output changes."""
    flat = tf.concat([tf.reshape(v, [-1]) for v in tf.nest.flatten(outputs)], 0)
    return tf.reduce_sum(flat * np.cos(np.arange(flat.shape[0])))


@kinds
def test_gradients_equal_finite_differences(kind):
    layer, rng = randomized(kind, d_state=4, channels=2, dtype="float64"), np.random.default_rng(3)
    x = tf.Variable(inputs(2, 4, 2, dtype="float64"))
    state = tf.Variable(states_of(layer, 2))

    def loss():
        return loss_of([layer(x), layer(x[::-1], initial_state=state, return_state=True)])

    variables = [x, state, *(w.value for w in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        before = variable.numpy()
        direction, ends = rng.normal(size=before.shape), []  # all entries at once
        for epsilon in (1e-5, -1e-5):
            variable.assign(before + epsilon * direction)
            ends.append(loss())
        close(tf.reduce_sum(gradient * direction), (ends[0] - ends[1]) / 2e-5, 1e-7)
        variable.assign(before)


@kinds
def test_gradients_equal_those_of_the_recurrence(kind):
    layer, x = randomized(kind, dtype="float64"), inputs(length=5, dtype="float64")
    variables = [w.value for w in layer.trainable_variables]
    start = tf.constant(states_of(layer))

    def gradients(run):
        with tf.GradientTape() as tape:
            tape.watch(start)
            loss = loss_of(run(start))
        return tape.gradient(loss, [start, *variables])

    def step_by_step(state):
        pieces = []
        for t in range(5):
            y_t, state = layer.step(x[:, t], state)
            pieces.append(y_t)
        return tf.stack(pieces, 1), state

    call = gradients(lambda state: layer(x, initial_state=state, return_state=True))
    all_close(call, gradients(step_by_step), 1e-10)


@pytest.mark.parametrize(
    ("kind", "jit_compile"),
    [("legs", True), ("real", False)],
    ids=["legs-jit", "real-graph"],
)
def test_a_layer_learns_a_moving_average(kind, jit_compile):
    x = inputs(64, 12, 2)
    y = 0.5 * x + 0.5 * np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    layer = S4D(4, kind, dt_min=0.3, dt_max=0.5)
    model = keras.Sequential([keras.Input((12, 2)), layer])
    model.compile(keras.optimizers.SGD(0.3), "mse", jit_compile=jit_compile)
    before = [w.numpy() for w in layer.trainable_variables]
    losses = model.fit(x, y, batch_size=16, epochs=15, verbose=0).history["loss"]
    assert model.jit_compile == jit_compile and losses[-1] < 0.3 * losses[0]
    assert len(before) == (5 if kind == "legs" else 4)
    for old, new in zip(before, layer.trainable_variables, strict=True):
        assert np.all(old != new.numpy())


@kinds
def test_no_training_makes_a_state_grow(kind):
    layer = built(kind, dt_min=0.1, dt_max=1.0)
    optimizer, start = keras.optimizers.SGD(1.0, clipnorm=10.0), layer.A_log.numpy()
    for i in range(8):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer(inputs(seed=i)) - 50 * inputs(seed=i + 100)) ** 2)
        variables = layer.trainable_variables
        optimizer.apply(tape.gradient(loss, [w.value for w in variables]), variables)  # too fast
    assert np.abs(layer.A_log.numpy() - start).max() > 0.3
    A, *_, delta = layer.system()
    assert np.all(tf.math.real(A) < 0) and np.all(delta > 0)
    A_bar, _ = zoh(A, tf.ones_like(A), delta, diagonal=True)
    assert np.abs(A_bar).max() < 1 + 1e-6


@pytest.mark.parametrize("scale", [1.0, 10.0])
@kinds
def test_no_weights_make_a_state_grow(kind, scale):
    layer, rng = built(kind), np.random.default_rng(0)
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.get_weights()])
    silence = np.zeros((B, 50, D), "float32")
    A, *_ = layer.system()
    assert np.all(tf.math.real(A) < 0)
    y, last_state = layer(silence, initial_state=states_of(layer), return_state=True)
    assert np.all(np.isfinite(y))
    norm = np.linalg.norm(np.stack(np.split(last_state, 2, 2)) if kind == "legs" else last_state)
    assert norm <= np.linalg.norm(states_of(layer))


# The layer: initialization


@initializations
def test_every_channel_starts_with_the_same_A(initialization):
    layer = built(initialization, d_state=8, seed=3)
    A, B_vector, C, delta = layer.system()
    start = initial_eigenvalues(initialization, 8, seed=3)
    assert A.shape == B_vector.shape == C.shape == (D, len(start)) and delta.shape == (D,)
    close(A, np.tile(start, (D, 1)), 1e-6)
    np.testing.assert_array_equal(B_vector, np.ones_like(A))
    assert A.dtype == (tf.float32 if initialization == "real" else tf.complex64)


def test_the_seed_of_the_layer_decides_its_random_A():
    keras.utils.set_random_seed(1)
    first = built("random", seed=3)
    keras.utils.set_random_seed(2)
    close(built("random", seed=3).system()[0], first.system()[0], 0)
    assert not np.allclose(built("random", seed=4).system()[0], first.system()[0])


@initializations
def test_parameter_count(initialization):
    assert built(initialization).count_params() == 2 * D * N + 2 * D


def test_defaults():
    config = S4D().get_config()
    own = dict(d_state=64, initialization="legs", dt_min=1e-3, dt_max=1e-1, seed=0)
    assert own.items() <= config.items()


def test_steps_start_between_their_bounds():
    steps = built(d_state=2, channels=2000, dt_min=0.01, dt_max=0.2).system()[3].numpy()
    assert 0.01 * 0.999 <= steps.min() < 0.0105 and 0.19 < steps.max() <= 0.2 * 1.001
    assert np.median(np.log(steps)) == pytest.approx(np.log(0.01 * 0.2) / 2, abs=0.15)


@kinds
def test_a_fresh_layer_reads_with_unit_variance_and_passes_its_input(kind):
    layer = built(kind, channels=500)
    C = layer.system()[2].numpy()
    assert np.all(layer.D.numpy() == 1)
    assert np.mean(np.abs(C) ** 2) == pytest.approx(1, abs=0.1)
    assert abs(C.mean()) < 0.1 and len(np.unique(C)) == C.size
    if kind == "legs":
        assert C.real.std() == pytest.approx(C.imag.std(), rel=0.1)


# The layer: Keras manners


def test_unknown_batch_and_length_in_a_functional_model():
    layer = randomized()
    x = keras.Input((None, D))
    model = keras.Model(x, layer(x))
    assert model.output_shape == (None, None, D)
    for batch, length in ((B, L), (1, 1), (2, 33)):
        data = inputs(batch, length)
        close(model(data), layer(data))


@kinds
def test_a_functional_model_may_carry_the_state(kind, tmp_path):
    layer = randomized(kind)
    x, before = keras.Input((None, D)), keras.Input((D, N))
    y, after = layer(x, initial_state=before, return_state=True)
    assert after.shape == (None, D, N)
    model = keras.Model([x, before], [y, after])
    model.save(tmp_path / "model.keras")
    for run in (model, keras.models.load_model(tmp_path / "model.keras")):
        state, pieces = layer.zero_state(B), []
        for piece in tf.split(inputs(), [2, 1, 6], axis=1):
            piece, state = run([piece, state])
            pieces.append(piece)
        close(tf.concat(pieces, 1), layer(inputs()))


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(("kind", "length"), [("legs", None), ("real", L)])
def test_the_shapes_and_dtypes_that_a_functional_model_shows_are_true(kind, policy, length):
    layer = S4D(N, kind, dtype=policy)
    x = keras.Input((length, D), dtype="float32")
    promised = [layer(x), *layer(x, return_state=True)]
    given = [layer(inputs()), *layer(inputs(), return_state=True)]
    for promise, value in zip(promised, given, strict=True):
        assert promise.dtype == value.dtype.name
        assert value.shape.is_compatible_with(promise.shape)
    assert layer.compute_output_shape((None, length, D)) == (None, length, D)
    spec = layer.state_spec(5)
    assert spec.shape == (5, D, N) and spec.dtype == layer.variable_dtype


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@kinds
def test_mixed_precision_keeps_state_and_weights_in_float32(kind, policy):
    layer = randomized(kind, dtype=policy)
    y, state = layer(inputs(), return_state=True)
    assert y.dtype == layer(inputs()).dtype == layer.compute_dtype != "float32"
    assert state.dtype == layer.zero_state(B).dtype == tf.float32
    assert {w.dtype for w in layer.weights} == {"float32"}
    y_t, stepped = layer.step(inputs()[:, 0], state)
    assert y_t.dtype == layer.compute_dtype and stepped.dtype == tf.float32
    exact = built(kind)
    exact.set_weights(layer.get_weights())
    rounded = tf.cast(tf.cast(inputs(), layer.compute_dtype), tf.float32)
    want, want_state = exact(rounded, return_state=True)
    close(state, want_state, 1e-6)  # rounded on the way in and nowhere else
    for got in (y, layer(inputs())):
        close(tf.cast(got, tf.float32), want, 1e-2)
    silence = np.zeros((B, L, D), "float32")
    _, after = layer(silence, initial_state=state, return_state=True)
    close(after, exact(silence, initial_state=state, return_state=True)[1], 1e-6)


def test_gradients_in_mixed_precision_come_near_those_of_float32():
    exact, layer = randomized(), randomized(dtype="mixed_float16")
    layer.set_weights(exact.get_weights())

    def gradients(layer):
        with tf.GradientTape() as tape:
            y, state = layer(inputs(), return_state=True)
            loss = loss_of([tf.cast(y, tf.float32), state])
        return tape.gradient(loss, [w.value for w in layer.trainable_variables])

    got = gradients(layer)
    assert {gradient.dtype for gradient in got} == {tf.float32}
    all_close(got, gradients(exact), 1e-2)


@kinds
def test_the_layer_takes_an_empty_batch(kind):
    layer = built(kind)
    assert layer(inputs(0)).shape == (0, L, D)
    assert [v.shape for v in layer(inputs(0), return_state=True)] == [(0, L, D), (0, D, N)]


def test_config_makes_the_same_layer_again():
    own = dict(d_state=5, initialization="real", dt_min=0.01, dt_max=0.2, seed=7, name="s")
    config = S4D(**own, dtype="float64", trainable=False).get_config()
    assert own.items() <= config.items()
    assert set(inspect.signature(S4D).parameters) - {"kwargs"} <= set(config)
    again = S4D.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.compute_dtype == "float64" and not again.trainable


def test_files_name_the_layer_and_its_package():
    assert keras.saving.get_registered_name(S4D) == "tf_mamba_edu>S4D"


@initializations
def test_a_saved_layer_gives_the_same_output(initialization, tmp_path):
    layer = randomized(initialization, seed=5)
    layer.A_log.assign_add(0.1 * np.random.default_rng(3).normal(size=layer.A_log.shape))
    model = keras.Sequential([keras.Input((None, D)), layer])
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))
    assert loaded.layers[0].get_config() == layer.get_config()


# In a Mamba block


@kinds
def test_the_layer_takes_the_place_of_the_selective_one(kind):
    block, u = MambaBlock(d_conv=3, ssm=S4D(N, kind)), inputs()
    y, state = block(u, return_state=True)
    assert isinstance(block.ssm, S4D) and y.shape == u.shape
    assert state.ssm.shape == (B, 2 * D, N) == block.state_spec(B).ssm.shape
    close(block(u), y)
    first, state = block(u[:, :3], return_state=True)
    second, state = block(u[:, 3:8], initial_state=state, return_state=True)
    last, _ = block.step(u[:, 8], state)
    close(tf.concat([first, second, last[:, None]], 1), y)


@pytest.mark.parametrize("side", ["before", "after"])
@kinds
def test_padding_changes_nothing_at_the_words(kind, side):
    block, embedding = MambaBlock(ssm=S4D(N, kind)), keras.layers.Embedding(7, D, mask_zero=True)
    block.build((None, None, D))
    ids, lengths = np.zeros((3, L), int), (L, 4, 1)
    places = [slice(0, n) if side == "after" else slice(L - n, L) for n in lengths]
    for row, place in enumerate(places):
        ids[row, place] = np.random.default_rng(row).integers(1, 7, lengths[row])
    y, state = block(embedding(ids), return_state=True)
    close(block(embedding(ids)), y)
    for row, place in enumerate(places):
        want, want_state = block(embedding(ids[row : row + 1, place]), return_state=True)
        close(y[row, place], want[0])
        if side == "before":  # what comes before the first word leaves the zeros alone
            close(state.ssm[row], want_state.ssm[0])


@kinds
def test_a_functional_block_carries_the_state(kind, tmp_path):
    block = MambaBlock(ssm=S4D(N, kind))
    x = keras.Input((None, D))
    _, spec = block(x, return_state=True)
    before = [keras.Input(s.shape[1:], dtype=s.dtype) for s in spec]
    y, after = block(x, initial_state=before, return_state=True)
    model = keras.Model([x, *before], [y, *after])
    model.save(tmp_path / "block.keras")
    loaded = keras.saving.load_model(tmp_path / "block.keras")
    for run in (model, loaded):
        state, pieces = block.zero_state(B), []
        for piece in tf.split(inputs(), [2, 1, 6], axis=1):
            piece, *state = run([piece, *state])
            pieces.append(piece)
        close(tf.concat(pieces, 1), block(inputs()))


# Bad input


def refuses(message, function, *arguments, **options):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "`d_state` must be a positive integer. Received: d_state=0"),
        ({"d_state": 2.0}, "`d_state` must be a positive integer. Received: d_state=2.0"),
        ({"d_state": True}, "`d_state` must be a positive integer. Received: d_state=True"),
        *(
            (
                {"d_state": 5, "initialization": name},
                f"`d_state` must be even for initialization='{name}', whose states come in "
                "conjugate pairs. Received: d_state=5",
            )
            for name in ("legs", "lin", "inv", "random")
        ),
        (
            {"initialization": "hippo"},
            "`initialization` must be one of legs, lin, inv, real, random. "
            "Received: initialization='hippo'",
        ),
        ({"initialization": None}, "`initialization` must be one of legs, lin, inv, real, random."),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max. Received: dt_min=0.0"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max. Received: dt_min=0.2, dt_max=0.1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    refuses(message, S4D, **options)
    if "dt_min" not in options:
        arguments = {"initialization": "legs", "d_state": 4, **options}
        refuses(message, initial_eigenvalues, **arguments)


@pytest.mark.parametrize("length", [0, -3, 2.0, "7", None, True, np.float32(4)])
def test_a_length_must_be_a_positive_integer(length):
    message = f"`length` must be a positive integer. Received: length={length!r}"
    refuses(message, diagonal_kernel, *diagonal_systems(0), length)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": (3,)}, "`A` must have 2 axes, (D, n). Received: A of shape (3,)"),
        ({"B": (D, 2)}, "`B` must have shape (D=4, n=3), with n as in `A`. Received: B of shape"),
        ({"B": (1, 3)}, "`B` must have shape (D=4, n=3), with D as in `A`"),
        ({"C": (D, 1)}, "`C` must have shape (D=4, n=3), with n as in `A`"),
        ({"delta": ()}, "`delta` must have 1 axes, (D). Received: delta of shape ()"),
        ({"delta": (3,)}, "`delta` must have shape (D=4), with D as in `A`"),
    ],
)
def test_systems_that_do_not_fit_are_named(change, message):
    shapes = {"A": (D, 3), "B": (D, 3), "C": (D, 3), "delta": (D,)} | change
    refuses(message, diagonal_kernel, *map(np.ones, shapes.values()), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"A": np.ones((D, 3), int)},
            "`A` must have a floating dtype such as float32. Received: A",
        ),
        ({"B": "b"}, "`B` must have a floating dtype"),
        ({"C": None}, "`C` must be a tensor or array of floating point numbers. Received: C=None"),
        ({"delta": np.ones(D, int)}, "`delta` must have a floating dtype"),
        ({"delta": np.ones(D, complex)}, "Received: delta of dtype complex128"),
    ],
)
def test_systems_that_are_not_made_of_numbers_are_named(change, message):
    arguments = dict(zip(("A", "B", "C", "delta"), diagonal_systems(0), strict=True)) | change
    refuses(message, diagonal_kernel, *arguments.values(), 5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, D), int), "Received: x of dtype int64"),
        (np.ones((B, 0, D)), "`x` must hold at least one step (L >= 1). Received: x of shape"),
        (np.ones((L, D)), "S4D needs an input of shape (batch, length, channels)"),
    ],
)
def test_bad_input_of_the_layer_is_named(x, message):
    refuses(message, S4D(N), x)


def test_other_channels_than_those_built_for_are_named():
    refuses("expected axis -1 of input shape to have value 4", built(), np.ones((B, L, D + 1)))
    refuses("with a known number of channels", S4D(N), keras.Input((L, None)))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros((B, D, N // 2)), "must have shape (B=3, D=4, N=6). Received: "),
        (np.zeros((1, D, N)), "must have shape (B=3, D=4, N=6). Received: "),
        (np.zeros((B, D + 1, N)), "must have shape (B=3, D=4, N=6). Received: "),
        (np.zeros((D, N)), "must have shape (B=3, D=4, N=6). Received: "),
        (np.zeros((B, D, N), int), "must have a floating dtype such as float32. Received: "),
        (np.zeros((B, D, N), complex), "must have a floating dtype such as float32. Received: "),
    ],
    ids=["pairs", "batch", "channels", "rank", "integers", "complex"],
)
def test_a_state_that_does_not_fit_is_named(state, message):
    refuses(f"`initial_state` {message}", built(), inputs(), initial_state=state)
    refuses(f"`state` {message}", built().step, inputs()[:, 0], state)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((B, L, D)), "`x` must have shape (B, D=4). Received: x of"),
        (np.ones((B, 3)), "`x` must have shape (B, D=4). Received: x of"),
        (np.ones((B, D), int), "`x` must have a floating dtype"),
    ],
)
def test_bad_input_of_a_step_is_named(x, message):
    refuses(message, built().step, x, np.zeros((B, D, N)))


def test_a_layer_without_weights_has_no_state():
    message = "S4D does not know its channels yet"
    refuses(message, S4D(N).zero_state, B)
    refuses(message, S4D(N).state_spec)
    refuses(message, S4D(N).step, np.ones((B, D)), np.zeros((B, D, N)))
