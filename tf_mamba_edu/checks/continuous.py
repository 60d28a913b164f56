"""Checks of chapter 02, continuous state space models."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from tf_mamba_edu.checks.core import Check, Mistake


def _spring_case(rng):
    return tuple(float(v) for v in rng.uniform(0.5, 4.0, 3))


check_spring_matrices = Check(
    name="spring_matrices",
    spec=lambda m, c, k: ([[0, 1 / m], [-k, -c / m]], [0, 1]),
    outputs=("A", "B"),
    cases=_spring_case,
    hint="write p' and q' with p and q alone: where Newton's law has v, put q / m.",
    mistakes=(
        Mistake(
            lambda m, c, k: ([[0, 1], [-k / m, -c / m]], [0, 1 / m]),
            "this is the chapter's system, with the state (position, velocity). Here the second "
            "component is the momentum q = m v.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1 / m], [k, c / m]], [0, 1]),
            "the second row of A has the wrong sign: spring and damper push back. With a plus "
            "they would speed the mass up for ever.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1], [-k, -c / m]], [0, 1]),
            "the first row is p' = v, and v is not q: divide the momentum by the mass.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1 / m], [-k, -c]], [0, 1]),
            "the damper brakes with c times the velocity, not c times the momentum.",
        ),
        Mistake(
            lambda m, c, k: (
                [[0, 1 / m], [-k / m, -c / m]],
                [0, 1 / m],
            ),
            "the second row was divided by the mass once too often: q' = m v' is the force itself.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1 / m], [-k, -c / m]], [0, 1 / m]),
            "A is right. The push changes the momentum by itself, without a division by the mass.",
        ),
        Mistake(
            lambda m, c, k: ([[-c / m, -k], [1 / m, 0]], [1, 0]),
            "this is right for the state (momentum, position). The exercise orders it (position, "
            "momentum).",
        ),
    ),
)

check_fading_time = Check(
    name="fading_time",
    spec=np.log(20) / 0.25,
    outputs=("fading_time",),
    tolerance=0.02,
    hint="the envelope of the swing is exp(t * real part of the pole); which t makes it 0.05?",
    mistakes=(
        Mistake(
            np.log(20) / 0.5,
            "you took the damping c = 0.5 for the rate of decay. The poles solve "
            "s^2 + 0.5 s + 4 = 0: their real part is -c / (2 m).",
        ),
        Mistake(
            -np.log(20) / 0.25,
            "a sign was lost: this is a time in the past.",
        ),
        Mistake(
            np.log(2) / 0.25,
            "this is the half-life. The question asks when 5 % are left, not 50 %.",
        ),
        Mistake(
            np.log10(20) / 0.25,
            "this used the logarithm to base 10; the decay is a power of e.",
        ),
        Mistake(
            np.log(20) / 2,
            "you took the size of the pole, or its imaginary part. Only the real part fades; the "
            "imaginary part is the swing.",
        ),
        Mistake(
            np.log(20) * 0.25,
            "you multiplied by the rate. A faster decay makes the time shorter: divide.",
        ),
    ),
)


def _system_case(rng):
    N = int(rng.integers(2, 5))
    A = rng.normal(size=(N, N)) / np.sqrt(N) - 1.5 * np.eye(N)
    B, C = rng.normal(size=(2, N)) + 0.5
    t = np.sort(rng.uniform(0.2, 2.0, 6))
    return A, B, C, t


def _blows_case(rng):
    A, B, C, _ = _system_case(rng)
    moments = np.sort(rng.uniform(0.0, 3.0, 6))
    return (
        A,
        B,
        C,
        moments,
        rng.normal(size=6),
        float(moments[3] + 0.01),
    )


def _after_blows(
    A, B, C, moments, strengths, t, kernel=scipy.linalg.expm, past=True
):
    """The right answer and, by its switches, its wrong variants."""
    return sum(
        s * (C @ kernel(A * (t - m)) @ B)
        for m, s in zip(moments, strengths, strict=True)
        if m <= t or not past
    )


def _after_blows_from_zero(A, B, C, moments, strengths, t):
    return _after_blows(A, B, C, t - moments, strengths, t)


check_after_blows = Check(
    name="after_blows",
    spec=_after_blows,
    outputs=("output",),
    cases=_blows_case,
    hint="draw the time line: how long ago was each blow, and which of them count at all?",
    mistakes=(
        Mistake(
            lambda *args: _after_blows(*args, past=False),
            "blows that are still to come are counted too (with a negative time!). The future "
            "must not reach the output: leave out what comes after t.",
        ),
        Mistake(
            lambda *args: _after_blows(*args, kernel=np.exp),
            "this is the exponential of each entry (np.exp). A state moves by the matrix "
            "exponential: scipy.linalg.expm.",
        ),
        Mistake(
            lambda A, B, C, m, s, t: _after_blows(
                A, B, C, m, np.ones(len(m)), t
            ),
            "the strengths are missing: twice the blow leaves twice as much.",
        ),
        Mistake(
            lambda A, B, C, m, s, t: _after_blows(
                A, B, C, t - np.abs(t - m), s, t
            ),
            "blows that are still to come are counted as if they had fallen: leave out what comes "
            "after t.",
        ),
        Mistake(
            lambda A, B, C, m, s, t: _after_blows(
                A, B, np.eye(len(A)), m, s, t
            ),
            "this is the state. The output still has to read it with C.",
        ),
        Mistake(
            _after_blows_from_zero,
            "the exponential runs over the moment of the blow. What counts is how long ago it "
            "was: t minus the moment.",
        ),
        Mistake(
            lambda *args: _after_blows(
                *args, kernel=lambda M: scipy.linalg.expm(-M)
            ),
            "the time runs backward: the exponent is +A times the time since the blow.",
        ),
        Mistake(
            lambda *args: _after_blows(
                *args, kernel=lambda M: scipy.linalg.expm(M).T
            ),
            "B and C have changed sides: the blow enters through B on the right, the output reads "
            "with C on the left.",
        ),
    ),
)


def _simulation_case(rng):
    A, B, C, _ = _system_case(rng)
    return (
        A,
        B,
        C,
        float(rng.uniform(0.5, 1.5)),
        rng.normal(size=7),
        float(rng.uniform(0.2, 0.6)),
    )


def _simulate(
    A,
    B,
    C,
    D,
    x,
    dt,
    read_first=False,
    skip=True,
    decay=None,
    hold=True,
):
    """The right simulation and, by its switches, its wrong variants."""
    N = len(A)
    big = np.zeros((N + 1, N + 1))
    big[:N, :N], big[:N, N] = A, B
    E = scipy.linalg.expm(big * dt)
    A_bar, B_bar = (
        E[:N, :N] if decay is None else decay(A),
        E[:N, N] if hold else dt * B,
    )
    h, y = np.zeros(N), []
    for x_k in x:
        before = h
        h = A_bar @ h + B_bar * x_k
        y.append(
            C @ (before if read_first else h)
            + (D * x_k if skip else 0.0)
        )
    return np.array(y)


check_simulation = Check(
    name="simulate",
    spec=_simulate,
    outputs=("y",),
    cases=_simulation_case,
    hint="compare the loop with the two equations, symbol by symbol: which state does the output "
    "read, and does every letter of the second equation occur?",
    mistakes=(
        Mistake(
            lambda *args: _simulate(*args, read_first=True, skip=False),
            "both bugs are still there. One is a matter of order, the other of a letter.",
        ),
        Mistake(
            lambda *args: _simulate(*args, skip=False),
            "the skip term D x is missing from the output.",
        ),
        Mistake(
            lambda *args: _simulate(*args, read_first=True),
            "the output is one step late: it reads the state before the update, so y[k] does not "
            "know x[k] but through D.",
        ),
        Mistake(
            lambda A, B, C, D, x, dt: (
                _simulate(A, B, C, 0.0, x, dt) + D
            ),
            "D stands in the output, but without its x: the skip passes the input on.",
        ),
        Mistake(
            lambda *args: _simulate(*args, hold=False),
            "the input now enters as dt * B, which is only right for tiny dt: keep the B_bar of "
            "the code that you were given.",
        ),
    ),
)


def _critical_case(rng):
    return tuple(float(v) for v in rng.uniform(0.5, 5.0, 2))


check_critical_damping = Check(
    name="critical_damping",
    spec=lambda mass, stiffness: 2 * np.sqrt(mass * stiffness),
    outputs=("damping",),
    cases=_critical_case,
    hint="write down the poles as a function of the damping. When do they stop being complex?",
    mistakes=(
        Mistake(
            lambda m, k: np.sqrt(m * k),
            "the factor 2 is missing: the discriminant is c^2 - 4 m k.",
        ),
        Mistake(
            lambda m, k: 4 * m * k,
            "this is c^2: take the square root.",
        ),
        Mistake(
            lambda m, k: 2 * np.sqrt(k / m),
            "this is c / m. The answer is the damping itself: multiply by the mass.",
        ),
        Mistake(
            lambda m, k: -2 * np.sqrt(m * k),
            "right size, wrong sign: a damping that brakes is positive.",
        ),
        Mistake(
            lambda m, k: k,
            "that fits the chapter's spring (m = 1, k = 4), but only by accident: try k = 1.",
        ),
        Mistake(
            lambda m, k: 2 * np.sqrt(k),
            "that is right for a mass of 1. What does a heavier mass change?",
        ),
        Mistake(
            lambda m, k: np.sqrt(k / m),
            "this is the frequency of the undamped swing, in rad / s, not a damping.",
        ),
    ),
)


def _series_case(rng):
    def system():
        N = int(rng.integers(1, 4))
        B, C = rng.normal(size=(2, N))
        return rng.normal(size=(N, N)), B, C, float(rng.normal())

    return (*system(), *system())


def _series(A1, B1, C1, D1, A2, B2, C2, D2):
    n, k = len(A1), len(A2)
    A = np.zeros((n + k, n + k))
    A[:n, :n], A[n:, n:], A[n:, :n] = A1, A2, np.outer(B2, C1)
    return (
        A,
        np.concatenate([B1, B2 * D1]),
        np.concatenate([D2 * C1, C2]),
        D2 * D1,
    )


def _changed_series(**changes):
    """The two systems in a row with some of the four results replaced: name = f(result, args)."""

    def wrong(*args):
        result = dict(zip("ABCD", _series(*args), strict=True))
        return tuple(
            changes.get(name, lambda r, a, v=v: v)(result, args)
            for name, v in result.items()
        )

    return wrong


def _uncoupled(result, args):
    A, n = result["A"].copy(), len(args[0])
    A[n:, :n] = 0
    return A


def _coupled_above(result, args):
    A, n = _uncoupled(result, args), len(args[0])
    A[:n, n:] = np.outer(args[2], args[5])
    return A


check_series = Check(
    name="in_series",
    spec=_series,
    outputs=("A", "B", "C", "D"),
    cases=_series_case,
    hint="the input of the second system is y1 = C1 h1 + D1 x. Put that into both of its equations "
    "and collect what multiplies h1, h2 and x.",
    mistakes=(
        Mistake(
            _changed_series(
                A=_uncoupled,
                B=lambda r, a: np.concatenate([a[1], a[5]]),
            ),
            "these are two systems side by side, each with the input x. In a row the second one "
            "hears only the first one's output.",
        ),
        Mistake(
            _changed_series(
                C=lambda r, a: np.concatenate([a[2], a[6]])
            ),
            "the first system's state reaches the output only through the skip of the second: "
            "C1 needs a factor.",
        ),
        Mistake(
            _changed_series(A=_uncoupled),
            "the second system does not hear the first: A needs a block B2 C1 below the diagonal.",
        ),
        Mistake(
            _changed_series(A=_coupled_above),
            "the coupling stands above the diagonal, as if the first system listened to the "
            "second. h2' is the second row: the block belongs below.",
        ),
        Mistake(
            _changed_series(
                B=lambda r, a: np.concatenate(
                    [a[1], np.zeros(len(a[4]))]
                )
            ),
            "part of the input reaches the second state at once, through the skip D1 of the "
            "first system: the lower part of B is B2 D1.",
        ),
        Mistake(
            _changed_series(
                B=lambda r, a: np.concatenate([a[1], a[5]])
            ),
            "the second system does not see x itself, only what the first makes of it: the lower "
            "part of B is B2 D1, not B2.",
        ),
        Mistake(
            _changed_series(
                C=lambda r, a: np.concatenate(
                    [np.zeros(len(a[0])), a[6]]
                )
            ),
            "the skip D2 of the second system carries the first one's output through: the first "
            "part of C is D2 C1.",
        ),
        Mistake(
            _changed_series(D=lambda r, a: a[3] + a[7]),
            "two skips in a row multiply, they do not add.",
        ),
        Mistake(
            lambda A1, B1, C1, D1, A2, B2, C2, D2: _series(
                A2, B2, C2, D2, A1, B1, C1, D1
            ),
            "this is the second system before the first. The exercise wants the input to enter "
            "system 1, and the state ordered (h1, h2).",
        ),
    ),
)
