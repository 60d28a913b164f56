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
            lambda x, N: _coefficients(
                x, N, 2 * np.arange(len(x)) / len(x) - 1
            ),
            "your u are the left edges of the pieces: with T = 4 they are -1, -0.5, 0, 0.5. A "
            "sample belongs to the middle of its piece, half a piece further on.",
        ),
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


def _legs(N, below=-1, diagonal=-1):
    """LegS entry by entry and, by its signs, wrong variants."""
    A = diagonal * np.diag(np.arange(1.0, N + 1))
    for n in range(N):
        for k in range(n):
            A[n, k] = below * np.sqrt((2 * n + 1) * (2 * k + 1))
    return A


def _same_step(k, T):
    return 1 / T


def _log_step(k, T):
    return np.log((k + 1) / k)


def _online(x, N, step=_log_step, below=-1, diagonal=-1):
    """The recurrence and, by its step and its signs, wrong ones."""
    A, B = _legs(N, below, diagonal), np.sqrt(2 * np.arange(N) + 1)
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
    hint="two things are known of any history: while it is constant the state rests, and its "
    "first coefficient is the mean. Does your function keep both?",
    mistakes=(
        Mistake(
            lambda x, N: _online(x, N, _same_step, 1, 1),
            "both bugs are still there. One makes the state grow even if the history is constant, "
            "the other lets the past fade.",
        ),
        Mistake(
            lambda x, N: _online(x, N, _same_step),
            "one bug is gone: the state is stable now, and a constant history rests. But its "
            "steps are all alike, as in S4's form, and so the past fades. In LegS all samples "
            "count alike: the longer the history, the less one more changes.",
        ),
        Mistake(
            lambda x, N: _online(x, N, below=1, diagonal=1),
            "one bug is gone: the steps are right now. But the state still grows, even if the "
            "history is constant: which sign has the matrix in h' = A h + B x?",
        ),
        Mistake(
            lambda x, N: _online(x, N, _same_step, diagonal=1),
            "you turned the sign below the diagonal only. The eigenvalues of a triangular matrix "
            "are its diagonal, and that is still positive. The second bug is there too.",
        ),
        Mistake(
            lambda x, N: _online(x, N, diagonal=1),
            "the steps are right now. But you turned the sign below the diagonal only, and the "
            "eigenvalues of a triangular matrix are its diagonal: still positive.",
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
                x, N, lambda k, T: np.log(k / (k + 1))
            ),
            "your step is negative: log(k / (k + 1)) leads from k + 1 back to k, and a stable "
            "system that runs backwards grows. Turn the fraction over.",
        ),
        Mistake(
            lambda x, N: _online(x, N, lambda k, T: np.log(k + 1)),
            "log(k + 1) is the moment at which the step ends, in logarithmic time. Its length is "
            "the difference of two such moments.",
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


def _weights_case(rng):
    n, length = (int(v) for v in rng.integers((2, 6), (5, 11)))
    A_log, A_imag = (
        np.log(rng.uniform(0.2, 0.8, n)),
        rng.uniform(1, 8, n),
    )
    C = rng.normal(size=n) + 1j * rng.normal(size=n)
    log_dt = float(np.log(rng.uniform(0.1, 0.3)))
    return A_log, A_imag, C, log_dt, length


def _all_states(A_log, A_imag, C, log_dt, length):
    """Both of each pair, step by step: what is left of one tap."""
    A = np.append(-np.exp(A_log), -np.exp(A_log)).astype(complex)
    A += 1j * np.append(A_imag, -A_imag)  # (2 n,)
    A_bar, C = np.exp(np.exp(log_dt) * A), np.append(C, C.conj())
    h, K = (A_bar - 1) / A, []  # the tap has come in
    for _ in range(length):
        K.append((C @ h).real)
        h = A_bar * h
    return np.array(K)


def _stored(
    A_log,
    A_imag,
    C,
    log_dt,
    length,
    sign=-1,
    step=np.exp,
    B_bar=lambda A, delta: (np.exp(delta * A) - 1) / A,
    first=0,
    part=lambda powers, weights: 2 * (powers @ weights).real,
):
    """The kernel by the formula and, by its options, wrong ones."""
    A, delta = sign * np.exp(A_log) + 1j * A_imag, step(log_dt)
    k = first + np.arange(length)[:, None]  # (L, 1)
    return part(np.exp(k * delta * A), C * B_bar(A, delta))


check_stored_kernel = Check(
    name="stored_kernel",
    spec=_all_states,
    outputs=("K",),
    cases=_weights_case,
    hint="go in three steps and look at each: A and delta (is Re A negative, delta positive?), "
    "then A_bar and B_bar, then the sum over both of each pair. Entry 0 has no power of A_bar yet.",
    mistakes=(
        Mistake(
            lambda *args: _stored(*args, sign=1),
            "the real part of A is positive, and your kernel grows. A_log is the logarithm of "
            "-Re A: the minus sign is not stored, you have to write it.",
        ),
        Mistake(
            lambda *args: _stored(*args, step=lambda d: d),
            "log_dt is used as the step size. It is the logarithm of delta, and negative for any "
            "delta below 1.",
        ),
        Mistake(
            lambda *args: _stored(
                *args, part=lambda p, w: (p @ w).real
            ),
            "a factor 2 is missing: the other state of each pair contributes the same real part.",
        ),
        Mistake(
            lambda *args: _stored(*args, B_bar=lambda A, delta: delta),
            "B_bar is delta here, which is Euler's rule. The zero-order hold has (A_bar - 1) / A, "
            "entry by entry.",
        ),
        Mistake(
            lambda *args: _stored(*args, B_bar=lambda A, delta: 1),
            "B_bar is missing. B is 1, but B_bar is not: it is what one step of a held input of "
            "1 leaves in the state.",
        ),
        Mistake(
            lambda *args: _stored(
                *args, part=lambda p, w: 2 * p.real @ w.real
            ),
            "you took the real part of each factor. Multiply and add up as complex numbers, and "
            "take the real part once, at the end.",
        ),
        Mistake(
            lambda *args: _stored(*args, first=1),
            "your kernel is one step ahead: it starts at power 1. A tap is read in the step in "
            "which it arrives: entry 0 has k = 0.",
        ),
    ),
)


_TURN, _FADE = 2 * np.pi * 800 / 50, np.log(50)  # omega t and a t


check_needed_ratio = Check(
    name="needed_ratio",
    spec=_TURN / _FADE,
    outputs=("needed_ratio",),
    tolerance=5e-3,
    hint="write down omega t, the angle after the whole 800 steps, and a t, the exponent at which "
    "2 percent are left. Their ratio is the ratio you want.",
    mistakes=(
        Mistake(
            26,
            "nearly: that is the number rounded. Give one more digit, or let Python compute it.",
        ),
        Mistake(
            _TURN / _FADE / 2 / np.pi,
            "this counts turns. omega t is an angle in radians, and one turn has 2 pi of them.",
        ),
        Mistake(
            _TURN,
            "this lets a t be 1, where a mode has faded to 1 / e, 37 percent. It may fade "
            "further, to 2 percent: at which a t is that?",
        ),
        Mistake(
            _TURN / np.log10(50),
            "this is a logarithm to base 10. e^(-a t) = 0.02 asks for the natural one, np.log.",
        ),
        Mistake(
            _FADE / _TURN,
            "this is the inverse, Re A / Im A. The imaginary part turns and stands above the line.",
        ),
        Mistake(
            _TURN / _FADE / 800,
            "the angle is that of one step here, and the fading that of 800. Take both over the "
            "same time; then neither the steps nor delta matter.",
        ),
        Mistake(
            800 / 50,
            "these are the turns. An angle is measured in radians, and it still has to be divided "
            "by the a t at which 2 percent are left.",
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
            lambda *args: _corrected(*args, below=-1),
            "below the line stands 1 minus the sum. From s = p @ (b / d) - s * (p @ (p / d)) the "
            "last term comes over to the left, where s is, and there it is a plus.",
        ),
        Mistake(
            lambda *args: _corrected(*args, below=0),
            "nothing is divided by 1 + p @ (p / d): you took s = p @ (b / d). But s is p @ x, and "
            "x has the correction in it already.",
        ),
        Mistake(
            lambda d, p, b: b / (d + p**2),
            "this keeps only the diagonal of p p^T. Each row also holds p_n p_m for all the other "
            "m: what do all rows have in common?",
        ),
        Mistake(
            _undivided,
            "the correction is not divided by d: in x = (b - s p) / d the division is for both "
            "terms.",
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
