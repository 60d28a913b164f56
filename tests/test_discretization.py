"""The discretizations against SciPy and NumPy in float64: values, limits, orders, stability."""

import math
import re

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tf_mamba_edu import bilinear, euler, exponential_trapezoidal, zoh
from tf_mamba_edu.discretization import phi1

TWO = {"euler": euler, "bilinear": bilinear, "zoh": zoh}
RULES = TWO | {"exponential_trapezoidal": exponential_trapezoidal}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
rules_of_two = pytest.mark.parametrize("name", TWO)


# Oracles: one full matrix each, float64, no TensorFlow


def oracle_euler(A, B, delta):
    return np.eye(len(A)) + delta * A, delta * B


def oracle_bilinear(A, B, delta):
    left = np.linalg.inv(np.eye(len(A)) - delta * A / 2)
    return left @ (np.eye(len(A)) + delta * A / 2), left @ (delta * B)


def oracle_zoh(A, B, delta):
    N = len(A)
    augmented = np.zeros((N + 1, N + 1), np.result_type(A, B))
    augmented[:N, :N], augmented[:N, N] = A, B
    exponential = scipy.linalg.expm(augmented * delta)
    return exponential[:N, :N], exponential[:N, N]


def oracle_exponential_trapezoidal(A, B, delta, lam=0.5):
    alpha = scipy.linalg.expm(delta * A)
    return alpha, (1 - lam) * delta * alpha @ B, lam * delta * B


ORACLES = {
    "euler": oracle_euler,
    "bilinear": oracle_bilinear,
    "zoh": oracle_zoh,
    "exponential_trapezoidal": oracle_exponential_trapezoidal,
}
all_names = pytest.mark.parametrize("name", RULES)
few = settings(max_examples=12)  # each matrix exponential is a hundred small operations
some = settings(max_examples=25)


@st.composite
def systems(draw, diagonal):
    """(A, B, delta) of a stable system; delta between 1e-6 and 2."""
    N = draw(st.integers(1, 4))
    numbers = st.floats(-2, 2, width=32)
    B = draw(arrays(np.float64, N, elements=numbers))
    delta = draw(st.floats(1e-6, 2))
    if diagonal:
        return draw(arrays(np.float64, N, elements=st.floats(-5, 0, width=32))), B, delta
    A = draw(arrays(np.float64, (N, N), elements=numbers))
    return A - (np.abs(A).sum() + 0.1) * np.eye(N), B, delta


def assert_close(got, want, tolerance=1e-12):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@all_names
@some
@given(system=systems(diagonal=True))
def test_a_diagonal_agrees_with_the_full_matrix_oracle(name, system):
    A, B, delta = system
    got = RULES[name](A, B, delta)
    want_A, *want_B = ORACLES[name](np.diag(A), B, delta)
    assert_close(got, (np.diag(want_A), *want_B))


@all_names
@few
@given(system=systems(diagonal=False))
def test_a_full_matrix_agrees_with_the_oracle(name, system):
    assert_close(RULES[name](*system, diagonal=False), ORACLES[name](*system), 1e-11)


@all_names
@few
@given(system=systems(diagonal=True))
def test_a_diagonal_equals_the_full_matrix_that_it_stands_for(name, system):
    A, B, delta = system
    got_A, *got_B = RULES[name](A, B, delta)
    full_A, *full_B = RULES[name](np.diag(A), B, delta, diagonal=False)
    assert_close((np.diag(got_A), *got_B), (full_A, *full_B))


@few
@given(system=systems(diagonal=False), lam=st.floats(0, 1))
def test_exponential_trapezoidal_weighs_the_ends_by_lam(system, lam):
    got = exponential_trapezoidal(*system, lam, diagonal=False)
    assert_close(got, oracle_exponential_trapezoidal(*system, lam), 1e-11)


@some
@given(system=systems(diagonal=True))
def test_exponential_trapezoidal_with_lam_one_is_the_rule_of_mamba(system):
    A, B, delta = system
    want = np.exp(delta * A), np.zeros_like(B), delta * B
    assert_close(exponential_trapezoidal(A, B, delta, lam=1.0), want)


def test_softplus_makes_zoh_the_gate_of_theorem_1():
    z = np.linspace(-30, 30, 121)
    one = np.ones((len(z), 1))
    keep, write = zoh(-one, one, np.logaddexp(0, z))
    np.testing.assert_allclose(keep[:, 0], scipy.special.expit(-z), 1e-12)
    np.testing.assert_allclose(write[:, 0], scipy.special.expit(z), 1e-12)


