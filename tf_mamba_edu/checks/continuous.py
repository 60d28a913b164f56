"""Checks of chapter 02, continuous state space models."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from tf_mamba_edu.checks.core import Check, Mistake


def _spring_case(rng):
    return tuple(float(v) for v in rng.uniform(0.5, 4.0, 3))


def _spring(mass, damping, stiffness):
    return [[0, 1], [-stiffness / mass, -damping / mass]], [0, 1 / mass]


check_spring_matrices = Check(
    name="spring_matrices",
    spec=_spring,
    outputs=("A", "B"),
    cases=_spring_case,
    hint="write p' = v and v' = (x - c v - k p) / m, then read A and B off row by row.",
    mistakes=(
        Mistake(
            lambda m, c, k: ([[0, 1], [k / m, c / m]], [0, 1 / m]),
            "the second row of A has the wrong sign: spring and damper push back, against "
            "position and velocity. With a plus they would speed the mass up for ever.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1], [-k, -c]], [0, 1 / m]),
            "you forgot the mass in A: Newton's law gives m v', so divide the forces by m.",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1], [-k / m, -c / m]], [0, 1]),
            "A is right, but B should be divided by the mass: a heavy mass yields less to the "
            "same push.",
        ),
        Mistake(
            lambda m, c, k: ([[-c / m, -k / m], [1, 0]], [1 / m, 0]),
            "this is the right system for the state (velocity, position). The exercise, like the "
            "chapter, orders it (position, velocity).",
        ),
        Mistake(
            lambda m, c, k: ([[0, 1], [-c / m, -k / m]], [0, 1 / m]),
            "damping and stiffness have changed places in A: the stiffness multiplies the "
            "position (first column), the damping the velocity (second).",
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


def _impulse(A, B, C, t):
    return np.array([C @ scipy.linalg.expm(A * s) @ B for s in t])


check_impulse_response = Check(
    name="impulse_response",
    spec=_impulse,
    outputs=("response",),
    cases=_system_case,
    hint="for one time s the response is C @ expm(A * s) @ B, a number; collect one for each s.",
    mistakes=(
        Mistake(
            lambda A, B, C, t: np.array(
                [C @ np.exp(A * s) @ B for s in t]
            ),
            "this is the exponential of each entry (np.exp). A state moves by the matrix "
            "exponential: scipy.linalg.expm.",
        ),
        Mistake(
            lambda A, B, C, t: np.array(
                [C @ scipy.linalg.expm(-A * s) @ B for s in t]
            ),
            "the time runs backward: the exponent is +A t. The minus is already inside A.",
        ),
        Mistake(
            lambda A, B, C, t: np.array(
                [C @ scipy.linalg.expm(A * s).T @ B for s in t]
            ),
            "B and C have changed sides (or the exponential is transposed): the input enters "
            "through B on the right, the output reads with C on the left.",
        ),
        Mistake(
            lambda A, B, C, t: np.array(
                [scipy.linalg.expm(A * s) @ B for s in t]
            ),
            "these are the states. The output still has to read them: multiply by C from the left.",
        ),
        Mistake(
            lambda A, B, C, t: np.array(
                [C @ (np.eye(len(A)) + A * s) @ B for s in t]
            ),
            "I + A t is only the beginning of the exponential's series: good for tiny t, wrong "
            "for these.",
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
            "both bugs are still there: the output reads the state of the interval before, and "
            "one term of y(t) = C h(t) + D x(t) is missing.",
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
    hint="m s^2 + c s + k = 0 has two equal roots when its discriminant c^2 - 4 m k is zero.",
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
            lambda m, k: np.sqrt(k / m),
            "this is the frequency of the undamped swing, in rad / s, not a damping.",
        ),
    ),
)


def _modes(A, B, C, t):
    poles, V = np.linalg.eig(A)
    return _read_modes(
        poles, (C @ V) * np.linalg.solve(V, B.astype(complex)), t
    )


def _read_modes(poles, weights, t):
    return (np.exp(t[:, None] * poles) @ weights).real


def _modes_without_inverse(A, B, C, t):
    poles, V = np.linalg.eig(A)
    return _read_modes(poles, (C @ V) * (V.T @ B), t)


def _modes_without_basis(A, B, C, t):
    return _read_modes(np.linalg.eigvals(A), (C * B).astype(complex), t)


def _modes_only_decay(A, B, C, t):
    poles, V = np.linalg.eig(A)
    return _read_modes(
        poles.real, (C @ V) * np.linalg.solve(V, B.astype(complex)), t
    )


check_modes = Check(
    name="response_by_modes",
    spec=_modes,
    outputs=("response",),
    cases=_system_case,
    hint="with A = V diag(poles) V^-1, expm(A t) = V diag(exp(poles t)) V^-1. "
    "Group C V and V^-1 B.",
    mistakes=(
        Mistake(
            _modes_without_inverse,
            "you used the transpose of V where its inverse belongs. They are equal only for "
            "symmetric A.",
        ),
        Mistake(
            _modes_without_basis,
            "B and C have to be written in the basis of the eigenvectors too: V^-1 B and C V.",
        ),
        Mistake(
            _modes_only_decay,
            "the imaginary parts of the poles were dropped before the exponential: they are the "
            "swing. Take the real part at the end.",
        ),
    ),
)
