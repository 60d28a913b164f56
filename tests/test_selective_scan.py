"""The selective scan: golden numbers, a float64 oracle, every way to call it, bad input.

Compiling one shape takes two seconds, so tests share the shapes of `SMALL` and `OTHER`.
"""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_mamba_edu import selective_scan
from tf_mamba_edu.scan import fused

GOLDEN = sorted((Path(__file__).parent / "golden").glob("selective_scan_*.npz"))
METHODS = ("recurrent", "associative", "fused")
NAMES = ("x", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
REQUIRED = NAMES[:5]
SMALL = dict(batch=2, length=5)
OTHER = dict(batch=1, length=18)  # more than one chunk
TINY = dict(batch=1, length=1)

methods = pytest.mark.parametrize("method", METHODS)


def arrays(seed=0, *, batch=2, length=5, channels=3, states=2, dtype="float64"):
    """All tensor arguments of `selective_scan`, random; delta is before softplus."""
    rng = np.random.default_rng(seed)
    sequence, state = (batch, length, channels), (batch, length, states)
    drawn = {
        "x": rng.normal(size=sequence),
        "delta": rng.normal(size=sequence) - 0.5,
        "A": -rng.uniform(0.2, 2.0, (channels, states)),
        "B": rng.normal(size=state),
        "C": rng.normal(size=state),
        "D": rng.normal(size=channels),
        "z": rng.normal(size=sequence),
        "delta_bias": rng.normal(size=channels),
        "initial_state": rng.normal(size=(batch, channels, states)),
    }
    return {name: value.astype(dtype) for name, value in drawn.items()}


def naive_scan(x, delta, A, B, C, D, z, delta_bias, initial_state):
    """The oracle: float64 NumPy, equations 2a and 2b of the paper, one step after another."""
    delta = np.log1p(np.exp(delta + delta_bias))
    h, y = initial_state, np.zeros_like(x)
    for t in range(x.shape[1]):
        decay = np.exp(delta[:, t, :, None] * A)
        h = decay * h + (delta[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        y[:, t] = (h * C[:, t, None, :]).sum(-1) + D * x[:, t]
    return y * z / (1 + np.exp(-z)), h


def run(inputs, method, **options):
    options = {"delta_softplus": True, "return_last_state": True, "method": method} | options
    return selective_scan(**inputs, **options)


def weights_of_loss(inputs):
    """Fixed random weights of y and last_state: every output counts in the loss."""
    rng = np.random.default_rng(99)
    shape = inputs["x"].shape
    return rng.normal(size=shape), rng.normal(size=(shape[0], *inputs["A"].shape))


def loss(y, last_state, grad_y, grad_last_state):
    y = tf.cast(y, last_state.dtype)  # float16 has no room for the sum
    grads = tf.cast(grad_y, y.dtype), tf.cast(grad_last_state, y.dtype)
    return tf.reduce_sum(y * grads[0]) + tf.reduce_sum(last_state * grads[1])


def values_and_gradients(inputs, method, grads=None, **options):
    """((y, last_state), {name: gradient}) of a weighted sum of all outputs."""
    grads = weights_of_loss(inputs) if grads is None else grads
    inputs = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = run(inputs, method, **options)
        total = loss(*outputs, *grads)
    return outputs, tape.gradient(total, inputs)


def relative(got, want):
    """Max abs error over max abs value, the measure of tests/golden/README.md."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.max(np.abs(got - want)) / np.max(np.abs(want))


def assert_same(got, want, tolerance):
    """Compares two pairs of outputs and gradients."""
    for one, other in zip(got[0], want[0], strict=True):
        assert relative(one, other) <= tolerance
    assert got[1].keys() == want[1].keys()
    for name in want[1]:
        assert relative(got[1][name], want[1][name]) <= tolerance, name


# Golden numbers


@functools.cache
def golden_run(path, method):
    stored = dict(np.load(path))
    inputs = {name: stored[name] for name in NAMES if name in stored}
    grads = stored["grad_y"], stored["grad_last_state"]
    softplus = bool(stored["delta_softplus"])
    return stored, *values_and_gradients(inputs, method, grads, delta_softplus=softplus)


golden = pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem[15:])


def test_there_are_four_golden_files():
    assert len(GOLDEN) == 4


@golden
@methods
def test_golden_outputs_to_2e_6(path, method):
    stored, (y, last_state), _ = golden_run(path, method)
    assert relative(y, stored["y"]) < 2e-6
    assert relative(last_state, stored["last_state"]) < 2e-6


@golden
@methods
def test_golden_gradients_to_2e_5(path, method):
    stored, _, gradients = golden_run(path, method)
    given = {"grad_y", "grad_last_state"}
    assert {f"grad_{name}" for name in gradients} | given == {k for k in stored if "grad_" in k}
    for name, gradient in gradients.items():
        assert relative(gradient, stored[f"grad_{name}"]) < 2e-5, name


# Oracles in float64


@functools.cache
def finite_differences():
    """Central differences of the oracle's loss in every single input number."""
    inputs = arrays(**SMALL)
    grad_y, grad_last_state = weights_of_loss(inputs)

    def oracle_loss():
        y, last_state = naive_scan(**inputs)
        return np.sum(y * grad_y) + np.sum(last_state * grad_last_state)

    result, epsilon = {}, 1e-5
    for name, value in inputs.items():
        result[name] = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + epsilon
            above = oracle_loss()
            value[index] = kept - epsilon
            result[name][index] = (above - oracle_loss()) / (2 * epsilon)
            value[index] = kept
    return result


@methods
def test_outputs_equal_the_float64_oracle(method):
    inputs = arrays(1, **SMALL)
    for got, want in zip(run(inputs, method), naive_scan(**inputs), strict=True):
        assert relative(got, want) < 1e-13


@methods
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences_of_the_oracle(method, name):
    gradients = gradients_on_small(method)
    assert relative(gradients[name], finite_differences()[name]) < 1e-8


@functools.cache
def gradients_on_small(method):
    return values_and_gradients(arrays(**SMALL), method)[1]


# One trace for all sizes, without XLA: the loops themselves, in milliseconds a case


def outputs_and_gradients(method):
    """A function of the arguments, in the order of NAMES, to trace or compile."""

    def function(*inputs):
        inputs = dict(zip(NAMES, inputs, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y, last_state = run(inputs, method)
            total = tf.reduce_sum(y**2) + tf.reduce_sum(last_state**3)
        return (y, last_state), tape.gradient(total, inputs)

    return function


def unknown_sizes():
    """The signature of the arguments with B and L left open."""
    shapes = {name: value.shape for name, value in arrays().items()}
    for name in ("x", "delta", "z"):
        shapes[name] = (None, None, 3)
    shapes["B"] = shapes["C"] = (None, None, 2)
    shapes["initial_state"] = (None, 3, 2)
    return [tf.TensorSpec(shapes[name], tf.float64) for name in NAMES]


def traced_for_all_sizes(method, jit=False):
    return tf.function(
        outputs_and_gradients(method), input_signature=unknown_sizes(), jit_compile=jit
    )


recurrent_for_all_sizes = functools.cache(lambda: traced_for_all_sizes("recurrent"))


@functools.cache
def uncompiled_fused():
    """The fused scan with its loops in the graph in place of two compiled functions."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("compiled_forward", "compiled_backward"):
            make = getattr(fused, name)
            plain = functools.partial(lambda make, *sizes: make(*sizes).python_function, make)
            patch.setattr(fused, name, plain)
        traced = traced_for_all_sizes("fused")
        traced.get_concrete_function()
    return traced


@pytest.mark.parametrize("batch", [1, 3])
def test_fused_equals_recurrent_whatever_the_length(batch):
    for length in (1, 2, 3, 15, 16, 17, 31, 37, 64):
        inputs = arrays(2, batch=batch, length=length).values()
        assert_same(uncompiled_fused()(*inputs), recurrent_for_all_sizes()(*inputs), 1e-12)


def test_auto_is_fused():
    inputs = arrays(**SMALL)
    for auto, explicit in zip(run(inputs, "auto"), run(inputs, "fused"), strict=True):
        np.testing.assert_array_equal(auto, explicit)


# Eager, traced, compiled; sizes known and unknown


compiled = pytest.mark.parametrize("jit", [False, True], ids=["traced", "compiled"])


def test_eager_fused_equals_recurrent():
    inputs = [tf.constant(value) for value in arrays(3, **SMALL).values()]
    got = outputs_and_gradients("fused")(*inputs)
    assert_same(got, recurrent_for_all_sizes()(*inputs), 1e-12)


@methods
@compiled
def test_known_sizes_when_traced_and_compiled(method, jit):
    inputs = arrays(4, **SMALL).values()
    got = tf.function(outputs_and_gradients(method), jit_compile=jit)(*inputs)
    assert_same(got, recurrent_for_all_sizes()(*inputs), 1e-12)


@pytest.mark.parametrize(
    ("method", "jit"), [("recurrent", False), ("fused", False), ("fused", True)]
)
def test_one_trace_serves_unknown_batch_and_length(method, jit):
    traced = traced_for_all_sizes(method, jit)
    for sizes in (OTHER,) if jit else (OTHER, TINY):
        inputs = arrays(5, **sizes).values()
        assert_same(traced(*inputs), recurrent_for_all_sizes()(*inputs), 1e-12)
    assert traced.experimental_get_tracing_count() == 1


def test_eager_fused_is_traced_at_most_twice_whatever_the_length():
    before = fused.divided_forward.experimental_get_tracing_count()
    for length in (2, 3, 4):
        run(arrays(length=length, channels=5, states=4, dtype="float32"), "fused")
    compiled = fused.compiled_forward(5, 4, 5, tf.float32)
    assert compiled.experimental_get_tracing_count() == 1
    assert fused.divided_forward.experimental_get_tracing_count() - before <= 2


@methods
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(method):
    (y, last_state), gradients = values_and_gradients(arrays(batch=0), method)
    assert y.shape == (0, 5, 3) and last_state.shape == (0, 3, 2)
    for name, value in arrays(batch=0).items():
        assert gradients[name].shape == value.shape
    assert not np.any(gradients["A"]) and not np.any(gradients["D"])


@methods
def test_an_empty_batch_passes_a_trace_with_unknown_sizes(method):
    (y, last_state), gradients = traced_for_all_sizes(method)(*arrays(batch=0).values())
    assert y.shape == (0, 5, 3) and last_state.shape == (0, 3, 2)
    assert gradients["A"].shape == (3, 2) and not np.any(gradients["A"])


# State, dtypes, options


@methods
def test_two_runs_with_a_carried_state_equal_one(method):
    inputs = arrays(6, **SMALL)
    parts, state = [], inputs["initial_state"]
    for window in (slice(0, 2), slice(2, 5)):
        part = {name: inputs[name][:, window] for name in ("x", "delta", "B", "C", "z")}
        y, state = run(inputs | part | {"initial_state": state}, method)
        parts.append(y)
    y, last_state = run(inputs, method)
    assert relative(tf.concat(parts, axis=1), y) < 1e-13
    assert relative(state, last_state) < 1e-13


@methods
def test_without_initial_state_the_run_starts_from_zeros(method):
    inputs = arrays(7, **SMALL)
    del inputs["initial_state"]
    zeros = np.zeros((2, 3, 2))
    np.testing.assert_array_equal(
        run(inputs, method)[0], run(inputs | {"initial_state": zeros}, method)[0]
    )


@methods
def test_optional_arguments_are_neutral_when_left_out(method):
    inputs = arrays(8, **SMALL)
    inputs["delta"] = np.abs(inputs["delta"])
    plain = selective_scan(*(inputs[name] for name in REQUIRED), method=method)
    softplus_inverse = inputs["delta"] + np.log(-np.expm1(-inputs["delta"]))
    neutral = {"D": np.zeros(3), "delta_bias": np.zeros(3), "delta": softplus_inverse}
    y, _ = run(inputs | neutral | {"z": None, "initial_state": None}, method)
    assert isinstance(plain, tf.Tensor)
    assert relative(y, plain) < 1e-13


@methods
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_y_has_the_dtype_of_x_and_the_state_is_at_least_float32(method, dtype):
    inputs = arrays(9, **SMALL, dtype="float32")
    x = tf.cast(inputs["x"], dtype)
    y, last_state = run(inputs | {"x": x}, method)
    exact = inputs | {"x": tf.cast(x, tf.float64).numpy()}
    exact = naive_scan(**{name: value.astype("float64") for name, value in exact.items()})
    assert y.dtype == dtype
    assert last_state.dtype == (tf.float64 if dtype == tf.float64 else tf.float32)
    assert relative(last_state, exact[1]) < 1e-6
    rounding = {tf.float16: 1e-3, tf.bfloat16: 8e-3}.get(dtype, 1e-6)
    assert relative(tf.cast(y, tf.float64), exact[0]) < rounding


@methods
def test_gradients_come_in_the_dtype_of_each_argument(method):
    inputs = arrays(10, **SMALL, dtype="float32")
    inputs["x"] = inputs["x"].astype("float16")
    inputs["A"] = inputs["A"].astype("float64")
    _, gradients = values_and_gradients(inputs, method)
    for name, value in inputs.items():
        assert gradients[name].dtype == value.dtype, name


@methods
def test_numpy_arrays_and_variables_equal_tensors(method):
    inputs = arrays(11, **SMALL, dtype="float32")
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    variables = {name: tf.Variable(value) for name, value in inputs.items()}
    want = run(tensors, method)[0]
    np.testing.assert_array_equal(run(inputs, method)[0], want)
    np.testing.assert_array_equal(run(variables, method)[0], want)


@methods
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "traced"])
def test_second_derivatives_are_right_or_refused(method, wrap):
    inputs = [tf.constant(arrays(**SMALL)[name]) for name in REQUIRED]

    @wrap
    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(selective_scan(x, *inputs[1:], method=method) ** 2)
            slope = inner.gradient(total, x)
            penalty = tf.reduce_sum(slope**2)
        return outer.gradient(penalty, x)

    if method == "recurrent":
        assert np.abs(second(inputs[0])).max() > 0
    else:
        with pytest.raises(Exception, match="cannot be differentiated again"):
            second(inputs[0])


# Memory


def largest_buffer(method, inputs):
    """Elements of the largest array in the compiled program of the gradient."""

    @tf.function(jit_compile=True)
    def gradient(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = selective_scan(*tensors, method=method)
        return tape.gradient(y, tensors)

    program = gradient.experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
    shapes = re.findall(r"\bf32\[([\d,]+)\]", program)
    return max(np.prod([int(size) for size in shape.split(",")]) for shape in shapes)


def test_the_fused_gradient_never_holds_all_states():
    inputs = arrays(batch=1, length=256, channels=8, states=16, dtype="float32")
    inputs = [tf.constant(inputs[name]) for name in REQUIRED]
    states = 256 * 8 * 16
    assert largest_buffer("recurrent", inputs) >= states
    assert largest_buffer("fused", inputs) <= states / 8


# Bad input


def refuses(match, **changed):
    with pytest.raises(ValueError, match=match):
        run(arrays() | changed, changed.pop("method", "auto"))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_rank_is_named(name):
    rank, shape = arrays()[name].ndim, (2,) * (arrays()[name].ndim + 1)
    message = rf"`{name}` must have {rank} axes.* Received: {name} of shape {re.escape(str(shape))}"
    refuses(message, **{name: np.ones(shape)})


@pytest.mark.parametrize(
    ("name", "shape", "needed"),
    [
        ("delta", (2, 4, 3), "B=2, L=5, D=3"),
        ("A", (4, 2), "D=3, N"),
        ("B", (1, 5, 2), "B=2, L=5, N=2"),
        ("C", (2, 5, 1), "B=2, L=5, N=2"),
        ("D", (1,), "D=3"),
        ("z", (2, 5, 1), "B=2, L=5, D=3"),
        ("delta_bias", (2,), "D=3"),
        ("initial_state", (1, 3, 2), "B=2, D=3, N=2"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(name, shape, needed):
    received = rf"Received: {name} of shape {re.escape(str(shape))}"
    refuses(rf"`{name}` must have shape \({needed}\).* {received}", **{name: np.ones(shape)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["int32", "bool", "str", "complex64"])
def test_an_argument_that_is_not_floating_is_named(name, dtype):
    value = np.ones(arrays()[name].shape).astype(dtype)
    received = "string" if dtype == "str" else dtype
    refuses(
        rf"`{name}` must have a floating dtype.* Received: {name} of dtype {received}",
        **{name: value},
    )


def test_what_is_no_array_is_named():
    refuses("`x` must be a tensor or array of floating point numbers. Received: x=", x=object())


@methods
def test_no_steps_are_refused(method):
    with pytest.raises(ValueError, match=r"`x` must hold at least one step.*\(2, 0, 3\)"):
        run(arrays(length=0), method)


@pytest.mark.parametrize("method", ["parallel", "fast", None])
def test_an_unknown_method_is_refused(method):
    known = '"auto", "recurrent", "associative", "fused"'
    with pytest.raises(ValueError, match=rf"`method` must be one of {known}.*method={method!r}"):
        run(arrays(), method)