# The convention h_t = A_bar h_{t-1} + B_bar x_t


def some_system(N=3):
    rng = np.random.default_rng(4)
    A = rng.normal(size=(N, N)) - 2 * np.eye(N)
    return A, rng.normal(size=N), 0.3


@rules_of_two
def test_coefficients_equal_scipy_cont2discrete(name):
    A, B, delta = some_system()
    system = A, B[:, None], np.eye(3), np.zeros((3, 1))
    A_bar, B_bar, *_ = scipy.signal.cont2discrete(system, delta, method=name)
    assert_close(TWO[name](A, B, delta, diagonal=False), (A_bar, B_bar[:, 0]))


def test_states_are_those_of_scipy_one_step_later():
    A, B, delta = some_system()
    A_bar, B_bar = (np.asarray(part) for part in zoh(A, B, delta, diagonal=False))
    x = np.random.default_rng(5).normal(size=9)
    discrete = A_bar, B_bar[:, None], np.eye(3), np.zeros((3, 1)), delta
    _, _, scipy_states = scipy.signal.dlsim(discrete, x)
    h, states = np.zeros(3), []
    for x_t in x:
        h = A_bar @ h + B_bar * x_t
        states.append(h)
    assert_close([states[:-1]], [scipy_states[1:]])


# The limit Delta A -> 0


Z = -np.array([0, 1e-30, 1e-12, 1e-8, 1e-6, 1e-3, 0.1, 0.4999, 0.5, 0.5001, 0.7, 1, 2, 3.5, 5])
precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)]
)


def series(z, derivative=False):
    """(exp(z) - 1) / z, or its derivative, by its power series, summed without rounding."""
    if derivative:
        return math.fsum(k * z ** (k - 1) / math.factorial(k + 1) for k in range(1, 60))
    return math.fsum(z**k / math.factorial(k + 1) for k in range(60))


@precisions
@pytest.mark.parametrize("sign", [1, -1])
def test_phi1_and_its_gradient_follow_the_series_through_zero(dtype, tolerance, sign):
    z = tf.constant(sign * Z, dtype)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = phi1(z)
    exact = z.numpy().astype(float)
    np.testing.assert_allclose(value, [series(v) for v in exact], rtol=tolerance)
    gradient = [series(v, derivative=True) for v in exact]
    np.testing.assert_allclose(tape.gradient(value, z), gradient, rtol=tolerance)


@precisions
def test_zoh_and_its_gradients_are_exact_from_zero_to_fast_decay(dtype, tolerance):
    A, B, delta = tf.constant(Z / 2, dtype), tf.fill([len(Z)], tf.cast(3, dtype)), 2.0
    with tf.GradientTape() as tape:
        tape.watch([A, B])
        _, B_bar = zoh(A, B, delta)
    exact = delta * A.numpy().astype(float)
    value = np.array([series(z) for z in exact])
    slope = np.array([series(z, derivative=True) for z in exact])
    grad_A, grad_B = tape.gradient(B_bar, [A, B])
    np.testing.assert_allclose(B_bar, delta * value * 3, rtol=tolerance)
    np.testing.assert_allclose(grad_A, delta**2 * slope * 3, rtol=tolerance)
    np.testing.assert_allclose(grad_B, delta * value, rtol=tolerance)


@all_names
def test_a_zero_matrix_only_adds_up_its_input(name):
    B, delta = np.array([1.0, -2.0]), 0.25
    for A, identity in ((np.zeros(2), np.ones(2)), (np.zeros((2, 2)), np.eye(2))):
        got_A, *got_B = RULES[name](A, B, delta, diagonal=A.ndim == 1 and None)
        assert_close((got_A, sum(got_B)), (identity, delta * B))


