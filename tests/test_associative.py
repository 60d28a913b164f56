"""Scans for any associative operator, and the recurrence as one of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mamba_edu.scan.associative import (
    Counted,
    blelloch,
    combine,
    hillis_steele,
    linear_recurrence,
    step_by_step,
)

LENGTHS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 32, 33, 97, 100]
SCANS = [step_by_step, hillis_steele, blelloch]
scans = pytest.mark.parametrize("scan", SCANS)
lengths = pytest.mark.parametrize("length", LENGTHS)


def steps(length, shape=(), seed=0, dtype="float64"):
    """Multipliers, inputs and an initial state."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1.1, 1.1, (length, *shape)).astype(dtype)
    return a, rng.normal(size=a.shape).astype(dtype), rng.normal(size=shape).astype(dtype)


def looped(a, b, h):
    """The recurrence as it is written."""
    found = []
    for t in range(len(a)):
        h = a[t] * h + b[t]
        found.append(h)
    return np.array(found)


def intervals(earlier, later):
    """Joins [i, j] and [j + 1, k] to [i, k], and nothing else."""
    tf.debugging.assert_equal(earlier[1] + 1, later[0])
    return earlier[0], later[1]


# The operator


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_how_steps_are_grouped_does_not_matter(numbers):
    x, y, z = np.reshape(numbers, (3, 2))
    left, right = combine(combine(x, y), z), combine(x, combine(y, z))
    np.testing.assert_allclose(left, right, 1e-9, 1e-9)


def test_two_steps_joined_are_one_step():
    h, (a, b), (a_later, b_later) = 0.7, (0.5, 2.0), (-3.0, 0.25)
    one = combine((a, b), (a_later, b_later))
    assert one[0] * h + one[1] == pytest.approx(a_later * (a * h + b) + b_later, rel=1e-14)


def test_their_order_does_matter():
    first, second = (0.5, 2.0), (-3.0, 0.25)
    assert combine(first, second) != combine(second, first)


# Scans


@scans
@lengths
def test_every_scan_joins_all_elements_up_to_each(scan, length):
    places = np.arange(length)
    start, end = scan(intervals, (places, places))
    np.testing.assert_array_equal(start, np.zeros(length))
    np.testing.assert_array_equal(end, places)


@scans
@lengths
def test_every_scan_solves_the_recurrence(scan, length):
    a, b, _ = steps(length, (3,))
    np.testing.assert_allclose(scan(combine, (a, b))[1], looped(a, b, np.zeros(3)), 1e-11, 1e-11)


@scans
def test_operators_need_not_commute(scan):
    matrices = np.random.default_rng(0).normal(size=(11, 2, 2))
    [found] = scan(lambda first, then: (tf.matmul(then[0], first[0]),), (matrices,))
    product = np.eye(2)
    for t, matrix in enumerate(matrices):
        product = matrix @ product
        np.testing.assert_allclose(found[t], product, 1e-10, 1e-12)


@scans
def test_any_number_of_arrays_and_any_type(scan):
    strings = tf.constant(list("scans"))
    [found] = scan(lambda first, then: (first[0] + then[0],), (strings,))
    assert [s.decode() for s in found.numpy()] == ["s", "sc", "sca", "scan", "scans"]


@lengths
def test_work_and_depth_of_doubling(length):
    counted = Counted(combine)
    hillis_steele(counted, steps(length)[:2])
    rounds = int(np.ceil(np.log2(length)))
    assert counted.depth == rounds
    assert counted.work == sum(length - 2**k for k in range(rounds))


@lengths
def test_work_and_depth_of_halving(length):
    counted = Counted(combine)
    blelloch(counted, steps(length)[:2])
    assert counted.work < 2 * length
    assert counted.depth <= 2 * np.log2(length)
    if np.log2(length) % 1 == 0:
        rounds = int(np.log2(length))
        assert counted.work == 2 * length - 2 - rounds


