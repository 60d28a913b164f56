"""S4's kernel: a full HiPPO matrix, and no power of it ever computed.

After arXiv 2111.00396, sections 3.2 and 3.3. NumPy, complex128: it is here to be read and to be
compared with; `s4d` is what one uses.
"""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.validation import check_positive_int


def s4_kernel(Lambda, P, B, C, delta: float, length: int) -> np.ndarray:
    """Computes the kernel of A = diag(Lambda) - P P* without powers.

    Through its generating function, algorithm 1 of arXiv 2111.00396, for the bilinear rule:
    the sum of K_k z^k is known in closed form; at the L roots of unity it is the Fourier
    transform of K. The low-rank part is taken care of by Woodbury's identity, what is left are
    Cauchy sums. Time O(L N), where all powers of a full matrix take O(L N^2).

    Args:
        Lambda: (N,) complex eigenvalues of the normal part.
        P: (N,) low-rank part, in the basis of the eigenvectors.
        B: (N,) input vector, in that basis.
        C: (N,) output vector, in that basis.
        delta: step size, positive.
        length: L, number of entries, at least 1.

    Returns:
        (L,) kernel.

    Raises:
        ValueError: if length is not a positive integer, or the vectors differ in shape.
    """
    L = check_positive_int("length", length)
    Lambda, P, B, C = as_vectors(Lambda=Lambda, P=P, B=B, C=C)
    z = np.exp(-2j * np.pi * np.arange(L) / L)  # (L,)
    C_cut = C - end_of_series(Lambda, P, C, delta, L)  # (N,)
    resolvent = (
        2
        * delta
        / (2 * (1 - z[:, None]) - delta * (1 + z[:, None]) * Lambda)
    )  # (L, N)
    CB, CP = resolvent @ (C_cut * B), resolvent @ (C_cut * P)  # (L,)
    PB, PP = resolvent @ (P.conj() * B), resolvent @ np.abs(P) ** 2
    half = (1 + z) / 2
    spectrum = CB - CP * half * PB / (1 + half * PP)  # (L,)
    return np.fft.ifft(spectrum).real


def as_vectors(**arrays) -> list[np.ndarray]:
    """Returns the arguments as complex arrays (N,), if they have one and the same N."""
    found = {name: np.asarray(v, complex) for name, v in arrays.items()}
    N = found["Lambda"].size
    for name, array in found.items():
        if array.shape != (N,):
            raise ValueError(
                f"`{name}` must have shape (N,) = ({N},), as Lambda has. "
                f"Received: {name} of shape {array.shape}"
            )
    return list(found.values())


def end_of_series(Lambda, P, C, delta, length) -> np.ndarray:
    """Returns C A_bar^L (N,): it cuts an endless sum to L terms.

    S4 does not compute it: it learns the difference C - C A_bar^L instead of C. O(N^3 log L).
    """
    N = len(Lambda)
    half = delta / 2 * (np.diag(Lambda) - np.outer(P, P.conj()))
    A_bar = np.linalg.solve(np.eye(N) - half, np.eye(N) + half)
    return C @ np.linalg.matrix_power(A_bar, length)