@all_names
@pytest.mark.parametrize("shape", [(2,), (2, 2)], ids=["diagonal", "full"])
def test_gradients_at_a_zero_matrix_equal_finite_differences(name, shape):
    weights = np.array([0.7, -1.3])
    full = len(shape) == 2

    def total(A):
        A_bar, *B_bar = RULES[name](A, np.array([1.0, 2.0]), 0.5, diagonal=False if full else None)
        return tf.reduce_sum(A_bar) + tf.reduce_sum(weights * tf.add_n(B_bar))

    A = tf.zeros(shape, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(A)
        value = total(A)
    gradient, epsilon = tape.gradient(value, A), 1e-5
    for index in np.ndindex(shape):
        change = np.zeros(shape)
        change[index] = epsilon
        difference = (total(A + change) - total(A - change)) / (2 * epsilon)
        np.testing.assert_allclose(gradient[index], difference, rtol=1e-8)


# Order of convergence, on h' = A h + cos(t), h(0) = 0


RATE = -1.3


def exact_state(t):
    forced = np.exp(1j * t) / (1j - RATE)
    return (forced - np.exp(RATE * t) / (1j - RATE)).real


def final_error(rule, steps, **options):
    """Error at t = 2; a rule with one input coefficient gets the mean of both ends if asked."""
    delta, mean = 2.0 / steps, options.pop("mean", False)
    x = np.cos(delta * np.arange(steps + 1))
    A_bar, *B_bar = (float(c[0]) for c in rule(np.array([RATE]), np.array([1.0]), delta, **options))
    h = 0.0
    for before, now in zip(x[:-1], x[1:], strict=True):
        if len(B_bar) == 2:
            h = A_bar * h + B_bar[0] * before + B_bar[1] * now
        else:
            h = A_bar * h + B_bar[0] * ((before + now) / 2 if mean else now)
    return abs(h - exact_state(2.0))


@pytest.mark.parametrize(
    ("rule", "options", "order"),
    [
        (euler, {}, 1),
        (zoh, {}, 1),
        (bilinear, {}, 1),
        (bilinear, {"mean": True}, 2),
        (exponential_trapezoidal, {"lam": 1.0}, 1),
        (exponential_trapezoidal, {"lam": 0.0}, 1),
        (exponential_trapezoidal, {"lam": 0.5}, 2),
    ],
)
def test_the_global_error_falls_with_the_order_of_the_rule(rule, options, order):
    coarse, fine = (final_error(rule, steps, **options) for steps in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.05)


@some
@given(system=systems(diagonal=True), parts=st.integers(2, 7))
def test_zoh_makes_no_error_on_a_held_input_however_the_step_is_cut(system, parts):
    A, B, delta = system
    A_bar, B_bar = (c.numpy() for c in zoh(A, B, delta))
    small_A, small_B = (c.numpy() for c in zoh(A, B, delta / parts))
    h = np.ones_like(A)
    whole = A_bar * h + B_bar
    for _ in range(parts):
        h = small_A * h + small_B
    np.testing.assert_allclose(h, whole, rtol=1e-12, atol=1e-12)


# Stability


unstable_rate = st.floats(-50, -1e-3)
step_size = st.floats(1e-3, 10)


@given(rate=unstable_rate, delta=step_size)
def test_euler_is_stable_only_for_small_steps(rate, delta):
    A_bar, _ = euler(np.array([rate]), np.ones(1), delta)
    product = delta * abs(rate)
    if abs(product - 2) > 1e-9:
        assert (abs(A_bar[0]) > 1) == (product > 2)


@pytest.mark.parametrize("rule", [bilinear, zoh, exponential_trapezoidal])
@given(rate=unstable_rate, delta=step_size)
def test_other_rules_keep_every_stable_system_stable(rule, rate, delta):
    assert abs(rule(np.array([rate]), np.ones(1), delta)[0][0]) < 1


@pytest.mark.parametrize("rule", [bilinear, zoh])
def test_a_swing_without_damping_keeps_its_size(rule):
    A = np.array([[0.0, 1.0], [-4.0, 0.0]])
    A_bar, _ = rule(A, np.ones(2), 1.7, diagonal=False)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(A_bar)), 1, rtol=1e-12)


# Shapes and dtypes


@rules
def test_shapes_broadcast_as_a_selective_ssm_needs(rule):
    rng = np.random.default_rng(6)
    A = -rng.uniform(0.1, 2, (4, 3))  # (D, N)
    B = rng.normal(size=(2, 5, 1, 3))  # (B, L, 1, N)
    delta = rng.uniform(0.01, 1, (2, 5, 4))  # (B, L, D)
    A_bar, *B_bar = rule(A, B, delta)
    assert A_bar.shape == (2, 5, 4, 3) and all(part.shape == (2, 5, 4, 3) for part in B_bar)
    one = rule(A[1], B[1, 2, 0], delta[1, 2, 1])
    assert_close([part[1, 2, 1] for part in (A_bar, *B_bar)], one)


@rules
def test_a_batch_of_full_matrices_broadcasts(rule):
    rng = np.random.default_rng(7)
    A = rng.normal(size=(5, 2, 2)) - 3 * np.eye(2)
    B, delta = rng.normal(size=(4, 1, 2)), rng.uniform(0.1, 1, (4, 5))
    A_bar, *B_bar = rule(A, B, delta, diagonal=False)
    assert A_bar.shape == (4, 5, 2, 2) and all(part.shape == (4, 5, 2) for part in B_bar)
    one = rule(A[3], B[2, 0], delta[2, 3], diagonal=False)
    assert_close([part[2, 3] for part in (A_bar, *B_bar)], one)