@lengths
def test_the_loop_works_least_and_waits_longest(length):
    counted = Counted(combine)
    step_by_step(counted, steps(length)[:2])
    assert counted.work == counted.depth == length - 1


@scans
@pytest.mark.parametrize(
    "elements",
    [
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.zeros(3), np.zeros(4)),
    ],
)
def test_what_cannot_be_scanned_is_refused(scan, elements):
    with pytest.raises(ValueError, match="`elements` must be arrays .*Received: shapes"):
        scan(combine, elements)


@scans
def test_an_unknown_length_is_refused_where_the_graph_is_built(scan):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)] * 2)
    def traced(a, b):
        return scan(combine, (a, b))

    with pytest.raises(ValueError, match="known L"):
        traced(np.ones(3), np.ones(3))


def test_keras_agrees():
    a, b, _ = steps(13, (2,))
    theirs = keras.ops.associative_scan(combine, (a, b))
    for one, other in zip(blelloch(combine, (a, b)), theirs, strict=True):
        np.testing.assert_allclose(one, other, 1e-12)


# The recurrence and its gradient


def in_eager(function):
    return function


def in_a_graph(function):
    return tf.function(function)


def in_xla(function):
    return tf.function(function, jit_compile=True)


def without_sizes(function, jit_compile=False):
    unknown = [tf.TensorSpec([None, None], tf.float64)] * 2 + [tf.TensorSpec([None], tf.float64)]
    return tf.function(function, input_signature=unknown, jit_compile=jit_compile)


def without_sizes_in_xla(function):
    return without_sizes(function, jit_compile=True)


MODES = [in_eager, in_a_graph, in_xla, without_sizes, without_sizes_in_xla]
modes = pytest.mark.parametrize("mode", MODES)


@modes
@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 33])
def test_the_recurrence_in_every_mode(mode, length):
    a, b, h = steps(length, (3,))
    found = mode(linear_recurrence)(*map(tf.constant, (a, b, h)))
    np.testing.assert_allclose(found, looped(a, b, h), 1e-11, 1e-11)


@modes
@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 33])
def test_its_gradient_is_that_of_the_loop(mode, length):
    a, b, h = map(tf.constant, steps(length, (2,), seed=3))
    weight = np.random.default_rng(4).normal(size=(length, 2))

    def gradient(a, b, h, run=linear_recurrence):
        with tf.GradientTape() as tape:
            tape.watch((a, b, h))
            loss = tf.reduce_sum(weight * run(a, b, h))
        return tape.gradient(loss, (a, b, h))

    def loop(a, b, h):
        found = []
        for t in range(length):
            h = a[t] * h + b[t]
            found.append(h)
        return tf.stack(found)

    wanted = gradient(a, b, h, run=loop)
    for one, other in zip(mode(gradient)(a, b, h), wanted, strict=True):
        np.testing.assert_allclose(one, other, 1e-10, 1e-12)


def test_its_gradient_is_that_of_finite_differences():
    arguments = [tf.constant(t) for t in steps(6, (2,), seed=5)]
    theory, numeric = tf.test.compute_gradient(linear_recurrence, arguments)
    for one, other in zip(theory, numeric, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_without_an_initial_state_it_is_zero():
    a, b, h = steps(9, (2,))
    found = linear_recurrence(a, b)
    np.testing.assert_allclose(found, looped(a, b, 0 * h), 1e-12)


def test_a_sequence_may_be_cut_in_two():
    a, b, h = steps(20, (2,))
    first = linear_recurrence(a[:13], b[:13], h)
    second = linear_recurrence(a[13:], b[13:], first[-1])
    whole = linear_recurrence(a, b, h)
    np.testing.assert_allclose(tf.concat([first, second], 0), whole, 1e-11)


def test_multipliers_of_zero_and_large_inputs_do_no_harm():
    a, b = np.zeros(8), 1e300 * np.ones(8)
    np.testing.assert_array_equal(linear_recurrence(a, b), b)
