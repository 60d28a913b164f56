"""From a continuous system to a recurrence: four rules.

Each rule turns h'(t) = A h(t) + B x(t) and a step size Delta into the coefficients of a
recurrence over samples. The state matrix A is diagonal (stored as its diagonal, as in Mamba) or
full. The rules differ in what they assume about the input between two samples.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_mamba_edu.validation import as_floating


def phi1(z: tf.Tensor) -> tf.Tensor:
    """Computes (exp(z) - 1) / z, with its limit 1 at z = 0.

    Near z = 0 the power series is used, whose value and gradient have no 0 / 0. O(1) per element.

    Args:
        z: tensor of any shape, real or complex.

    Returns:
        A tensor of the shape of z.
    """
    small = tf.abs(z) < 0.5
    near_zero = tf.where(small, z, tf.zeros_like(z))
    elsewhere = tf.where(small, tf.ones_like(z), z)
    series = tf.ones_like(z)  # 1 + z/2 (1 + z/3 (1 + ...))
    for k in range(15, 1, -1):  # exact to 1e-17 where z is small
        series = 1 + near_zero / k * series
    return tf.where(small, series, tf.math.expm1(elsewhere) / elsewhere)


def euler(
    A, B, delta, *, diagonal: bool | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Follows the slope at the start of each step.

    A_bar = I + Delta A and B_bar = Delta B: error O(Delta^2) a step, and unstable when Delta is
    large. O(1) per element of A.

    Args:
        A: (..., N) diagonal or (..., N, N) full state matrix, in 1 / time.
        B: (..., N) input vector.
        delta: (...) step size Delta in time, positive; a Python number is fine.
        diagonal: whether A is a diagonal; needed only if A is square in its last two axes.

    Returns:
        (A_bar, B_bar) for h_t = A_bar h_{t-1} + B_bar x_t, of the shapes of A and B (broadcast).

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    A, B, delta, diagonal = check_arguments(A, B, delta, diagonal)
    if diagonal:
        return 1 + delta[..., None] * A, delta[..., None] * B
    identity = tf.eye(A.shape[-1], dtype=A.dtype)  # (N, N)
    return identity + delta[..., None, None] * A, delta[..., None] * B


def bilinear(
    A, B, delta, *, diagonal: bool | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Averages the slopes at both ends of each step.

    A_bar = (I - Delta A / 2)^-1 (I + Delta A / 2) and B_bar = (I - Delta A / 2)^-1 Delta B,
    Tustin's method and the rule of S4 (arXiv 2111.00396, equation 3): error O(Delta^3) a step,
    stable for every stable A. O(1) per element of a diagonal A, O(N^3) per full matrix.

    Args:
        A: (..., N) diagonal or (..., N, N) full state matrix, in 1 / time.
        B: (..., N) input vector.
        delta: (...) step size Delta in time, positive; a Python number is fine.
        diagonal: whether A is a diagonal; needed only if A is square in its last two axes.

    Returns:
        (A_bar, B_bar) for h_t = A_bar h_{t-1} + B_bar x_t, of the shapes of A and B (broadcast).

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    A, B, delta, diagonal = check_arguments(A, B, delta, diagonal)
    if diagonal:
        half = delta[..., None] * A / 2
        return (1 + half) / (1 - half), delta[..., None] * B / (
            1 - half
        )
    half = delta[..., None, None] * A / 2  # (..., N, N)
    identity = tf.eye(A.shape[-1], dtype=A.dtype)  # (N, N)
    shape = tf.broadcast_dynamic_shape(
        tf.shape(half)[:-1], tf.shape(delta[..., None] * B)
    )
    delta_B = tf.broadcast_to(delta[..., None] * B, shape)  # (..., N)
    half = tf.broadcast_to(
        half, tf.concat([shape, shape[-1:]], axis=0)
    )  # (..., N, N)
    A_bar = tf.linalg.solve(
        identity - half, identity + half
    )  # (..., N, N)
    B_bar = tf.linalg.solve(identity - half, delta_B[..., None])[
        ..., 0
    ]  # (..., N)
    return A_bar, B_bar


def zoh(
    A, B, delta, *, diagonal: bool | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solves each step exactly for an input held constant.

    The zero-order hold, equation 4 of arXiv 2312.00752: A_bar = exp(Delta A) and
    B_bar = (Delta A)^-1 (exp(Delta A) - I) Delta B. A may be singular, also zero: the limit is
    used. O(1) per element of a diagonal A; a full A takes the exponential of
    [[A, B], [0, 0]] Delta, O(N^3).

    Args:
        A: (..., N) diagonal or (..., N, N) full state matrix, in 1 / time.
        B: (..., N) input vector.
        delta: (...) step size Delta in time, positive; a Python number is fine.
        diagonal: whether A is a diagonal; needed only if A is square in its last two axes.

    Returns:
        (A_bar, B_bar) for h_t = A_bar h_{t-1} + B_bar x_t, of the shapes of A and B (broadcast).

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    A, B, delta, diagonal = check_arguments(A, B, delta, diagonal)
    if diagonal:
        delta_A = delta[..., None] * A
        return tf.exp(delta_A), phi1(delta_A) * delta[..., None] * B
    N = A.shape[-1]
    delta_A = delta[..., None, None] * A  # (..., N, N)
    delta_B = delta[..., None] * B  # (..., N)
    shape = tf.broadcast_dynamic_shape(
        tf.shape(delta_A)[:-1], tf.shape(delta_B)
    )
    delta_A = tf.broadcast_to(delta_A, tf.concat([shape, [N]], axis=0))
    delta_B = tf.broadcast_to(delta_B, shape)
    top = tf.concat(
        [delta_A, delta_B[..., None]], axis=-1
    )  # (..., N, N + 1)
    exponential = tf.linalg.expm(
        tf.concat([top, tf.zeros_like(top[..., :1, :])], axis=-2)
    )
    return exponential[..., :N, :N], exponential[..., :N, N]


def exponential_trapezoidal(
    A, B, delta, lam=0.5, *, diagonal: bool | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decays exactly and weighs the input at both ends of a step.

    h_t = alpha h_{t-1} + beta x_{t-1} + gamma x_t with alpha = exp(Delta A),
    beta = (1 - lam) Delta alpha B and gamma = lam Delta B. lam = 1 is Mamba's rule
    (B_bar = Delta B, error O(Delta^2) a step), lam = 1/2 the trapezoid (error O(Delta^3) a step).
    O(1) per element of a diagonal A, O(N^3) per full matrix.

    Args:
        A: (..., N) diagonal or (..., N, N) full state matrix, in 1 / time.
        B: (..., N) input vector. If it varies with time, beta needs the B of the step before.
        delta: (...) step size Delta in time, positive; a Python number is fine.
        lam: (...) weight of the end of the step, between 0 and 1.
        diagonal: whether A is a diagonal; needed only if A is square in its last two axes.

    Returns:
        (alpha, beta, gamma) of the shapes of A, B and B (broadcast).

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    A, B, delta, diagonal = check_arguments(A, B, delta, diagonal)
    lam = as_floating("lam", lam, delta.dtype)
    before = ((1 - lam) * delta)[..., None] * B  # (..., N)
    gamma = (lam * delta)[..., None] * B  # (..., N)
    if diagonal:
        alpha = tf.exp(delta[..., None] * A)  # (..., N)
        return alpha, alpha * before, gamma
    alpha = tf.linalg.expm(delta[..., None, None] * A)  # (..., N, N)
    return alpha, tf.linalg.matvec(alpha, before), gamma


def check_arguments(A, B, delta, diagonal):
    """Converts the arguments of a rule to one dtype, settles `diagonal`, checks the shapes."""
    given = {
        "A": as_floating("A", A, allow_complex=True),
        "B": as_floating("B", B, allow_complex=True),
    }
    if not isinstance(delta, (int, float)):
        given["delta"] = as_floating("delta", delta)
    widest = np.result_type(
        *(t.dtype.as_numpy_dtype for t in given.values())
    )
    A, B = (tf.cast(given[name], widest) for name in ("A", "B"))
    delta = as_floating(
        "delta", given.get("delta", delta), tf.as_dtype(widest)
    )
    if (
        A.shape.rank is None
        or A.shape.rank < 1
        or B.shape.rank is None
        or B.shape.rank < 1
    ):
        raise ValueError(
            "`A` and `B` need at least one axis, (..., N). "
            f"Received: A of shape {A.shape} and B of shape {B.shape}"
        )
    square = A.shape.rank >= 2 and A.shape[-1] == A.shape[-2]
    if diagonal is None and square:
        raise ValueError(
            f"`A` of shape {tuple(A.shape)} can be a full matrix or a batch of diagonals: "
            "say which with diagonal=False or diagonal=True."
        )
    if diagonal is False and not square:
        raise ValueError(
            "`A` must be square in its last two axes, (..., N, N), when diagonal=False. "
            f"Received: A of shape {tuple(A.shape)}"
        )
    if (
        A.shape[-1] != B.shape[-1]
        and B.shape[-1] is not None
        and A.shape[-1] is not None
    ):
        raise ValueError(
            f"`B` must have shape (..., N) with N={A.shape[-1]} as in `A`. "
            f"Received: B of shape {tuple(B.shape)}"
        )
    diagonal = bool(diagonal) if square else True
    leading = {
        "A": A.shape[:-1] if diagonal else A.shape[:-2],
        "B": B.shape[:-1],
        "delta": delta.shape,
    }
    try:
        shape = tf.TensorShape([])
        for part in leading.values():
            shape = tf.broadcast_static_shape(shape, part)
    except ValueError as error:
        raise ValueError(
            "`A`, `B` and `delta` must agree (broadcast) in all axes but N: received leading "
            + ", ".join(
                f"{name} {tuple(part)}"
                for name, part in leading.items()
            )
        ) from error
    return A, B, delta, diagonal