@rules
def test_a_square_array_of_diagonals_needs_to_be_called_so(rule):
    A = -np.arange(1.0, 10).reshape(3, 3)
    rows = rule(A, np.ones(3), 0.1, diagonal=True)
    assert_close([part[2] for part in rows[:1]], rule(A[2], np.ones(3), 0.1)[:1])


@all_names
def test_complex_diagonals_agree_with_the_oracle(name):
    A, B, delta = np.array([-0.5 + 3j, -0.5 - 3j, -1e-9j, 0]), np.array([1, 2j, 3, 4]), 0.4
    want_A, *want_B = ORACLES[name](np.diag(A), B, delta)
    assert_close(RULES[name](A, B, delta), (np.diag(want_A), *want_B))


def test_compiled_rules_equal_eager_ones():
    def run(A, B, delta):
        diagonals = [rule(tf.linalg.diag_part(A), B, delta) for rule in RULES.values()]
        full = [rule(A, B, delta, diagonal=False) for rule in TWO.values()]
        return tf.nest.flatten([diagonals, full])

    inputs = [tf.constant(value, tf.float64) for value in some_system()]
    assert_close(tf.function(run, jit_compile=True)(*inputs), run(*inputs))


@rules
def test_a_traced_rule_takes_unknown_sizes(rule):
    spec = [tf.TensorSpec(s, tf.float64) for s in ((4, 3), (None, None, 1, 3), (None, None, 4))]
    traced = tf.function(rule, input_signature=spec)
    A, B, delta = -np.ones((4, 3)), np.ones((2, 5, 1, 3)), np.full((2, 5, 4), 0.5)
    assert_close(traced(A, B, delta), rule(A, B, delta))


@rules
def test_a_python_step_keeps_the_dtype_of_the_arrays(rule):
    A, B = -np.ones(2, "float32"), np.ones(2, "float32")
    assert {part.dtype for part in rule(A, B, 0.1)} == {tf.float32}
    assert {part.dtype for part in rule(A, B, 1)} == {tf.float32}
    assert {part.dtype for part in rule(A, B, np.array(0.1))} == {tf.float64}
    assert {part.dtype for part in rule(A, B.astype("float64"), 0.1)} == {tf.float64}


# Bad input


def refuses(message, A, B, delta=0.1, **options):
    for rule in RULES.values():
        with pytest.raises(ValueError, match=re.escape(message)):
            rule(A, B, delta, **options)


def test_a_square_matrix_without_diagonal_is_ambiguous():
    refuses("`A` of shape (3, 3) can be a full matrix or a batch of diag", np.eye(3), np.ones(3))


def test_a_full_matrix_must_be_square():
    message = "(..., N, N), when diagonal=False. Received: A of shape (2, 3)"
    refuses(message, np.ones((2, 3)), np.ones(3), diagonal=False)
    refuses("Received: A of shape (3,)", np.ones(3), np.ones(3), diagonal=False)


def test_the_state_sizes_of_A_and_B_must_agree():
    message = "`B` must have shape (..., N) with N=3 as in `A`. Received: B of shape (2,)"
    refuses(message, np.ones(3), np.ones(2))


def test_other_axes_must_broadcast():
    message = "must agree (broadcast) in all axes but N: received leading A (4,), B (), delta (5,)"
    refuses(message, np.ones((4, 3)), np.ones(3), np.ones(5))


def test_numbers_in_place_of_arrays_are_refused():
    refuses("`A` and `B` need at least one axis", np.array(1.0), np.ones(1))


@pytest.mark.parametrize("value", [[1, 2], ["a", "b"], [True, False]])
def test_what_is_not_floating_is_named(value):
    good, bad = np.ones(2), np.array(value)
    refuses("`A` must have a floating dtype such as float32. Received: A of dtype", bad, good)
    refuses("`B` must have a floating dtype such as float32. Received: B of dtype", good, bad)
    refuses("`delta` must have a floating dtype such as float32. Received: delta", good, good, bad)


def test_a_complex_step_is_refused():
    refuses("`delta` must have a floating dtype", np.ones(2), np.ones(2), np.array(0.1 + 0.1j))


def test_a_wrong_lam_is_named():
    with pytest.raises(ValueError, match="`lam` must have a floating dtype"):
        exponential_trapezoidal(np.ones(2), np.ones(2), 0.1, lam=np.array([1]))
