"""Linear time-invariant SSMs: one map, computed as a recurrence or as a convolution.

h_t = A_bar h_{t-1} + B_bar x_t and y_t = C h_t + D x_t with the same A_bar, B_bar, C at all times.
Then y = K * x with the kernel K = (C B_bar, C A_bar B_bar, C A_bar^2 B_bar, ...).
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tf_mamba_edu.discretization import zoh
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
)


def run_recurrence(x, A_bar, B_bar, C, initial_state=None):
    """Computes the outputs step after step: the recurrent view.

    Equation 2 of arXiv 2312.00752. Time O(B L D N^2), in L steps that wait for each other.

    Args:
        x: (B, L, D) input.
        A_bar: (D, N, N) discretized state matrix of each channel.
        B_bar: (D, N) discretized input vectors.
        C: (D, N) output vectors.
        initial_state: (B, D, N) state before the first step; zeros if None.

    Returns:
        (y, last_state) of shapes (B, L, D) and (B, D, N).

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    x, A_bar, B_bar, C = check_system(x, A_bar, B_bar, C)
    h = first_state(x, B_bar, initial_state)  # (B, D, N)
    inputs = tf.transpose(x, (1, 0, 2))  # (L, B, D)

    def step(h, x_t):
        decayed = tf.einsum("dnm,bdm->bdn", A_bar, h)
        return decayed + x_t[:, :, None] * B_bar  # (B, D, N)

    states = tf.scan(step, inputs, initializer=h)  # (L, B, D, N)
    y = tf.einsum("lbdn,dn->bld", states, C)  # (B, L, D)
    return y, states[-1]


def ssm_kernel(A_bar, B_bar, C, length: int) -> tf.Tensor:
    """Computes the kernel K_k = C A_bar^k B_bar, power by power.

    Equation 3a of arXiv 2312.00752, k = 0 .. length - 1: what a tap leaves after k steps.
    Time O(D L N^2).

    Args:
        A_bar: (D, N, N) discretized state matrix of each channel.
        B_bar: (D, N) discretized input vectors.
        C: (D, N) output vectors.
        length: L, number of entries, at least 1.

    Returns:
        (D, L) kernels.

    Raises:
        ValueError: if length is not a positive integer or the shapes do not fit.
    """
    length = check_positive_int("length", length)
    A_bar, B_bar, C = check_matrices(A_bar, B_bar, C)
    impulse, kernel = B_bar, []  # A_bar^k B_bar (D, N)
    for _ in range(length):
        kernel.append(tf.reduce_sum(C * impulse, axis=-1))  # (D,)
        impulse = tf.linalg.matvec(A_bar, impulse)  # (D, N)
    return tf.stack(kernel, axis=-1)  # (D, L)


def fast_kernel(A_bar, B_bar, C, length: int) -> tf.Tensor:
    """Computes the same kernel by doubling, in log2(length) rounds.

    Equal to `ssm_kernel`. From A_bar^k B_bar for k < m and A_bar^m follow those for k < 2 m in one
    multiplication. Time O(D L N^2 + D N^3 log L), memory O(D L N).

    Args:
        A_bar: (D, N, N) discretized state matrix of each channel.
        B_bar: (D, N) discretized input vectors.
        C: (D, N) output vectors.
        length: L, number of entries, at least 1.

    Returns:
        (D, L) kernels.

    Raises:
        ValueError: if length is not a positive integer or the shapes do not fit.
    """
    length = check_positive_int("length", length)
    A_bar, B_bar, C = check_matrices(A_bar, B_bar, C)
    power, responses = A_bar, B_bar[:, None, :]  # A_bar^m, (D, m, N)
    for _ in range(math.ceil(math.log2(length))):
        later = tf.matmul(responses, power, transpose_b=True)
        responses = tf.concat([responses, later], 1)  # (D, 2 m, N)
        power = tf.matmul(power, power)  # (D, N, N)
    return tf.einsum("dln,dn->dl", responses[:, :length], C)  # (D, L)


