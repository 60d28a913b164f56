"""HiPPO: the matrices of the papers, and states that are the coefficients they promise."""

import re

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from numpy.polynomial import Polynomial
from scipy.special import eval_legendre

from tf_mamba_edu.hippo import (
    legs,
    legs_eigenvalues,
    legt,
    normal_plus_low_rank,
    orthonormal_legendre,
    project,
    reconstruct,
    run_legs,
)

sizes = pytest.mark.parametrize("N", [1, 2, 3, 8, 17])
SIGNALS = {
    "sine": (lambda s: np.sin(3 * s + 0.4), lambda s: 3 * np.cos(3 * s + 0.4)),
    "decay": (lambda s: np.exp(-s), lambda s: -np.exp(-s)),
    "cubic": (lambda s: s**3 - 2 * s + 1, lambda s: 3 * s**2 - 2),
}
signals = pytest.mark.parametrize(("x", "slope"), SIGNALS.values(), ids=SIGNALS)


def close(got, want, tolerance=1e-12):
    """Equal up to a share of the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    scale = np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def samples(length, seed=0):
    return np.random.default_rng(seed).normal(size=length)


def phi(n, u):
    """The orthonormal polynomial n on [-1, 1] under the density 1/2, by SciPy."""
    return np.sqrt(2 * n + 1) * eval_legendre(n, u)


def window_coefficients(x, start, end, N):
    """Coefficients of x on [start, end] by adaptive quadrature."""

    def integrand(s, n):
        return x(s) * phi(n, 2 * (s - start) / (end - start) - 1)

    integrals = [scipy.integrate.quad(integrand, start, end, (n,))[0] for n in range(N)]
    return np.array(integrals) / (end - start)


# The matrices


@sizes
def test_legs_is_theorem_2_entry_by_entry(N):
    A, B = legs(N)
    assert A.shape == (N, N) and B.shape == (N,)
    for n in range(N):
        assert B[n] == pytest.approx((2 * n + 1) ** 0.5, rel=1e-15)
        for k in range(N):
            below = (2 * n + 1) ** 0.5 * (2 * k + 1) ** 0.5
            want = below if n > k else n + 1 if n == k else 0
            assert -A[n, k] == pytest.approx(want, rel=1e-15)


@sizes
def test_legt_is_theorem_1_entry_by_entry_in_the_orthonormal_basis(N):
    A, B = legt(N)
    assert A.shape == (N, N) and B.shape == (N,)
    for n in range(N):
        assert B[n] == pytest.approx((2 * n + 1) ** 0.5, rel=1e-15)
        for k in range(N):
            want = ((2 * n + 1) * (2 * k + 1)) ** 0.5
            assert -A[n, k] == pytest.approx(want if k <= n else (-1) ** (n - k) * want, rel=1e-15)


@sizes
def test_legt_scaled_to_the_polynomials_of_theorem_1_has_its_integers(N):
    A, B = legt(N)
    scale = np.array([(-1) ** n * (2 * n + 1) ** 0.5 for n in range(N)])
    for n in range(N):
        assert scale[n] * B[n] == pytest.approx((2 * n + 1) * (-1) ** n, rel=1e-14)
        for k in range(N):
            want = (2 * n + 1) * ((-1) ** (n - k) if n >= k else 1)
            assert -A[n, k] * scale[n] / scale[k] == pytest.approx(want, rel=1e-14)


@sizes
def test_the_rates_of_legs_are_the_whole_numbers(N):
    close(np.sort(np.linalg.eigvals(legs(N)[0]))[::-1], -np.arange(1, N + 1))


@sizes
def test_legt_is_stable(N):
    assert np.linalg.eigvals(legt(N)[0]).real.max() < 0


@pytest.mark.parametrize("matrices", [legs, legt])
def test_more_polynomials_leave_the_first_ones_as_they_are(matrices):
    A, B = matrices(9)
    close(matrices(4)[0], A[:4, :4], 0)
    close(matrices(4)[1], B[:4], 0)


def test_everything_is_float64():
    Lambda, P, B, V = normal_plus_low_rank(4)
    short = np.ones(3, np.float32)
    for real in (*legs(4), *legt(4), P, B, project(np.sin, 2.0, 3), reconstruct(short, short)):
        assert real.dtype == np.float64
    for x in (short, [1, 2, 3], np.ones(3, int)):
        assert run_legs(x, 2).dtype == np.float64
    assert Lambda.dtype == V.dtype == legs_eigenvalues(4).dtype == np.complex128


def test_sizes_may_be_integers_of_numpy():
    close(legs(np.int32(5))[0], legs(5)[0], 0)
    close(legt(np.int64(5))[0], legt(5)[0], 0)


# Coefficients of a history


def test_the_basis_is_that_of_scipy_and_orthonormal():
    u, weights = np.polynomial.legendre.leggauss(20)
    basis = orthonormal_legendre(u, 9)
    close(basis, np.stack([phi(n, u) for n in range(9)], 1))
    close(basis.T @ (weights[:, None] / 2 * basis), np.eye(9))


@signals
@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
def test_projecting_is_an_integral(x, slope, t):
    close(project(x, t, 6, points=60), window_coefficients(x, 0, t, 6), 1e-10)


def test_projecting_takes_enough_points_by_itself():
    def x(s):
        return np.sin(300 * s)

    got = project(x, 3.0, 5)
    close(got, project(x, 3.0, 5, points=700), 1e-10)
    assert not np.allclose(got, project(x, 3.0, 5, points=100), atol=1e-3)


@pytest.mark.parametrize("degree", [0, 1, 4, 7])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_projecting_a_polynomial_is_exact(degree, t):
    p, u = Polynomial(samples(degree + 1)), Polynomial([0, 1])
    want, legendre = [], [Polynomial([1.0]), u]
    for n in range(6):  # the recursion of Legendre's polynomials
        legendre.append(((2 * n + 3) * u * legendre[n + 1] - (n + 1) * legendre[n]) / (n + 2))
        primitive = (p(t * (u + 1) / 2) * legendre[n]).integ()
        want.append((2 * n + 1) ** 0.5 / 2 * (primitive(1) - primitive(-1)))
    close(project(p, t, 6, points=10), want)


@sizes
@pytest.mark.parametrize("t", [0.5, 3.0])
def test_polynomials_of_lower_degree_come_back(N, t):
    p, u = Polynomial(samples(N)), np.linspace(-1, 1, 31)
    h = project(lambda s: p(s / t), t, N, points=40)
    close(reconstruct(h, u), p((u + 1) / 2), 1e-11)


def test_reconstructing_sums_the_basis():
    h, u = samples(5), np.linspace(-1, 1, 7)
    close(reconstruct(list(h), list(u)), sum(h[n] * phi(n, u) for n in range(5)))


def test_the_coefficients_are_the_best_ones():
    u, weights = np.polynomial.legendre.leggauss(60)
    x, t = SIGNALS["sine"][0], 2.0
    wanted = x((u + 1) * t / 2)
    best, *_ = np.linalg.lstsq(
        np.sqrt(weights)[:, None] * np.vander(u, 5), np.sqrt(weights) * wanted, rcond=None
    )
    close(reconstruct(project(x, t, 5, points=60), u), np.vander(u, 5) @ best, 1e-11)


# LegS keeps the whole history


@signals
@pytest.mark.parametrize("t", [0.3, 2.0])
def test_the_coefficients_of_any_history_obey_the_equation_of_legs(x, slope, t):
    A, B = legs(7)
    change = project(lambda s: s * slope(s), t, 7, points=60)  # t dh / dt
    close(change, A @ project(x, t, 7, points=60) + B * x(t), 1e-10)


def held_coefficients(x, N):
    """Coefficients of the held signal after each sample, integrated piece by piece."""
    states = np.zeros((len(x), N))
    for k, t in enumerate(range(1, len(x) + 1)):
        for n in range(N):
            for s in range(t):
                piece, _ = scipy.integrate.quad(
                    lambda r, n, t: phi(n, 2 * r / t - 1), s, s + 1, (n, t)
                )
                states[k, n] += x[s] * piece / t
    return states


@pytest.mark.parametrize(("length", "N"), [(1, 3), (2, 1), (12, 5), (8, 9)])
def test_running_legs_gives_the_coefficients_of_the_held_signal(length, N):
    x = samples(length)
    close(run_legs(x, N), held_coefficients(x, N), 1e-10)


def test_running_legs_solves_its_equation():
    x, (A, B) = samples(9), legs(6)
    states = run_legs(x, 6)
    h = states[0]
    for k in range(1, len(x)):
        solution = scipy.integrate.solve_ivp(
            lambda t, h, k=k: (A @ h + B * x[k]) / t, (k, k + 1), h, rtol=1e-10, atol=1e-12
        )
        h = solution.y[:, -1]
        close(states[k], h, 1e-7)


@pytest.mark.parametrize("times", [2, 5])
def test_the_speed_of_a_signal_does_not_matter(times):
    x = samples(20)
    close(run_legs(np.repeat(x, times), 6)[times - 1 :: times], run_legs(x, 6))


def test_the_first_coefficient_is_the_mean_so_far():
    x = samples(50)
    close(run_legs(x, 4)[:, 0], np.cumsum(x) / np.arange(1, 51))


def test_a_constant_history_is_its_first_coefficient_alone():
    close(run_legs(np.full(10, 2.5), 4), np.tile([2.5, 0, 0, 0], (10, 1)))


def test_running_legs_is_linear_and_causal():
    x, other = samples(15), samples(15, 1)
    close(run_legs(2 * x - other, 5), 2 * run_legs(x, 5) - run_legs(other, 5))
    close(run_legs(x[:6], 5), run_legs(x, 5)[:6], 0)
    close(run_legs(x, 3), run_legs(x, 5)[:, :3])


def test_a_fine_signal_is_followed_to_its_projection():
    x = SIGNALS["sine"][0]
    errors = []
    for length in (200, 400):
        held = x((np.arange(length) + 0.5) * 2.0 / length)
        errors.append(np.abs(run_legs(held, 6)[-1] - project(x, 2.0, 6, points=60)).max())
    assert errors[0] < 1e-4 and errors[1] < 0.3 * errors[0]


def test_no_samples_leave_no_states():
    assert run_legs([], 3).shape == (0, 3)


# LegS without 1 / t, as S4 uses it


@sizes
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 5.0])
def test_the_answer_of_legs_to_an_impulse_is_a_warped_polynomial(N, t):
    A, B = legs(N)
    want = [phi(n, 2 * np.exp(-t) - 1) * np.exp(-t) for n in range(N)]
    close(scipy.linalg.expm(A * t) @ B, want, 1e-9)


# LegT is a window that slides


@pytest.mark.parametrize("theta", [1.0, 3.0])
@pytest.mark.parametrize("t", [0.0, 1.7])
def test_the_window_of_a_polynomial_obeys_the_equation_of_legt(theta, t):
    N, p = 6, Polynomial(samples(6))
    (A, B), slope = legt(N), p.deriv()
    change = window_coefficients(slope, t - theta, t, N)  # dh / dt
    h = window_coefficients(p, t - theta, t, N)
    close((A @ h + B * p(t)) / theta, change, 1e-9)


@pytest.mark.parametrize("theta", [1.0, 2.5])
def test_legt_forgets_what_has_left_its_window(theta):
    N, (A, B) = 24, legt(24)

    def state_at(t, x):
        """From nothing at time 0, with steps so short that holding x does no harm."""
        steps = 4000
        augmented = np.zeros((N + 1, N + 1))
        augmented[:N] = np.column_stack([A, B]) * t / steps / theta
        step, h = scipy.linalg.expm(augmented), np.zeros(N)
        for s in (np.arange(steps) + 0.5) * t / steps:
            h = step[:N, :N] @ h + step[:N, N] * x(s)
        return h

    def x(s):
        return np.sin(2 * s / theta) + (s < theta)  # another story before the window

    t = 3 * theta
    want = window_coefficients(lambda s: np.sin(2 * s / theta), t - theta, t, 6)
    close(state_at(t, x)[:6], want, 2e-3)
    inside = window_coefficients(x, 0.0, theta, 6)
    assert np.abs(inside - want).max() > 0.5


# A matrix with orthogonal eigenvectors, minus one of rank 1


@sizes
def test_the_two_parts_make_legs(N):
    Lambda, P, B, V = normal_plus_low_rank(N)
    A, vector = legs(N)
    assert Lambda.shape == P.shape == (N,) and V.shape == (N, N)
    close(V @ np.diag(Lambda) @ V.conj().T - np.outer(P, P), A)
    close(B, vector, 0)
    close(P, [(n + 0.5) ** 0.5 for n in range(N)])


@sizes
def test_the_eigenvectors_are_orthonormal(N):
    *_, V = normal_plus_low_rank(N)
    close(V.conj().T @ V, np.eye(N), 1e-13)


@sizes
def test_the_first_part_is_normal_and_decays_at_one_rate(N):
    Lambda, P, _, V = normal_plus_low_rank(N)
    normal = legs(N)[0] + np.outer(P, P)
    close(normal @ normal.conj().T, normal.conj().T @ normal)
    close(normal + normal.T, -np.eye(N))
    close(normal @ V, V * Lambda, 1e-13)
    np.testing.assert_array_equal(Lambda.real, -0.5)


@pytest.mark.parametrize("N", [2, 4, 16, 64, 128])
def test_the_eigenvalues_are_one_of_each_pair_slowest_first(N):
    half = legs_eigenvalues(N)
    assert half.shape == (N // 2,) and np.all(half.imag > 0)
    assert np.all(np.diff(half.imag) > 0) and np.all(half.real == -0.5)
    spectrum = scipy.linalg.eigvals(legs(N)[0] + np.outer(legs(N)[1], legs(N)[1]) / 2)
    close(np.sort(np.r_[half, half.conj()].imag), np.sort(spectrum.imag), 1e-11)


def test_the_eigenvalues_of_two_states():
    close(legs_eigenvalues(2), [-0.5 + 0.75**0.5 * 1j])


# Bad input


def refuses(message, function, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*arguments)


@pytest.mark.parametrize("size", [0, -2, 2.0, "4", None, True, np.float64(3)])
@pytest.mark.parametrize("function", [legs, legt, normal_plus_low_rank, legs_eigenvalues])
def test_a_size_must_be_a_positive_integer(function, size):
    refuses(f"`d_state` must be a positive integer. Received: d_state={size!r}", function, size)


@pytest.mark.parametrize("size", [0, 2.0])
def test_the_size_of_a_run_must_be_a_positive_integer(size):
    message = f"`d_state` must be a positive integer. Received: d_state={size!r}"
    refuses(message, run_legs, [1.0, 2.0], size)


@pytest.mark.parametrize("shape", [(), (3, 1), (1, 2, 2)])
def test_a_run_needs_one_axis(shape):
    message = f"`x` must have 1 axis, (T,). Received: x of shape {shape}"
    refuses(message, run_legs, np.ones(shape), 3)
