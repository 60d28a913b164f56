"""S4D: a time-invariant SSM with a diagonal, complex state matrix.

After arXiv 2206.11893. A real output needs complex states in conjugate pairs; one of each pair is
computed, and the other is accounted for by taking twice the real part.
"""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tf_mamba_edu.discretization import zoh
from tf_mamba_edu.hippo import legs_eigenvalues
from tf_mamba_edu.lti import convolve_fft
from tf_mamba_edu.sequence_layer import SequenceLayer
from tf_mamba_edu.validation import (
    as_floating,
    as_sequence,
    channels_of,
    check_built,
    check_positive_int,
    check_shape,
    check_shapes,
    check_step_range,
    promote,
)

INITIALIZATIONS = ("legs", "lin", "inv", "real", "random")


def initial_eigenvalues(
    initialization: str, d_state: int, seed: int = 0
) -> np.ndarray:
    """Returns the diagonal of A that a channel starts with.

    Section 4 of arXiv 2206.11893, with n = 0, 1, ...: "legs" is the spectrum of HiPPO-LegS's
    normal part; "lin" -1/2 + i pi n; "inv" -1/2 + i (N / pi) (N / (2 n + 1) - 1); "real"
    -(n + 1). "random", to compare with, draws from the disk of radius 1 around -1, where the
    eigenvalues of a large random matrix G - I lie (the circular law).

    Args:
        initialization: "legs", "lin", "inv", "real" or "random".
        d_state: N, real numbers of state; even except for "real".
        seed: of the random ones.

    Returns:
        (N / 2,) complex numbers, one of each conjugate pair; (N,) real ones for "real".

    Raises:
        ValueError: if the initialization is unknown, or d_state is odd where pairs are needed.
    """
    N = check_positive_int("d_state", d_state)
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"`initialization` must be one of {', '.join(INITIALIZATIONS)}. "
            f"Received: initialization={initialization!r}"
        )
    if initialization == "real":
        return -np.arange(1.0, N + 1)  # (N,)
    if N % 2:
        raise ValueError(
            f"`d_state` must be even for initialization={initialization!r}, whose states come in "
            f"conjugate pairs. Received: d_state={d_state}"
        )
    n = np.arange(N // 2)
    if initialization == "lin":
        return -0.5 + 1j * np.pi * n  # (N / 2,)
    if initialization == "inv":
        return -0.5 + 1j * N / np.pi * (N / (2 * n + 1) - 1)
    if initialization == "legs":
        return legs_eigenvalues(N)  # (N / 2,)
    rng = np.random.default_rng(seed)
    radius = np.sqrt(rng.uniform(size=N // 2))
    return radius * np.exp(1j * np.pi * rng.uniform(size=N // 2)) - 1


def diagonal_kernel(A, B, C, delta, length: int) -> tf.Tensor:
    """Computes the kernel of diagonal systems in one product.

    The matrix of all powers is called after Vandermonde:
    K_k = 2 Re(sum over n of C_n B_bar_n exp(k Delta A_n)), section 3.2 of arXiv 2206.11893, by the
    zero-order hold; without the 2 where A is real. Time and memory O(D L N).

    Args:
        A: (D, n) diagonals, one of each conjugate pair, or real.
        B: (D, n) input vectors.
        C: (D, n) output vectors.
        delta: (D,) step sizes, positive.
        length: L, number of entries, at least 1.

    Returns:
        (D, L) kernels.

    Raises:
        ValueError: if length is not a positive integer or the shapes do not fit.
    """
    if not tf.is_tensor(length):
        length = check_positive_int("length", length)
    A, B, C, delta = check_diagonal(A, B, C, delta)
    _, B_bar = zoh(A, B, delta, diagonal=True)  # (D, n)
    powers = vandermonde(A, delta, tf.range(length))  # (D, n, L)
    return real_part(tf.einsum("dn,dnl->dl", C * B_bar, powers))


def vandermonde(A, delta, steps) -> tf.Tensor:
    """Returns exp(k Delta A) = A_bar^k for k in steps: (D, n, L)."""
    times = delta[:, None] * tf.cast(steps, delta.dtype)  # (D, L)
    return tf.exp(A[:, :, None] * promote(times, A.dtype)[:, None, :])


def real_part(z) -> tf.Tensor:
    """Returns z plus its conjugate, 2 Re(z); z itself if real."""
    return 2 * tf.math.real(z) if z.dtype.is_complex else z


def as_real_system(A, B, C) -> tuple[tf.Tensor, ...]:
    """Writes diagonal systems as real ones with full matrices.

    For the functions of `lti`. A conjugate pair a +- i w is a rotation with a decay,
    [[a, -w], [w, a]], acting on the real and the imaginary part. O(D N^2).

    Args:
        A: (D, n) complex diagonals, one of each conjugate pair.
        B: (D, n) input vectors.
        C: (D, n) output vectors.

    Returns:
        (A, B, C) of shapes (D, N, N), (D, N) and (D, N), real, with N = 2 n.

    Raises:
        ValueError: if A is real.
    """
    if not tf.as_dtype(A.dtype).is_complex:
        raise ValueError(
            "`A` must be complex, one of each conjugate pair. "
            f"Received: A of dtype {A.dtype}"
        )
    a, w = (
        tf.linalg.diag(tf.math.real(A)),
        tf.linalg.diag(tf.math.imag(A)),
    )
    left, right = tf.concat([a, w], 1), tf.concat([-w, a], 1)
    parts = tf.math.real(B), tf.math.imag(B)
    reads = 2 * tf.math.real(C), -2 * tf.math.imag(C)
    return (
        tf.concat([left, right], 2),  # (D, N, N)
        tf.concat(parts, 1),  # (D, N)
        tf.concat(reads, 1),  # (D, N)
    )


@keras.saving.register_keras_serializable("tf_mamba_edu")
class S4D(SequenceLayer):
    """Diagonal state space layer: a convolution in training, a recurrence in generation.

    After arXiv 2206.11893: one system a channel, (B, L, D) to (B, L, D), zero-order hold. A is
    stored as log(-Re A) and Im A, so that the real part stays negative whatever is learned. B is 1,
    since C can learn what B could. State and weights are float32 under mixed precision. It knows no
    masks: behind the end of a padded sequence its state goes on to fade. Time
    O(B D L log L + D L N).

    Args:
        d_state: N, real numbers of state per channel: N / 2 conjugate pairs, so even, except
            for initialization="real".
        initialization: of A, see `initial_eigenvalues`.
        dt_min: smallest Delta at initialization.
        dt_max: largest Delta at initialization.
        seed: of initialization="random".
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if an argument is out of range, or the input is not a floating (B, L, D).
    """

    def __init__(
        self,
        d_state: int = 64,
        initialization: str = "legs",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if self.variable_dtype not in ("float32", "float64"):
            raise ValueError(
                "`dtype` must keep weights in float32 or float64, for there are no complex "
                "numbers of half precision; mixed_float16 and mixed_bfloat16 do. "
                f"Received: dtype={self.variable_dtype}"
            )
        self.d_state = check_positive_int("d_state", d_state)
        initial_eigenvalues(initialization, d_state, seed)
        check_step_range(dt_min, dt_max)
        self.initialization, self.seed = initialization, seed
        self.dt_min, self.dt_max = dt_min, dt_max

    def build(self, input_shape):
        D = channels_of("S4D", input_shape)
        start = initial_eigenvalues(
            self.initialization, self.d_state, self.seed
        )
        normal = keras.initializers.RandomNormal
        log_steps = keras.initializers.RandomUniform(
            math.log(self.dt_min), math.log(self.dt_max)
        )
        self._paired = np.iscomplexobj(start)
        parts = 2 if self._paired else 1  # real and imaginary
        shapes = {
            "A_log": ((D, len(start)), repeated(np.log(-start.real))),
            "C": ((parts, D, len(start)), normal(stddev=parts**-0.5)),
            "D": ((D,), "ones"),
            "log_dt": ((D,), log_steps),
        }
        if self._paired:
            shapes["A_imag"] = (D, len(start)), repeated(start.imag)
        for name, (shape, initializer) in shapes.items():
            weight = self.add_weight(
                shape=shape,
                initializer=initializer,
                autocast=False,
                name=name,
            )
            setattr(self, name, weight)
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: D})
        self.built = True

    def system(self) -> tuple[tf.Tensor, ...]:
        """Returns (A, B, C, delta): (D, n) three times, and (D,)."""
        A, C = -tf.exp(self.A_log), self.C[0]  # (D, n)
        if self._paired:
            A, C = (
                tf.complex(A, self.A_imag),
                tf.complex(*tf.unstack(self.C)),
            )
        return A, tf.ones_like(A), C, tf.exp(self.log_dt)

    def call(self, x, initial_state=None, return_state=False):
        """Maps (B, L, D) to y, or to (y, last_state (B, D, N)).

        By FFT convolution; a state that comes in, or is asked for, costs O(B D L N) more.
        """
        x = as_sequence("x", x, self.compute_dtype)
        u = tf.cast(x, self.variable_dtype)  # (B, L, D)
        A, B, C, delta = self.system()
        L = x.shape[1] or tf.shape(x)[1]
        y = convolve_fft(u, diagonal_kernel(A, B, C, delta, L))
        y += self.D * u  # (B, L, D)
        if initial_state is not None:
            state = self._as_pairs("initial_state", initial_state, x)
            y += self._left_of(state, L)
        y = tf.cast(y, x.dtype)
        if not return_state:
            return y
        if initial_state is None:
            initial_state = self.zero_state(tf.shape(x)[0])
        state = self._as_pairs("initial_state", initial_state, x)
        return y, self._as_numbers(self._state_after(u, state, L))

    def _left_of(self, state, length):
        """What a state (B, D, n) adds to the next outputs: C A_bar^(t + 1) h, (B, L, D)."""
        A, _, C, delta = self.system()
        powers = vandermonde(A, delta, 1 + tf.range(length))
        return real_part(tf.einsum("dn,dnl,bdn->bld", C, powers, state))

    def _state_after(self, u, state, length):
        """The state (B, D, n) behind the inputs u (B, L, D), of which the last has not faded."""
        A, B, _, delta = self.system()
        _, B_bar = zoh(A, B, delta, diagonal=True)  # (D, n)
        powers = vandermonde(A, delta, tf.range(length, -1, -1))
        entered = tf.einsum(
            "dnl,bld->bdn", powers[..., 1:], promote(u, A.dtype)
        )
        return powers[..., 0] * state + B_bar * entered

    def step(self, x, state) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one time step, O(B D N), whatever came before.

        Args:
            x: (B, D) input.
            state: (B, D, N) state.

        Returns:
            (y, state) of shapes (B, D) and (B, D, N).
        """
        check_built(self)
        x = as_floating("x", x, tf.as_dtype(self.compute_dtype))
        check_shape("x", x, "B D", (None, self.D.shape[0]))
        A, B, C, delta = self.system()
        A_bar, B_bar = zoh(A, B, delta, diagonal=True)  # (D, n)
        u = tf.cast(x, self.variable_dtype)  # (B, D)
        state = self._as_pairs("state", state, x)  # (B, D, n)
        entering = B_bar * promote(u, A.dtype)[:, :, None]
        state = A_bar * state + entering  # (B, D, n)
        y = (
            real_part(tf.reduce_sum(C * state, -1)) + self.D * u
        )  # (B, D)
        return tf.cast(y, x.dtype), self._as_numbers(state)

    def _as_pairs(self, name, state, x):
        """A state (B, D, N) of real numbers as one of complex numbers (B, D, N / 2)."""
        state = as_floating(
            name, state, tf.as_dtype(self.variable_dtype)
        )
        sizes = x.shape[0], self.D.shape[0], self.d_state
        check_shape(name, state, "B D N", sizes)
        if not self._paired:
            return state
        return tf.complex(*tf.split(state, 2, axis=-1))

    def _as_numbers(self, state):
        """The opposite of `_as_pairs`."""
        if not self._paired:
            return state
        parts = tf.math.real(state), tf.math.imag(state)
        return tf.concat(parts, -1)  # (B, D, N)

    def state_spec(self, batch_size=None):
        check_built(self)
        sizes = batch_size, self.D.shape[0], self.d_state
        return keras.KerasTensor(sizes, self.variable_dtype)

    def get_config(self):
        names = "d_state initialization dt_min dt_max seed".split()
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own}


def repeated(row):
    """Returns an initializer that gives each channel the same row (n,)."""

    def initialize(shape, dtype=None):
        return tf.cast(np.tile(row, (shape[0], 1)), dtype)

    return initialize


def check_diagonal(A, B, C, delta):
    """Diagonal systems and their step sizes as tensors, if they fit each other."""
    A = as_floating("A", A, allow_complex=True)
    B = as_floating("B", B, A.dtype, allow_complex=True)
    C = as_floating("C", C, A.dtype, allow_complex=True)
    delta = as_floating("delta", delta, A.dtype.real_dtype)
    check_shapes(
        A=(A, "D n"), B=(B, "D n"), C=(C, "D n"), delta=(delta, "D")
    )
    return A, B, C, delta
