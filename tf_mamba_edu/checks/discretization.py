"""Checks of chapter 03, discretization."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake


def _diagonal_case(rng):
    N = int(rng.integers(2, 6))
    A = -rng.uniform(0.3, 3.0, N).astype(np.float32)
    return (
        A,
        rng.normal(size=N).astype(np.float32) + 2,
        float(rng.uniform(0.3, 0.9)),
    )


check_zoh = Check(
    name="my_zoh",
    spec=lambda A, B, d: (np.exp(d * A), np.expm1(d * A) / A * B),
    outputs=("A_bar", "B_bar"),
    cases=_diagonal_case,
    hint="A_bar is the exponential of Delta A. For B_bar, integrate exp(A s) B over one step.",
    mistakes=(
        Mistake(
            lambda A, B, d: (1 + d * A, d * B),
            "this is Euler's rule. The zero-order hold solves the step exactly: the decay is "
            "exp(Delta A), not 1 + Delta A.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), d * B),
            "A_bar is right, but B_bar = Delta B is Mamba's shortcut. The exact one is the "
            "integral of exp(A s) B over the step.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), np.expm1(d * A) * B),
            "B_bar is not divided by A: integrating exp(A s) over s brings down 1 / A.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), -np.expm1(d * A) / A * B),
            "B_bar has the wrong sign: it is (A_bar - 1) / A times B, and for a negative A the "
            "factor is positive.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), -np.expm1(d * A) * B),
            "1 - A_bar is the weight for A = -1 only. For any other A divide by its size: "
            "(A_bar - 1) / A.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), -np.expm1(d * A)),
            "1 - A_bar is the weight for A = -1 and B = 1 only. In general it is (A_bar - 1) / A "
            "times B.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(d * A), np.expm1(d * A) / A),
            "the factor is right; it still has to be multiplied by B.",
        ),
        Mistake(
            lambda A, B, d: (
                np.exp(d * A),
                np.expm1(d * A) / (d * A) * B,
            ),
            "a factor Delta is missing: (A_bar - 1) / (Delta A) times Delta B.",
        ),
        Mistake(
            lambda A, B, d: (np.exp(-d * A), -np.expm1(-d * A) / A * B),
            "the sign of A is turned: A is already negative, so exp(Delta A) is the decay.",
        ),
        Mistake(
            lambda A, B, d: (
                (1 + d * A / 2) / (1 - d * A / 2),
                d * B / (1 - d * A / 2),
            ),
            "this is the bilinear rule. The zero-order hold has the exponential.",
        ),
    ),
)

check_largest_step = Check(
    name="largest_step",
    spec=0.5,
    outputs=("largest_step",),
    tolerance=0.01,
    hint="Euler multiplies the state by 1 + Delta A each step. Between which values must that lie?",
    mistakes=(
        Mistake(
            0.25,
            "at 1 / |A| the multiplier 1 + Delta A is 0. Beyond it the state changes sign each "
            "step, but still shrinks: there is room up to -1.",
        ),
        Mistake(
            2.0, "2 is the bound for Delta |A|. Divide by |A| = 4."
        ),
        Mistake(
            8.0,
            "you multiplied by |A|. A faster system needs smaller steps: divide.",
        ),
        Mistake(
            -0.5,
            "right size, but a step goes forward in time: it is positive.",
        ),
    ),
)


def _full_case(rng):
    N = int(rng.integers(2, 5))
    A = rng.normal(size=(N, N)) - 1.5 * np.eye(N)
    return (
        A.astype(np.float32),
        rng.normal(size=N).astype(np.float32),
        float(rng.uniform(0.3, 0.8)),
    )


def _bilinear(A, B, d):
    eye = np.eye(len(A))
    left = eye - d * A / 2
    return np.linalg.solve(left, eye + d * A / 2), np.linalg.solve(
        left, d * B
    )


def _bilinear_turned(A, B, d):
    eye = np.eye(len(A))
    left = eye + d * A / 2
    return np.linalg.solve(left, eye - d * A / 2), np.linalg.solve(
        left, d * B
    )


def _bilinear_whole(A, B, d):
    eye = np.eye(len(A))
    left = eye - d * A
    return np.linalg.solve(left, eye + d * A), np.linalg.solve(
        left, d * B
    )


def _backward_euler(A, B, d):
    left = np.eye(len(A)) - d * A
    return np.linalg.inv(left), np.linalg.solve(left, d * B)


def _elementwise(A, B, d):
    left = np.eye(len(A)) - d * A / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        A_bar = (np.eye(len(A)) + d * A / 2) / left
    return A_bar, np.linalg.solve(left, d * B)


def _ones_for_identity(A, B, d):
    left = 1 - d * A / 2
    return np.linalg.solve(left, 1 + d * A / 2), np.linalg.solve(
        left, d * B
    )


def _diagonal_formula(A, B, d):
    half = d * A / 2
    left = np.eye(len(A)) - half
    return (1 + half) / (1 - half), np.linalg.solve(left, d * B)


check_bilinear = Check(
    name="my_bilinear",
    spec=_bilinear,
    outputs=("A_bar", "B_bar"),
    cases=_full_case,
    hint="move everything that holds h_t to the left: (I - Delta A / 2) h_t = ... , then solve.",
    mistakes=(
        Mistake(
            _bilinear_turned,
            "plus and minus have changed places: the new state stands on the left, so its matrix "
            "is I - Delta A / 2.",
        ),
        Mistake(
            _bilinear_whole,
            "the halves are missing: each end of the step counts for Delta / 2.",
        ),
        Mistake(
            lambda A, B, d: (_bilinear(A, B, d)[0], d * B),
            "A_bar is right, but the input has to pass through (I - Delta A / 2)^-1 too.",
        ),
        Mistake(
            _backward_euler,
            "this is backward Euler, with the slope at the end of the step only.",
        ),
        Mistake(
            lambda A, B, d: (np.eye(len(A)) + d * A, d * B),
            "this is Euler's rule, with the slope at the start of the step only.",
        ),
        Mistake(
            _ones_for_identity,
            "1 + M adds 1 to every entry of the matrix. The identity has ones on its diagonal "
            "only: np.eye.",
        ),
        Mistake(
            _diagonal_formula,
            "this is the formula for one number, taken entry by entry. For a matrix, 1 becomes "
            "the identity and the division a solve.",
        ),
        Mistake(
            _elementwise,
            "a matrix is not inverted entry by entry: use np.linalg.solve (or inv).",
        ),
    ),
)


def _batch_case(rng):
    N, sequences, length = (
        int(v) for v in rng.integers((2, 2, 4), (5, 4, 7))
    )
    A = -rng.uniform(0.3, 2.0, N)
    B, C = rng.normal(size=(2, N)) + 1
    return (
        A,
        B,
        C,
        float(rng.uniform(0.2, 0.6)),
        rng.normal(size=(sequences, length)),
    )


def _run(
    A,
    B,
    C,
    delta,
    x,
    carried=False,
    decay=None,
    late=False,
    forgets=False,
):
    """The right recurrence and, by its switches, its wrong variants."""
    A_bar = np.exp(delta * A) if decay is None else decay(A, delta)
    B_bar = np.expm1(delta * A) / A * B
    h, y = np.zeros(len(A)), np.zeros(x.shape)
    for i in range(x.shape[0]):
        if not carried:
            h = np.zeros(len(A))
        for t in range(x.shape[1]):
            before = np.zeros(len(A)) if forgets else h
            h = A_bar * before + B_bar * x[i, t]
            y[i, t] = C @ (before if late else h)
    return y


check_run = Check(
    name="run",
    spec=_run,
    outputs=("y",),
    cases=_batch_case,
    hint="run the function on two sequences, and on each of them alone: do they agree? And for how "
    "long does a state fade during one step?",
    mistakes=(
        Mistake(
            lambda *a: _run(
                *a, carried=True, decay=lambda A, d: np.exp(A)
            ),
            "both bugs are still there.",
        ),
        Mistake(
            lambda *a: _run(*a, carried=True),
            "the state is carried from one sequence of the batch into the next. They are "
            "strangers to each other: each starts from zero.",
        ),
        Mistake(
            lambda *a: _run(*a, decay=lambda A, d: np.exp(A)),
            "the decay has no step size: exp(A) is what is left after one second, not after Delta.",
        ),
        Mistake(
            lambda *a: _run(*a, forgets=True),
            "the state now starts from zero at every step: reset it once a sequence, before the "
            "loop over time.",
        ),
        Mistake(
            lambda *a: _run(*a, late=True),
            "the output reads the state before the update: y_t must know x_t.",
        ),
        Mistake(
            lambda *a: _run(*a, decay=lambda A, d: 1 + d * A),
            "1 + Delta A is Euler's decay; B_bar here belongs to exp(Delta A).",
        ),
    ),
)


def _order_case(rng):
    deltas = np.geomspace(0.01, 0.5, 8)
    noise = np.exp(0.3 * rng.normal(size=8))
    size, order = rng.uniform(0.5, 3), rng.uniform(1, 3)
    return deltas, size * deltas**order * noise


def _slope(u, v):
    return np.polyfit(u, v, 1)[0]


check_observed_order = Check(
    name="observed_order",
    spec=lambda deltas, errors: _slope(np.log(deltas), np.log(errors)),
    outputs=("order",),
    cases=_order_case,
    tolerance=1e-3,
    hint="if error = c Delta^p, then log(error) = log(c) + p log(Delta): a straight line.",
    mistakes=(
        Mistake(
            lambda d, e: _slope(d, e),
            "this is the slope of the raw numbers. A power becomes a straight line only when "
            "both axes are logarithmic.",
        ),
        Mistake(
            lambda d, e: _slope(d, np.log(e)),
            "only the error is logarithmic here; take the logarithm of the step sizes too.",
        ),
        Mistake(
            lambda d, e: _slope(np.log(e), np.log(d)),
            "the axes have changed places: the error depends on the step, not the step on the "
            "error.",
        ),
        Mistake(
            lambda d, e: _slope(np.log(1 / d), np.log(e)),
            "the sign is turned: a positive order means that the error falls when Delta does.",
        ),
        Mistake(
            lambda d, e: np.polyfit(np.log(d), np.log(e), 1)[1],
            "this is the intercept, log(c). np.polyfit returns the slope first.",
        ),
        Mistake(
            lambda d, e: np.log(e[1] / e[0]) / np.log(d[1] / d[0]),
            "this uses only two neighboring points: their noise is as large as the trend. Fit all.",
        ),
        Mistake(
            lambda d, e: np.log(e[-1] / e[0]) / np.log(d[-1] / d[0]),
            "this uses only the two outer points (the mean of all neighboring slopes does the "
            "same: the inner ones cancel). One noisy point spoils it: fit a line (np.polyfit).",
        ),
    ),
)


def _first_order_hold(A, B, d):
    z = d * A
    first, second = np.expm1(z) / z, (np.expm1(z) - z) / z**2
    return np.exp(z), d * (first - second) * B, d * second * B


def _scaled(index, factor):
    """The first-order hold with one coefficient multiplied by a function of (A, d)."""

    def wrong(A, B, d):
        result = list(_first_order_hold(A, B, d))
        result[index] = result[index] * factor(A, d)
        return tuple(result)

    return wrong


check_first_order_hold = Check(
    name="first_order_hold",
    spec=_first_order_hold,
    outputs=("alpha", "beta", "gamma"),
    cases=_diagonal_case,
    tolerance=2e-3,
    hint="a constant input of 1 must come out as in the zero-order hold: beta + gamma = B_bar.",
    mistakes=(
        Mistake(
            lambda A, B, d: (
                np.exp(d * A),
                d * np.exp(d * A) * B / 2,
                d * B / 2,
            ),
            "this is the exponential-trapezoidal rule with lambda = 1/2: close, but the integral "
            "of a straight line against the decay can be done exactly.",
        ),
        Mistake(
            lambda A, B, d: tuple(
                _first_order_hold(A, B, d)[i] for i in (0, 2, 1)
            ),
            "beta and gamma have changed places: beta belongs to the older input x_{t-1}. If you "
            "derived them so, look whether your decay runs from the wrong end of the step: what "
            "comes in at s still fades for Delta - s.",
        ),
        Mistake(
            lambda A, B, d: (
                np.exp(d * A),
                np.expm1(d * A) / A * B,
                np.zeros_like(B),
            ),
            "this is the zero-order hold of the older input.",
        ),
        Mistake(
            lambda A, B, d: (
                np.exp(d * A),
                np.zeros_like(B),
                np.expm1(d * A) / A * B,
            ),
            "this is the zero-order hold: the input is taken constant, not as a straight line.",
        ),
        Mistake(
            _scaled(2, lambda A, d: d * A),
            "gamma lacks a division by Delta A: its integral holds s / Delta, and integrating by "
            "parts divides by A twice.",
        ),
        Mistake(
            lambda A, B, d: (
                np.exp(d * A),
                np.expm1(d * A) / A * B,
                _first_order_hold(A, B, d)[2],
            ),
            "beta should be what remains of the zero-order hold's B_bar once gamma is taken away: "
            "x(s) = (1 - s / Delta) x_{t-1} + (s / Delta) x_t.",
        ),
    ),
)
