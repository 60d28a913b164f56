"""The mode matrix of the selective scan: every method in every mode, at every length.

Inputs are float32; outputs and the gradient of every argument are compared with a NumPy loop in
float64. `make test` runs a cover of all pairs of settings, `make test-full` all combinations.
"""

import collections
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from tf_mamba_edu import selective_scan
from tf_mamba_edu.scan import fused

METHODS = ("recurrent", "associative", "fused", "auto")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
SIZES = {"narrow": (2, 4, 3), "wide": (1, 130, 2)}  # B, D, N; wide is cut into two shares
FACTORS = {
    "method": METHODS,
    "mode": ("eager", "traced", "unknown", "compiled", "fit", "fit_compiled"),
    "length": (1, 2, 3, 7, 64, 97, 128, 1000),
    **{name: (False, True) for name in (*OPTIONAL, "softplus")},
    "sizes": tuple(SIZES),
}
OF_A_SEQUENCE = ("x", "delta", "B", "C", "z", "initial_state")  # all others belong to the model
VALUES, GRADIENTS = 1e-5, 1e-4  # max abs error over max abs value
NOTHING = 1e-30  # what float32 can no longer tell from 0


# The oracle


def oracle(inputs, weights, softplus):
    """Outputs, and gradients of their weighted sum, in float64: loops, forward and backward."""
    inputs = {name: np.asarray(value, np.float64) for name, value in inputs.items()}
    weight_y, weight_h = (np.asarray(value, np.float64) for value in weights)
    x, A, B, C = (inputs[name] for name in ("x", "A", "B", "C"))
    before = inputs["delta"] + inputs.get("delta_bias", 0)
    delta = np.logaddexp(0, before) if softplus else before
    length = x.shape[1]

    h = inputs.get("initial_state", np.zeros((len(x), *A.shape)))
    states, y = [h], np.zeros_like(x)
    for t in range(length):
        written = (delta[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        h = np.exp(delta[:, t, :, None] * A) * h + written
        y[:, t] = (h * C[:, t, None, :]).sum(-1)
        states.append(h)
    skipped = y + inputs.get("D", 0) * x
    z = inputs.get("z", np.full_like(x, np.inf))
    gate = z * expit(z) if "z" in inputs else 1

    dy = weight_y * gate
    found = {name: np.zeros_like(inputs[name]) for name in ("x", "delta", "A", "B", "C")}
    found["D"] = (dy * x).sum((0, 1))
    found["z"] = weight_y * skipped * expit(z) * (1 + z * expit(-z)) if "z" in inputs else None
    g = weight_h
    for t in reversed(range(length)):
        g = g + C[:, t, None, :] * dy[:, t, :, None]
        found["C"][:, t] = (dy[:, t, :, None] * states[t + 1]).sum(1)
        found["B"][:, t] = (g * (delta[:, t] * x[:, t])[:, :, None]).sum(1)
        g_B = (g * B[:, t, None, :]).sum(-1)
        g = g * np.exp(delta[:, t, :, None] * A)
        found["A"] += (g * states[t] * delta[:, t, :, None]).sum(0)
        found["delta"][:, t] = (g * states[t] * A).sum(-1) + g_B * x[:, t]
        found["x"][:, t] = g_B * delta[:, t] + inputs.get("D", 0) * dy[:, t]
    found["delta"] *= expit(before) if softplus else 1
    found["delta_bias"] = found["delta"].sum((0, 1))
    found["initial_state"] = g
    return (skipped * gate, h), {name: found[name] for name in inputs}


def differs(got, want, tolerance):
    """Whether the largest error is more than a part of the largest value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return not np.abs(got - want).max() <= tolerance * np.abs(want).max() + NOTHING


def all_differences(got, want, values=VALUES, gradients=GRADIENTS):
    """Names of the outputs and gradients that are not what they should be."""
    (outputs, found), (wanted, exact) = got, want
    assert found.keys() == exact.keys()
    pairs = zip(("y", "last_state"), outputs, wanted, strict=True)
    wrong = [name for name, one, other in pairs if differs(one, other, values)]
    return wrong + [f"d{name}" for name in exact if differs(found[name], exact[name], gradients)]


# Cases


def drawn(length, sizes, options, softplus, seed=0):
    """Random float32 arguments, and weights of the outputs in the loss."""
    rng = np.random.default_rng([seed, length])
    batch, D, N = sizes
    sequence, state = (batch, length, D), (batch, length, N)
    inputs = {
        "x": rng.normal(size=sequence),
        "delta": rng.normal(size=sequence) - 1 if softplus else rng.uniform(0.05, 1, sequence),
        "A": -rng.uniform(0.05, 2.0, (D, N)),
        "B": rng.normal(size=state),
        "C": rng.normal(size=state),
        "D": rng.normal(size=D),
        "z": rng.normal(size=sequence),
        "delta_bias": rng.uniform(0, 0.5, D),
        "initial_state": rng.normal(size=(batch, D, N)),
    }
    weights = rng.normal(size=sequence), rng.normal(size=(batch, D, N))
    left_out = [name for name in OPTIONAL if not options[name]]
    inputs = {name: value for name, value in inputs.items() if name not in left_out}
    return tf.nest.map_structure(lambda value: value.astype("float32"), (inputs, weights))


@functools.cache
def oracle_of(length, sizes, softplus, choice):
    """What the oracle makes of these inputs."""
    inputs, weights = drawn(length, sizes, {name: name in choice for name in OPTIONAL}, softplus)
    return oracle(inputs, weights, softplus)


# Modes: each takes the arguments of `choose_and_differentiate` and returns what it returns


def loss(y, last_state, weights):
    """A weighted sum in which every output counts."""
    weight_y, weight_h = weights
    return tf.reduce_sum(tf.cast(y, weight_y.dtype) * weight_y) + tf.reduce_sum(
        last_state * weight_h
    )


def differentiated(method, softplus, inputs, weights):
    """((y, last_state), {name: gradient}) of the loss."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = selective_scan(
            **inputs, delta_softplus=softplus, method=method, return_last_state=True
        )
        total = loss(*outputs, weights)
    return outputs, tape.gradient(total, inputs)


def taken(inputs, choice):
    """The arguments that stay when only so many of the optional ones are chosen."""
    return {k: value for k, value in inputs.items() if k not in OPTIONAL or k in choice}


def choose_and_differentiate(method, softplus, choices, inputs, weights):
    """What `differentiated` returns, for each choice of optional arguments.

    All choices in one function is many times faster to trace and to compile than one by one.
    """
    return [differentiated(method, softplus, taken(inputs, c), weights) for c in choices]


def function_of(*given, **options):
    return tf.function(functools.partial(choose_and_differentiate, *given), **options)


def tensors(values):
    return tf.nest.map_structure(tf.constant, values)


def eager(*given):
    return choose_and_differentiate(*given[:3], *tensors(given[3:]))


def traced(*given):
    return function_of(*given[:3])(*tensors(given[3:]))


def compiled(*given):
    return function_of(*given[:3], jit_compile=True)(*tensors(given[3:]))


def open_spec(name, value):
    """The shape of an argument with B and L left open."""
    shape = list(value.shape)
    if name in OF_A_SEQUENCE:
        shape[0] = None
        shape[1:2] = shape[1:2] if name == "initial_state" else [None]
    return tf.TensorSpec(shape, value.dtype)


def open_specs(inputs, weights):
    specs = {name: open_spec(name, value) for name, value in inputs.items()}
    return [specs, (open_spec("x", weights[0]), open_spec("initial_state", weights[1]))]


@functools.cache
def open_function(method, softplus, choices, D, N):
    """One trace for any B and L."""
    on = {name: any(name in choice for choice in choices) for name in OPTIONAL}
    specs = open_specs(*drawn(1, (1, D, N), on, softplus))
    return function_of(method, softplus, choices, input_signature=specs)


def unknown(method, softplus, choices, inputs, weights):
    run = open_function(method, softplus, choices, *inputs["A"].shape)
    results = run(*tensors((inputs, weights)))
    assert run.experimental_get_tracing_count() == 1
    return results


class Scan(keras.layers.Layer):
    """The scan of arguments that are the data, or fixed, plus a weight each that is 0 at first.

    After a step of gradient descent with learning rate 1, each weight is minus its gradient; for
    data that is the sum over the batch.
    """

    def __init__(self, method, softplus, inputs, weights):
        super().__init__()
        self.options = dict(delta_softplus=softplus, method=method, return_last_state=True)
        self.fixed = {k: tf.constant(v) for k, v in inputs.items() if k not in OF_A_SEQUENCE}
        self.shifts = {
            name: self.add_weight(
                shape=value.shape if name in self.fixed else value.shape[1:], initializer="zeros"
            )
            for name, value in inputs.items()
        }
        self.seen = [self.add_weight(shape=value.shape, trainable=False) for value in weights]

    def call(self, data):
        weights = data["weight_y"], data["weight_h"]
        data = data | self.fixed
        arguments = {name: data[name] + shift for name, shift in self.shifts.items()}
        outputs = selective_scan(**arguments, **self.options)
        for variable, value in zip(self.seen, outputs, strict=True):
            variable.assign(value)
        self.add_loss(loss(*outputs, weights))
        return outputs[0]


def fit(method, softplus, choices, inputs, weights, jit_compile="auto"):
    """One step of a model that holds a layer for each choice."""
    layers = [Scan(method, softplus, taken(inputs, choice), weights) for choice in choices]
    data = {name: value for name, value in inputs.items() if name in OF_A_SEQUENCE}
    data |= {"weight_y": weights[0], "weight_h": weights[1]}
    places = {name: keras.Input(value.shape[1:], name=name) for name, value in data.items()}
    model = keras.Model(places, [layer(places) for layer in layers])
    model.compile(keras.optimizers.SGD(1.0), jit_compile=jit_compile)
    model.fit(data, batch_size=len(inputs["x"]), shuffle=False, verbose=0)
    return [
        (layer.seen, {name: -shift.numpy() for name, shift in layer.shifts.items()})
        for layer in layers
    ]


def fit_compiled(*given):
    return fit(*given, jit_compile=True)


MODES = {f.__name__: f for f in (eager, traced, unknown, compiled, fit, fit_compiled)}


def mistakes(method, mode, length, sizes, softplus, choices):
    """Names of the wrong outputs and gradients of each choice that has some."""
    sizes, wrong = SIZES[sizes], {}
    on = {name: any(name in choice for choice in choices) for name in OPTIONAL}
    results = MODES[mode](method, softplus, choices, *drawn(length, sizes, on, softplus))
    for choice, result in zip(choices, results, strict=True):
        wanted, exact = oracle_of(length, sizes, softplus, choice)
        if mode.startswith("fit"):
            exact = {k: v.sum(0) if k in OF_A_SEQUENCE else v for k, v in exact.items()}
        wrong[choice] = all_differences(result, (wanted, exact))
    return {choice: names for choice, names in wrong.items() if names}


# All pairs


def pairs_of(case):
    """Any two settings of a case, each a pair (factor, value)."""
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def pair_cover(factors):
    """A list of cases in which each pair of settings occurs: greedy, always the same."""
    settings = [[(name, value) for value in values] for name, values in factors.items()]
    pairs = [
        pair
        for one, other in itertools.combinations(settings, 2)
        for pair in itertools.product(one, other)
    ]
    missing, used, cases = dict.fromkeys(map(frozenset, pairs)), collections.Counter(), []
    while missing:
        case = dict(next(pair for pair in pairs if frozenset(pair) in missing))
        for options in settings:
            if options[0][0] not in case:
                case |= [max(options, key=lambda o: (gain(case, o, missing), -used[o]))]
        for pair in pairs_of(case):
            missing.pop(pair, None)
        used.update(case.items())
        cases.append({name: case[name] for name in factors})
    return cases


def gain(case, setting, missing):
    """How many missing pairs one more setting would bring."""
    return sum(frozenset([setting, other]) in missing for other in case.items())


COVER = pair_cover(FACTORS)


def label(case):
    on = [name for name, value in case.items() if value is True]
    return "-".join([*(str(case[k]) for k in ("method", "mode", "length", "sizes")), *on])


def test_the_cover_holds_every_pair_of_settings():
    for one, other in itertools.combinations(FACTORS, 2):
        held = {(case[one], case[other]) for case in COVER}
        assert held == set(itertools.product(FACTORS[one], FACTORS[other])), (one, other)


def test_the_cover_is_small_and_always_the_same():
    assert [list(case) for case in COVER] == [list(FACTORS)] * len(COVER)
    assert 48 <= len(COVER) < 64  # 6 modes at 8 lengths are 48 pairs
    assert pair_cover(FACTORS) == COVER


@pytest.fixture
def two_cores(monkeypatch):
    """The same shares on every machine."""
    monkeypatch.setattr(fused, "cores", lambda: 2)


@pytest.mark.parametrize("case", COVER, ids=label)
def test_pairs_of_settings(case, two_cores):
    choice = tuple(name for name in OPTIONAL if case[name])
    case = {name: value for name, value in case.items() if name not in OPTIONAL}
    assert not mistakes(**case, choices=(choice,))


# All combinations

CHOICES = tuple(
    choice for n in range(len(OPTIONAL) + 1) for choice in itertools.combinations(OPTIONAL, n)
)


@pytest.mark.full
@pytest.mark.parametrize("length", FACTORS["length"])
@pytest.mark.parametrize("softplus", [False, True], ids=["plain", "softplus"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_all_combinations(method, sizes, mode, softplus, length, two_cores):
    assert len(CHOICES) == 2 ** len(OPTIONAL)
    assert not mistakes(method, mode, length, sizes, softplus, CHOICES)


# The oracle itself


def test_the_gradients_of_the_oracle_are_those_of_differences():
    inputs, weights = drawn(4, (2, 3, 2), dict.fromkeys(OPTIONAL, True), True)
    inputs = {name: value.astype("float64") for name, value in inputs.items()}

    def total():
        outputs, _ = oracle(inputs, weights, True)
        return sum(np.sum(a * b) for a, b in zip(outputs, weights, strict=True))

    _, gradients = oracle(inputs, weights, True)
    for name, value in inputs.items():
        numeric = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + 1e-5
            above = total()
            value[index] = kept - 1e-5
            numeric[index] = (above - total()) / 2e-5
            value[index] = kept
        assert not differs(gradients[name], numeric, 1e-8), name


def test_the_oracle_is_the_recurrence_with_all_options_or_none():
    for on in (False, True):
        inputs, weights = drawn(9, (2, 3, 2), dict.fromkeys(OPTIONAL, on), on)
        exact = tf.nest.map_structure(lambda value: value.astype("float64"), (inputs, weights))
        got = differentiated("recurrent", on, *tensors(exact))
        assert all_differences(got, oracle(inputs, weights, on), 1e-12, 1e-12) == []
