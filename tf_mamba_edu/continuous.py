"""Linear state space models in continuous time, solved exactly in float64.

h'(t) = A h(t) + B x(t),   y(t) = C h(t) + D x(t)

These are the reference curves that every discretization is measured against, so they are
computed with NumPy and SciPy's matrix exponential, not with the code that they check.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg


class ContinuousSSM:
    """A linear state space model with one input and one output (arXiv 2312.00752, equation 1).

    Time is in seconds where the model describes something physical, A and the poles in 1 / s.
    Every response takes one matrix exponential, O(N^3), a time.

    Args:
        A: (N, N) state matrix.
        B: (N,) input vector.
        C: (N,) output vector.
        D: skip from input to output.

    Raises:
        ValueError: if an argument is not made of finite real numbers or the shapes do not fit.
    """

    def __init__(self, A, B, C, D=0.0):
        self.A = _real_array("A", A, 2)  # (N, N)
        self.B = _real_array("B", B, 1)  # (N,)
        self.C = _real_array("C", C, 1)  # (N,)
        self.D = float(_real_array("D", D, 0))
        self.d_state = N = self.A.shape[0]
        for name, array, shape in (
            ("A", self.A, (N, N)),
            ("B", self.B, (N,)),
            ("C", self.C, (N,)),
        ):
            if array.shape != shape or N == 0:
                raise ValueError(
                    f"`{name}` must have shape {'(N, N)' if name == 'A' else f'(N,) with N={N}'}"
                    f"{' and N >= 1' if name == 'A' else ' as in `A`'}. "
                    f"Received: {name} of shape {array.shape}"
                )

    @classmethod
    def mass_spring_damper(
        cls, mass=1.0, damping=0.5, stiffness=4.0
    ) -> ContinuousSSM:
        """Builds m p'' + c p' + k p = x, state (p, p'), output p.

        Args:
            mass: m in kg, positive.
            damping: c in kg / s, zero or positive.
            stiffness: k in kg / s^2, positive.

        Returns:
            The model, with A of shape (2, 2), input in newtons and output in meters.

        Raises:
            ValueError: if mass or stiffness is not positive, or damping is negative.
        """
        _check_positive("mass", mass)
        _check_positive("damping", damping, or_zero=True)
        _check_positive("stiffness", stiffness)
        A = [[0.0, 1.0], [-stiffness / mass, -damping / mass]]
        return cls(A, B=[0.0, 1.0 / mass], C=[1.0, 0.0])

    def poles(self) -> np.ndarray:
        """Returns the eigenvalues of A, (N,) complex, slowest first."""
        poles = np.linalg.eigvals(self.A).astype(complex)
        return poles[np.lexsort((poles.imag, -poles.real))]

    def is_stable(self) -> bool:
        """Returns whether every pole has a negative real part, so that all memory fades: O(N^3)."""
        return bool(np.all(self.poles().real < 0))

    def transition(self, t) -> np.ndarray:
        """Returns exp(A t): it carries a state over a time t.

        Args:
            t: (T,) times, or one time.

        Returns:
            (T, N, N) matrices, or (N, N) for one time.
        """
        t = _real_array("t", t, None)
        return scipy.linalg.expm(t[..., None, None] * self.A)

    def free_response(self, t, initial_state) -> np.ndarray:
        """Returns the states exp(A t) h(0) of the model left to itself.

        Args:
            t: (T,) times since the start.
            initial_state: (N,) state h(0).

        Returns:
            (T, N) states.
        """
        h = self._state(initial_state)
        return self.transition(_real_array("t", t, 1)) @ h  # (T, N)

    def impulse_response(self, t) -> np.ndarray:
        """Returns C exp(A t) B: what is left of a unit impulse.

        The skip D would add an impulse at t = 0, which no array can hold; it is left out.

        Args:
            t: (T,) times since the impulse; before it (t < 0) the response is 0.

        Returns:
            (T,) outputs.
        """
        t = _real_array("t", t, 1)
        carried = self.transition(np.maximum(t, 0.0))  # (T, N, N)
        response = self.C @ carried @ self.B  # (T,)
        return np.where(t < 0, 0.0, response)

    def step_response(self, t) -> np.ndarray:
        """Returns the output for an input that is 0 before time 0 and 1 from then on.

        Args:
            t: (T,) times since the input was switched on.

        Returns:
            (T,) outputs.
        """
        t = _real_array("t", t, 1)
        _, driven = self._held_input(np.maximum(t, 0.0))  # (T, N)
        return np.where(t < 0, 0.0, driven @ self.C + self.D)

    def frequency_response(self, omega) -> np.ndarray:
        """Returns C (i omega I - A)^-1 B + D: gain and phase for a sine of each frequency.

        Args:
            omega: (T,) angular frequencies in rad / s.

        Returns:
            (T,) complex gains.
        """
        omega = _real_array("omega", omega, 1)
        resolvent = (
            1j * omega[:, None, None] * np.eye(self.d_state) - self.A
        )  # (T, N, N)
        states = np.linalg.solve(
            resolvent,
            np.broadcast_to(self.B[:, None], resolvent[..., :1].shape),
        )
        return states[..., 0] @ self.C + self.D

    def simulate(
        self, x, dt, initial_state=None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs the model exactly on an input held over intervals.

        x[k] acts from time k dt to (k + 1) dt; outputs and states are those at the interval's end.
        No error is made for such inputs, whatever dt. O(N^3 + T N^2).

        Args:
            x: (T,) inputs.
            dt: length of an interval, positive.
            initial_state: (N,) state at time 0; zeros if None.

        Returns:
            (y, states) of shapes (T,) and (T, N).

        Raises:
            ValueError: if dt is not positive or a shape does not fit.
        """
        x = _real_array("x", x, 1)
        _check_positive("dt", dt)
        h = (
            np.zeros(self.d_state)
            if initial_state is None
            else self._state(initial_state)
        )
        decay, driven = self._held_input(np.array([dt], float))
        states = np.empty((len(x), self.d_state))
        for k, x_k in enumerate(x):
            h = decay[0] @ h + driven[0] * x_k  # (N,)
            states[k] = h
        return states @ self.C + self.D * x, states

    def _held_input(self, t):
        """exp(A t) (T, N, N) and what an input of 1 adds (T, N).

        Both are blocks of one exponential: the input is made a state that never changes.
        """
        N = self.d_state
        augmented = np.zeros((N + 1, N + 1))
        augmented[:N, :N] = self.A
        augmented[:N, N] = self.B
        exponential = scipy.linalg.expm(
            t[:, None, None] * augmented
        )  # (T, N + 1, N + 1)
        return exponential[:, :N, :N], exponential[:, :N, N]

    def _state(self, initial_state):
        h = _real_array("initial_state", initial_state, 1)
        if h.shape != (self.d_state,):
            raise ValueError(
                f"`initial_state` must have shape ({self.d_state},). Received shape {h.shape}"
            )
        return h


def _check_positive(name, value, or_zero=False):
    """Raises a ValueError unless the number is positive, or zero if that is allowed."""
    number = float(_real_array(name, value, 0))
    if number < 0 or (number == 0 and not or_zero):
        need = "zero or positive" if or_zero else "positive"
        raise ValueError(
            f"`{name}` must be {need}. Received: {name}={value}"
        )


def _real_array(name, value, rank):
    """Converts to a float64 array of `rank` axes (any if None) or raises a ValueError."""
    needs = (
        "finite real numbers"
        if rank is None
        else f"finite real numbers with {rank} axes"
    )
    try:
        array = np.asarray(value)
        real = array.dtype.kind in "fiu" and np.all(np.isfinite(array))
    except (TypeError, ValueError):
        real = False
    if not real or (rank is not None and array.ndim != rank):
        raise ValueError(
            f"`{name}` must be made of {needs}. Received: {name}={value!r}"
        )
    return array.astype(np.float64)
