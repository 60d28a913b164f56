"""S4's kernel through its generating function equals the powers of the matrix."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mamba_edu import bilinear
from tf_mamba_edu.hippo import legs, normal_plus_low_rank
from tf_mamba_edu.lti import fast_kernel, ssm_kernel
from tf_mamba_edu.s4 import end_of_series, s4_kernel

LENGTHS = (1, 2, 3, 4, 7, 8, 31, 64, 65)


def close(got, want, tolerance=1e-11):
    """Equal up to a share of the largest value: an FFT promises no more."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    scale = np.max(np.abs(want), initial=1e-30)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def hippo_system(N, seed=0):
    """HiPPO-LegS with a random reading: as real matrices, and in the basis of eigenvectors."""
    C = np.random.default_rng(seed).normal(size=N)
    Lambda, P, B, V = normal_plus_low_rank(N)
    return (*legs(N), C), (Lambda, V.conj().T @ P, V.conj().T @ B, C @ V)


def random_system(N, seed):
    """Another antisymmetric matrix, minus a decay and one of rank 1; both forms again."""
    rng = np.random.default_rng(seed)
    S, (P, B, C) = rng.normal(size=(N, N)), rng.normal(size=(3, N))
    decay = rng.uniform(0.1, 2.0)
    normal = S - S.T - decay * np.eye(N)
    frequencies, V = np.linalg.eigh(-1j * (S - S.T))
    inside = V.conj().T @ P, V.conj().T @ B, C @ V
    return (normal - np.outer(P, P), B, C), (1j * frequencies - decay, *inside)


def powers(A, B, C, delta, length, kernel=ssm_kernel):
    """The kernel by `lti`, from the bilinear rule."""
    A_bar, B_bar = bilinear(A[None], B[None], np.array([delta]), diagonal=False)
    return kernel(A_bar, B_bar, C[None], length)[0].numpy()


# Equal to the powers of A_bar


@pytest.mark.parametrize("N", [1, 2, 5, 16])
@pytest.mark.parametrize("delta", [0.003, 0.1, 2.0])
def test_the_kernel_holds_the_powers_of_A_bar_for_every_length(N, delta):
    real, inside = hippo_system(N)
    want = powers(*real, delta, max(LENGTHS))
    for length in LENGTHS:
        close(s4_kernel(*inside, delta, length), want[:length])


@settings(max_examples=15)
@given(st.integers(1, 8), st.integers(1, 40), st.floats(0.01, 1.0), st.integers(0, 2**32 - 1))
def test_any_matrix_of_this_form_will_do(N, length, delta, seed):
    real, inside = random_system(N, seed)
    close(s4_kernel(*inside, delta, length), powers(*real, delta, length), 1e-10)


def test_the_first_entry_is_C_B_bar():
    (A, B, C), inside = hippo_system(6)
    solved = np.linalg.solve(np.eye(6) - 0.2 * A / 2, 0.2 * B)
    close(s4_kernel(*inside, 0.2, 1), [C @ solved])


@pytest.mark.parametrize("length", [4095, 4096])
def test_a_long_kernel_stays_exact(length):
    real, inside = hippo_system(32)
    want = powers(*real, 1e-3, length, fast_kernel)
    close(s4_kernel(*inside, 1e-3, length), want, 1e-9)


def test_without_the_part_of_rank_1_the_matrix_is_diagonal():
    _, (Lambda, P, B, C) = hippo_system(6)
    A_bar = (1 + 0.05 * Lambda) / (1 - 0.05 * Lambda)
    B_bar = 0.1 * B / (1 - 0.05 * Lambda)
    want = [np.sum(C * A_bar**k * B_bar).real for k in range(20)]
    close(s4_kernel(Lambda, 0 * P, B, C, 0.1, 20), want)


def test_the_kernel_is_real_float64():
    _, inside = hippo_system(4)
    kernel = s4_kernel(*inside, 0.1, 9)
    assert kernel.dtype == np.float64 and kernel.shape == (9,)
    close(s4_kernel(*inside, 0.1, np.int32(9)), kernel, 0)


# Complex numbers that stand for real ones


@pytest.mark.parametrize("N", [1, 2, 7])
def test_no_imaginary_part_is_thrown_away(N):
    real, (Lambda, P, B, C) = hippo_system(N)
    kernel = s4_kernel(Lambda, P, B, C, 0.1, 30)
    imaginary = s4_kernel(Lambda, P, B, -1j * C, 0.1, 30)
    assert np.abs(imaginary).max() < 1e-12 * np.abs(kernel).max()


def test_the_basis_of_eigenvectors_is_free_up_to_phases():
    _, (Lambda, P, B, C) = hippo_system(6)
    phase = np.exp(1j * np.arange(6.0))
    turned = s4_kernel(Lambda, phase * P, phase * B, C / phase, 0.1, 21)
    close(turned, s4_kernel(Lambda, P, B, C, 0.1, 21))


@pytest.mark.parametrize("length", [1, 2, 9, 50])
def test_the_end_of_the_series_is_a_power(length):
    (A, _, C), (Lambda, P, _, inside) = hippo_system(5)
    A_bar = np.linalg.solve(np.eye(5) - 0.15 * A, np.eye(5) + 0.15 * A)
    want = C.copy()
    for _ in range(length):
        want = want @ A_bar
    got = end_of_series(Lambda, P, inside, 0.3, length)
    V = normal_plus_low_rank(5)[3]
    np.testing.assert_allclose(got @ V.conj().T, want, rtol=0, atol=1e-13 * np.abs(C).max())


# Bad input


@pytest.mark.parametrize("length", [0, -3, 2.0, "7", None, True, np.float32(4)])
def test_a_length_must_be_a_positive_integer(length):
    message = f"`length` must be a positive integer. Received: length={length!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        s4_kernel(*hippo_system(3)[1], 0.1, length)
