"""Checks of chapter 05, HiPPO, S4 and S4D."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.polynomial import Legendre

from tf_mamba_edu.checks.core import Check, Mistake


def _history_case(rng):
    T, N = (int(v) for v in rng.integers((8, 3), (20, 7)))
    return rng.normal(size=T) + np.linspace(1, 3, T), N


def _middles(T):
    return 2 * (np.arange(T) + 0.5) / T - 1  # (T,)


def _coefficients(x, N, u=None, factor=np.sqrt):
    """The right coefficients and, by places and factor, wrong ones."""
    u = _middles(len(x)) if u is None else u
    h = [
        np.mean(x * factor(2 * n + 1) * Legendre.basis(n)(u))
        for n in range(N)
    ]
    return np.array(h)


def _fitted(x, N):
    u = _middles(len(x))
    basis = [
        np.sqrt(2 * n + 1) * Legendre.basis(n)(u) for n in range(N)
    ]
    return np.linalg.lstsq(np.transpose(basis), x, rcond=None)[0]


check_coefficients = Check(
    name="history_coefficients",
    spec=lambda x, N: _coefficients(x, N),
    outputs=("h",),
    cases=_history_case,
    hint="try a history that is always 1: its coefficients should be (1, 0, 0, ...). And one that "
    "rises: should h_1 be positive or negative?",
    mistakes=(
        Mistake(
            lambda x, N: _coefficients(x, N, factor=lambda m: 1),
            "the factor sqrt(2 n + 1) is missing: it makes the mean square of each polynomial 1.",
        ),
        Mistake(
            lambda x, N: _coefficients(x, N, factor=lambda m: m),
            "the factor is 2 n + 1 here, without its root. It belongs to the plain P_n; the "
            "orthonormal polynomials share it, one root on the way in and one on the way back.",
        ),
        Mistake(
            lambda x, N: _coefficients(x, N) * len(x),
            "this is a sum over the samples. Take the mean, or a longer history has larger "
            "coefficients.",
        ),
        Mistake(
            lambda x, N: _coefficients(x[::-1], N),
            "the history runs backwards, so every odd coefficient has the wrong sign. The oldest "
            "sample, x[0], belongs to u near -1, the newest to u near 1.",
        ),
        Mistake(
            lambda x, N: _coefficients(
                x, N, (_middles(len(x)) + 1) / 2
            ),
            "your u runs from 0 to 1. Legendre's polynomials are orthogonal on -1 ... 1, and "
            "nowhere else.",
        ),
        Mistake(
            lambda x, N: _coefficients(
                x, N, np.linspace(-1, 1, len(x))
            ),
            "your u runs from end to end, so that the first and the last piece count only half. "
            "Take the middles of the pieces: the first is -1 + 1 / T.",
        ),
        Mistake(
            _fitted,
            "this is the least-squares fit to the samples. For many samples it comes to the same; "
            "here each coefficient is asked for by itself, as a plain mean.",
        ),
    ),
)


def _legs(N, sign=-1, diagonal=lambda n: n + 1):
    """LegS entry by entry and, by its options, wrong variants."""
    A = np.zeros((N, N))
    for n in range(N):
        for k in range(n):
            A[n, k] = sign * np.sqrt((2 * n + 1) * (2 * k + 1))
        A[n, n] = sign * diagonal(n)
    return A


def _on_both_sides(N):
    A = _legs(N)
    return A + np.tril(A, -1).T


def _all_products(N):
    root = np.sqrt(2 * np.arange(N) + 1)
    return -np.outer(root, root)


check_legs_matrix = Check(
    name="legs_matrix",
    spec=lambda N: _legs(N),
    outputs=("A",),
    cases=lambda rng: (int(rng.integers(2, 30)),),
    hint="for N = 2 it is [[-1, 0], [-sqrt(3), -2]]. Print yours, and go through the three cases "
    "of the formula: n > k, n = k, n < k.",
    mistakes=(
        Mistake(
            lambda N: _legs(N, sign=1),
            "the sign is that of the HiPPO paper, which writes h' = -A h + B x. In h' = A h + B x "
            "the minus sign stands in A, or the state blows up.",
        ),
        Mistake(
            lambda N: _legs(N, diagonal=lambda n: -(n + 1)),
            "the diagonal is positive: the minus sign stands in front of the whole brace, n + 1 "
            "included.",
        ),
        Mistake(
            lambda N: _legs(N).T,
            "the triangle lies above the diagonal. A row n looks at the coefficients k < n, so "
            "the entries stand below it.",
        ),
        Mistake(
            lambda N: _legs(N, diagonal=lambda n: n),
            "the diagonal is -n here; it should be -(n + 1). With a 0 at its top h_0, the running "
            "mean, would add up the inputs and never fade.",
        ),
        Mistake(
            lambda N: _legs(N, diagonal=lambda n: 2 * n + 1),
            "the diagonal is -(2 n + 1), what the product of the roots gives for n = k. It has a "
            "formula of its own, n + 1.",
        ),
        Mistake(
            _on_both_sides,
            "above the diagonal there should be zeros: a coefficient never asks a higher one.",
        ),
        Mistake(
            _all_products,
            "the product of the roots stands everywhere here. It is right below the diagonal "
            "only: on it belongs n + 1, above it 0.",
        ),
    ),
)


check_faded = Check(
    name="faded_after",
    spec=1152,
    outputs=("faded_after",),
    tolerance=2e-5,
    hint="after k steps the input has the age 0.004 k. At which age is exp(-age) one percent, and "
    "which whole k is the first behind it?",
    mistakes=(
        Mistake(
            5,
            "this is an age, not a number of steps: exp(-age) is below one percent from an age of "
            "ln(100) = 4.6 on. How many steps of 0.004 is that?",
        ),
        Mistake(
            250,
            "1 / Delta is the time constant: after 250 steps the weight is 1 / e, 37 percent, and "
            "not yet 1 percent.",
        ),
        Mistake(
            1151,
            "one step too early: exp(-0.004 * 1151) is 0.01001. You rounded down; the first step "
            "below comes after the crossing.",
        ),
        Mistake(
            np.log(100) / 0.004,
            "this is where the curve crosses one percent, between two steps. Which is the first "
            "whole step behind it?",
        ),
        Mistake(
            174,
            "this is the half-life: after 174 steps one half is left, not one percent.",
        ),
        Mistake(
            1149,
            "this is for a decay of 1 - 0.004 a step, which is Euler's rule. The weight is "
            "exp(-0.004) a step, a little more.",
        ),
    ),
)


def _samples_case(rng):
    T, N = (int(v) for v in rng.integers((5, 2), (12, 6)))
    return rng.normal(size=T) + np.linspace(0, 2, T), N


def _projected(x, N):
    """The coefficients of a staircase, piece by piece: no recurrence."""
    edges = np.linspace(-1, 1, len(x) + 1)  # (T + 1,)
    h = []
    for n in range(N):
        pieces = np.diff(Legendre.basis(n).integ()(edges)) / 2  # (T,)
        h.append(np.sqrt(2 * n + 1) * x @ pieces)
    return np.array(h)


def _same_step(k, T):
    return 1 / T


def _log_step(k, T):
    return np.log((k + 1) / k)


def _online(x, N, step=_log_step, sign=1):
    """The recurrence and, by step and sign, wrong ones."""
    A, B = sign * _legs(N), np.sqrt(2 * np.arange(N) + 1)
    rest = -np.linalg.solve(A, B)  # under a constant input of 1
    h = x[0] * np.eye(N)[0]
    for k in range(1, len(x)):
        A_bar = scipy.linalg.expm(step(k, len(x)) * A)
        h = x[k] * rest + A_bar @ (h - x[k] * rest)
    return h


check_online_memory = Check(
    name="online_memory",
    spec=_projected,
    outputs=("h",),
    cases=_samples_case,
    hint="repair first what makes a constant history grow. Then compare the first coefficient "
    "with the mean of the samples.",
    mistakes=(
        Mistake(
            lambda x, N: _online(x, N, _same_step, sign=-1),
            "both bugs are still there. One makes the state grow, the other lets the past fade.",
        ),
        Mistake(
            lambda x, N: _online(x, N, _same_step),
            "the step is the same at every sample. That is S4's form: the past fades. In LegS "
            "all samples count alike, so that the longer the history, the less one more changes.",
        ),
        Mistake(
            lambda x, N: _online(x, N, sign=-1),
            "the sign is still turned: legs returns the A of h' = A h + B x, minus sign included. "
            "With -A the state grows.",
        ),
        Mistake(
            lambda x, N: _online(x, N, lambda k, T: 1 / k),
            "nearly: t grows during the step, from k to k + 1, and 1 / k is 1 / t at its "
            "beginning. The step is the integral of 1 / t.",
        ),
        Mistake(
            lambda x, N: _online(x, N, lambda k, T: 1 / (k + 1)),
            "nearly: t grows during the step, from k to k + 1, and 1 / (k + 1) is 1 / t at its "
            "end. The step is the integral of 1 / t.",
        ),
        Mistake(
            lambda x, N: _online(
                x, N, lambda k, T: np.log((k + 2) / (k + 1))
            ),
            "off by one: before x[k] comes in, the state knows k samples, x[0] ... x[k-1]. The "
            "step leads from k to k + 1.",
        ),
    ),
)


def _pairs_case(rng):
    n, length = (int(v) for v in rng.integers((2, 6), (5, 11)))
    A = -rng.uniform(0.2, 0.8, n) + 1j * rng.uniform(1, 8, n)
    B_bar, C = rng.normal(size=(2, n)) + 1j * rng.normal(size=(2, n))
    return A, B_bar, C, float(rng.uniform(0.1, 0.3)), length


def _all_states(A, B_bar, C, delta, length):
    """Both of each pair, step by step: what is left of one tap."""
    A_bar = np.exp(delta * np.concatenate([A, A.conj()]))  # (2 n,)
    h = np.concatenate([B_bar, B_bar.conj()])
    C, K = np.concatenate([C, C.conj()]), []
    for _ in range(length):
        K.append((C @ h).real)
        h = A_bar * h
    return np.array(K)


def _one_of_each(A, B_bar, C, delta, length, first=0):
    """The complex sum over the given states alone, (length,)."""
    k = first + np.arange(length)[:, None]
    return np.exp(k * delta * A) @ (C * B_bar)


def _powers_of_A(A, B_bar, C, delta, length):
    powers = A ** np.arange(length)[:, None]
    return 2 * (powers @ (C * B_bar)).real


def _real_factors(A, B_bar, C, delta, length):
    powers = np.exp(np.arange(length)[:, None] * delta * A)
    return 2 * powers.real @ (C.real * B_bar.real)


check_pair_kernel = Check(
    name="pair_kernel",
    spec=_all_states,
    outputs=("K",),
    cases=_pairs_case,
    hint="write out one pair: what it contributes and what its mirror image contributes. Entry 0 "
    "is twice the real part of the sum of C B_bar.",
    mistakes=(
        Mistake(
            lambda *args: _one_of_each(*args).real,
            "a factor 2 is missing: the other state of each pair contributes the same real part.",
        ),
        Mistake(
            _real_factors,
            "you took the real part of each factor. Multiply and add up as complex numbers, and "
            "take the real part once, at the end.",
        ),
        Mistake(
            lambda *args: 2 * np.abs(_one_of_each(*args)),
            "this is the size of the sum, which is never negative. A number and its conjugate add "
            "up to twice the real part.",
        ),
        Mistake(
            lambda *args: 2 * _one_of_each(*args, first=1).real,
            "your kernel is one step ahead: it starts at power 1. A tap is read in the step in "
            "which it arrives: entry 0 has k = 0.",
        ),
        Mistake(
            lambda A, B, C, d, L: (
                2 * _one_of_each(A, B, C, 1.0, L).real
            ),
            "delta is missing: k steps are a time of k delta, so the exponent is k delta A.",
        ),
        Mistake(
            _powers_of_A,
            "these are powers of A itself, the matrix of continuous time. A step multiplies by "
            "A_bar = exp(delta A).",
        ),
    ),
)


def _rank_one_case(rng):
    N = int(rng.integers(2, 8))
    p, b = rng.normal(size=(2, N)) + 0.5
    return rng.uniform(0.5, 3.0, N), p, b


def _corrected(d, p, b, sign=-1, one=1, below=1):
    """Woodbury's formula and, by its numbers, wrong variants."""
    s = p @ (b / d) / (one + below * (p @ (p / d)))
    return b / d + sign * s * p / d