def convolve_direct(x, kernel) -> tf.Tensor:
    """Computes y_t = sum_k K_k x_{t-k} as it is written.

    Equation 3b of arXiv 2312.00752, a causal convolution. Time O(B D L^2), memory O(D L^2).

    Args:
        x: (B, L, D) input.
        kernel: (D, L) kernel of each channel.

    Returns:
        (B, L, D) output.

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    x, kernel = check_kernel(x, kernel)
    L = tf.shape(x)[1]
    lag = tf.range(L)[:, None] - tf.range(L)[None, :]  # (L, L), t - s
    toeplitz = tf.where(
        lag >= 0, tf.gather(kernel, tf.maximum(lag, 0), axis=1), 0
    )  # (D, L, L)
    return tf.einsum("dts,bsd->btd", toeplitz, x)  # (B, L, D)


def convolve_fft(x, kernel) -> tf.Tensor:
    """Computes the same convolution through the Fourier transform.

    A product of spectra is a convolution on a circle; with L zeros behind, nothing wraps around.
    Time O(B D L log L).

    Args:
        x: (B, L, D) input.
        kernel: (D, L) kernel of each channel.

    Returns:
        (B, L, D) output.

    Raises:
        ValueError: if an argument is not floating or the shapes do not fit.
    """
    x, kernel = check_kernel(x, kernel)
    L = tf.shape(x)[1]
    size = [2 * L]
    padded = tf.concat([x, tf.zeros_like(x)], 1)  # (B, 2 L, D)
    channels_first = tf.transpose(padded, (0, 2, 1))  # (B, D, 2 L)
    spectrum = tf.signal.rfft(channels_first, size)  # (B, D, L + 1)
    spectrum *= tf.signal.rfft(kernel, size)  # (B, D, L + 1)
    y = tf.signal.irfft(spectrum, size)[..., :L]  # (B, D, L)
    return tf.transpose(y, (0, 2, 1))  # (B, L, D)


@keras.saving.register_keras_serializable("tf_mamba_edu")
class LSSL(SequenceLayer):
    """Linear state-space layer: trains as a convolution, generates as a recurrence.

    After arXiv 2110.13985: each channel has a continuous system of its own, discretized by the
    zero-order hold. Its state matrix is A = S - S^T - diag(exp(a)): a rotation and a decay, so that
    it is stable whatever is learned. As a convolution O(B D L log L + D L N^2).

    Args:
        d_state: N, numbers of state per channel.
        dt_min: smallest Delta at initialization.
        dt_max: largest Delta at initialization.
        **kwargs: name, dtype and so on, as for every Keras layer.

    Raises:
        ValueError: if an argument is out of range, or the input is not a floating (B, L, D).
    """

    def __init__(
        self,
        d_state: int = 16,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        # XLA cannot compile the gradient of tf.linalg.expm, a loop of unknown length.
        self.supports_jit = False
        self.d_state = check_positive_int("d_state", d_state)
        check_step_range(dt_min, dt_max)
        self.dt_min, self.dt_max = dt_min, dt_max

    def build(self, input_shape):
        D, N = channels_of("LSSL", input_shape), self.d_state
        normal = keras.initializers.RandomNormal
        log_steps = keras.initializers.RandomUniform(
            math.log(self.dt_min), math.log(self.dt_max)
        )
        shapes = {
            "S": ((D, N, N), normal(stddev=1.0)),
            "log_decay": ((D, N), "zeros"),
            "B": ((D, N), "ones"),
            "C": ((D, N), normal(stddev=N**-0.5)),
            "D": ((D,), "ones"),
            "log_dt": ((D,), log_steps),
        }
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

    def discretize(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (A_bar (D, N, N), B_bar (D, N)) of all channels."""
        S = tf.convert_to_tensor(self.S)  # (D, N, N)
        decay = tf.linalg.diag(tf.exp(self.log_decay))  # (D, N, N)
        A = S - tf.linalg.matrix_transpose(S) - decay
        return zoh(A, self.B, tf.exp(self.log_dt), diagonal=False)

    def call(self, x, initial_state=None, return_state=False):
        """Maps (B, L, D) to y, or to (y, last_state (B, D, N)).

        As a convolution, or as a recurrence where a state comes in or is asked for, or where L
        is not known when the graph is made.
        """
        x = as_sequence("x", x, self.compute_dtype)
        u = tf.cast(x, self.variable_dtype)  # (B, L, D)
        A_bar, B_bar = self.discretize()
        carried = return_state or initial_state is not None
        if x.shape[1] and not carried:
            kernel = fast_kernel(A_bar, B_bar, self.C, x.shape[1])
            y = convolve_fft(u, kernel)  # (B, L, D)
        else:
            y, state = run_recurrence(
                u, A_bar, B_bar, self.C, initial_state
            )
        y = tf.cast(y + self.D * u, x.dtype)  # (B, L, D)
        return (y, state) if return_state else y

    def step(self, x, state) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs one time step, O(B D N^2 + D N^3), whatever came before.

        Args:
            x: (B, D) input.
            state: (B, D, N) state.

        Returns:
            (y, state) of shapes (B, D) and (B, D, N).
        """
        check_built(self)
        D, N = self.B.shape
        x = as_floating("x", x)
        check_shape("x", x, "B D", (None, D))
        state = as_floating("state", state)
        check_shape("state", state, "B D N", (x.shape[0], D, N))
        y, state = self(
            x[:, None], initial_state=state, return_state=True
        )
        return y[:, 0], state

    def state_spec(self, batch_size=None):
        check_built(self)
        return keras.KerasTensor(
            (batch_size, *self.B.shape), self.variable_dtype
        )

    def get_config(self):
        return {
            **super().get_config(),
            "d_state": self.d_state,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
        }


def check_matrices(A_bar, B_bar, C):
    """The matrices of a system as tensors, if they fit each other."""
    A_bar = as_floating("A_bar", A_bar)
    B_bar = as_floating("B_bar", B_bar, A_bar.dtype)
    C = as_floating("C", C, A_bar.dtype)
    check_shapes(
        A_bar=(A_bar, "D N N"), B_bar=(B_bar, "D N"), C=(C, "D N")
    )
    return A_bar, B_bar, C


def check_system(x, A_bar, B_bar, C):
    """A sequence and the matrices of a system as tensors, if they fit each other."""
    x = as_sequence("x", x)
    A_bar, B_bar, C = check_matrices(A_bar, B_bar, C)
    check_shapes(x=(x, "B L D"), A_bar=(A_bar, "D N N"))
    cast = (tf.cast(t, x.dtype) for t in (A_bar, B_bar, C))
    return x, *cast


def check_kernel(x, kernel):
    """A sequence and its kernel as tensors, if they fit each other."""
    x = as_sequence("x", x)
    kernel = as_floating("kernel", kernel, x.dtype)
    check_shapes(x=(x, "B L D"), kernel=(kernel, "D L"))
    return x, kernel


def first_state(x, B_bar, initial_state):
    """The given state (B, D, N) as a tensor, if it fits; zeros if it is None."""
    sizes = tuple(B_bar.shape)
    if initial_state is None:
        return tf.zeros((tf.shape(x)[0], *sizes), x.dtype)
    h = as_floating("initial_state", initial_state, x.dtype)
    check_shape("initial_state", h, "B D N", (x.shape[0], *sizes))
    return h
