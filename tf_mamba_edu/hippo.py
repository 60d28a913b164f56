"""HiPPO: states that hold a history as coefficients of Legendre polynomials.

After arXiv 2008.07669. Everything here is NumPy float64: reference curves and matrices, computed
once. Signs are those of state space models, h' = A h + B x with a stable A; the HiPPO paper
writes h' = -A h + B x.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.polynomial import legendre

from tf_mamba_edu.validation import check_positive_int


def legs(d_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Builds the matrices of HiPPO-LegS, scaled Legendre.

    The whole history, equally weighted: theorem 2 of arXiv 2008.07669, in the form
    h'(t) = (A h(t) + B x(t)) / t. Without 1 / t they are S4's time-invariant form
    (arXiv 2111.00396, equation 2). O(N^2).

    Args:
        d_state: N, how many polynomials.

    Returns:
        (A, B) of shapes (N, N) and (N,), float64. A is lower triangular with -1 .. -N on its
        diagonal.

    Raises:
        ValueError: if d_state is not a positive integer.
    """
    root = np.sqrt(
        2 * np.arange(check_positive_int("d_state", d_state)) + 1
    )
    A = np.tril(-np.outer(root, root), -1)  # (N, N)
    return A - np.diag(np.arange(1.0, d_state + 1)), root


def legt(d_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Builds the matrices of HiPPO-LegT, translated Legendre: a window that slides.

    In the orthonormal basis. Theorem 1 of arXiv 2008.07669 for a window of length 1,
    h'(t) = A h(t) + B x(t); for a window of length theta divide both by theta. O(N^2).

    Args:
        d_state: N, how many polynomials.

    Returns:
        (A, B) of shapes (N, N) and (N,), float64.

    Raises:
        ValueError: if d_state is not a positive integer.
    """
    n = np.arange(check_positive_int("d_state", d_state))
    root = np.sqrt(2 * n + 1)
    sign = np.where(n[:, None] < n, (-1.0) ** (n[:, None] - n), 1.0)
    return -np.outer(root, root) * sign, root


def project(x, t: float, d_state: int, points: int = 400) -> np.ndarray:
    """Computes the coefficients of the history by quadrature.

    What LegS must arrive at, h_n = sqrt(2 n + 1) / t * integral of x(s) P_n(2 s / t - 1) ds
    from 0 to t: the polynomial of degree N - 1 nearest to x on [0, t] in the sense of least
    squares. O(points N).

    Args:
        x: a function of an array of times.
        t: the end of the history, positive.
        d_state: N, how many polynomials.
        points: of the Gauss-Legendre rule.

    Returns:
        (N,) coefficients.

    Raises:
        ValueError: if t is not positive.
    """
    if not t > 0:
        raise ValueError(f"`t` must be positive. Received: t={t!r}")
    u, weight = legendre.leggauss(points)  # on [-1, 1]
    values = x((u + 1) * t / 2) * weight / 2  # (points,)
    return values @ orthonormal_legendre(u, d_state)


def reconstruct(h, u) -> np.ndarray:
    """Reads the history back from its coefficients.

    Equation 4 of arXiv 2008.07669, sum over n of h_n sqrt(2 n + 1) P_n(u). O(N) a point.

    Args:
        h: (N,) coefficients.
        u: (T,) places in the history, -1 its beginning and 1 now.

    Returns:
        (T,) values.
    """
    return orthonormal_legendre(u, len(h)) @ np.asarray(h)


def orthonormal_legendre(u, count: int) -> np.ndarray:
    """Returns sqrt(2 n + 1) P_n(u) for n = 0 .. count - 1: (T,) to (T, count)."""
    return legendre.legvander(u, count - 1) * np.sqrt(
        2 * np.arange(count) + 1
    )


def run_legs(x, d_state: int) -> np.ndarray:
    """Follows h' = (A h + B x) / t through held samples, exactly.

    In the time log t the system is time-invariant, so that one step from k to k + 1 samples is
    the exponential of log((k + 1) / k) A. O(T N^3).

    Args:
        x: (T,) samples.
        d_state: N, how many polynomials.

    Returns:
        (T, N) coefficients of the history after each sample.

    Raises:
        ValueError: if x is not one-dimensional.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 1:
        raise ValueError(
            "`x` must have 1 axis, (T,). "
            f"Received: x of shape {x.shape}"
        )
    A, B = legs(d_state)
    states = np.zeros((len(x), d_state))
    h = np.zeros(d_state)
    for k, sample in enumerate(x):
        # Under an input of 1 it tends to -A^-1 B = (1, 0, 0, ...).
        rest = sample * np.eye(1, d_state)[0]  # (N,)
        if k == 0:
            h = rest  # so far the history is constant
        else:
            step = np.log((k + 1) / k)
            h = rest + scipy.linalg.expm(step * A) @ (h - rest)
        states[k] = h
    return states


def normal_plus_low_rank(
    d_state: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Writes LegS as a normal matrix minus one of rank 1.

    A normal matrix has orthogonal eigenvectors.
    A = V diag(Lambda) V* - P P^T with P_n = sqrt(n + 1/2), theorem 1 of arXiv 2111.00396. The
    first part is -I / 2 plus an antisymmetric matrix. O(N^3).

    Args:
        d_state: N.

    Returns:
        (Lambda (N,) complex, P (N,), B (N,), V (N, N) complex with orthonormal columns).

    Raises:
        ValueError: if d_state is not a positive integer.
    """
    A, B = legs(d_state)
    P = B / np.sqrt(2)  # sqrt(n + 1/2)
    normal = A + np.outer(P, P)  # (N, N)
    turning = normal + np.eye(d_state) / 2  # antisymmetric
    # i times a Hermitian matrix: eigh is exact where eig is not.
    frequencies, V = np.linalg.eigh(-1j * turning)
    return -0.5 + 1j * frequencies, P, B, V


def legs_eigenvalues(d_state: int) -> np.ndarray:
    """Returns the eigenvalues of LegS's normal part with positive imaginary part, slowest first.

    What S4D-LegS starts with, section 4.2 of arXiv 2206.11893. O(N^3).

    Args:
        d_state: N, even.

    Returns:
        (N / 2,) complex numbers.

    Raises:
        ValueError: if d_state is not a positive even integer.
    """
    if check_positive_int("d_state", d_state) % 2:
        raise ValueError(
            f"`d_state` must be even: eigenvalues come in conjugate pairs. "
            f"Received: d_state={d_state}"
        )
    eigenvalues, *_ = normal_plus_low_rank(d_state)
    return eigenvalues[eigenvalues.imag > 0]