def _undivided(d, p, b):
    return b / d - p * (p @ (b / d)) / (1 + p @ (p / d))


check_rank_one = Check(
    name="solve_rank_one",
    spec=lambda d, p, b: np.linalg.solve(
        np.diag(d) + np.outer(p, p), b
    ),
    outputs=("x",),
    cases=_rank_one_case,
    hint="test your x by putting it in: d * x + p * (p @ x) must be b. With p = 0 it is b / d; "
    "what does N = 1 give?",
    mistakes=(
        Mistake(
            lambda *args: _corrected(*args, sign=1),
            "the correction has the wrong sign. p p^T is added to the matrix, so its share is "
            "taken away from b: x = (b - s p) / d.",
        ),
        Mistake(
            lambda *args: _corrected(*args, one=0),
            "the 1 is missing below the line: s = p @ (b / d) - s * (p @ (p / d)) has s on both "
            "sides.",
        ),
        Mistake(
            _undivided,
            "the correction is not divided by d: in x = (b - s p) / d the division is for both "
            "terms.",
        ),
        Mistake(
            lambda *args: _corrected(*args, sign=1, below=-1),
            "this solves the system with diag(d) - p p^T. Here the rank-1 term is added, and "
            "both signs turn.",
        ),
        Mistake(
            lambda d, p, b: b / d,
            "this is the diagonal part alone. Each row also holds p_n times the number p @ x.",
        ),
        Mistake(
            lambda d, p, b: (b - (p @ b) / (1 + p @ (p / d)) * p) / d,
            "in the number above the line b is not divided by d yet: it is p @ (b / d).",
        ),
    ),
)
