"""Inputs of a selective scan, and what must come out: NumPy in float64, one step after another."""

from __future__ import annotations

import numpy as np

NAMES = "x", "delta", "A", "B", "C"  # the inputs of every scan, in this order


def make_inputs(shape: tuple[int, ...], seed: int = 0) -> tuple[dict, np.ndarray]:
    """Inputs such as a new model sees, and the weights of the loss sum(weights * y).

    Args:
        shape: (B, L, D, N).
        seed: the same seed makes the same inputs.

    Returns:
        (inputs, weights): float32 x, delta (B, L, D), A (D, N), B, C (B, L, N), by name, and
        weights (B, L, D).
    """
    B, L, D, N = shape
    rng = np.random.default_rng(seed)

    def normal(*sizes):
        return rng.standard_normal(sizes, dtype=np.float32)

    inputs = {
        "x": normal(B, L, D),
        "delta": np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (B, L, D))).astype("float32"),
        "A": -np.tile(np.arange(1, N + 1, dtype=np.float32), (D, 1)),
        "B": normal(B, L, N),
        "C": normal(B, L, N),
    }
    return inputs, normal(B, L, D)


def forward(x, delta, A, B, C, h=None):
    """Runs the recurrence and keeps no states. Returns y (B, L, D) and the last state (B, D, N)."""
    x, delta, A, B, C = (np.asarray(t, np.float64) for t in (x, delta, A, B, C))
    h = np.zeros((x.shape[0], *A.shape)) if h is None else np.asarray(h, np.float64)
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        h = next_state(h, x[:, t], delta[:, t], A, B[:, t])
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t])
    return y, h


def next_state(h, x_t, delta_t, A, B_t):
    """h_t = exp(Delta_t A) h_{t-1} + Delta_t x_t B_t, (B, D, N)."""
    return np.exp(delta_t[..., None] * A) * h + (delta_t * x_t)[..., None] * B_t[:, None, :]


def gradients(weights, x, delta, A, B, C) -> list[np.ndarray]:
    """Gradients of sum(weights * y) in x, delta, A, B and C: the chain rule, step by step."""
    inputs = x, delta, A, B, C
    dy, x, delta, A, B, C = (np.asarray(t, np.float64) for t in (weights, *inputs))
    states = [np.zeros((x.shape[0], *A.shape))]  # before each step
    for t in range(x.shape[1] - 1):
        states.append(next_state(states[-1], x[:, t], delta[:, t], A, B[:, t]))
    dx, d_delta, dA = np.empty_like(x), np.empty_like(delta), np.zeros_like(A)
    dB, dC = np.empty_like(B), np.empty_like(C)
    g = np.zeros_like(states[0])  # gradient in the state, from the steps behind
    for t in reversed(range(x.shape[1])):
        h = states.pop()
        u = (delta[:, t] * x[:, t])[..., None]  # (B, D, 1)
        A_bar = np.exp(delta[:, t, :, None] * A)  # (B, D, N)
        after = A_bar * h + u * B[:, t, None, :]  # (B, D, N)
        dC[:, t] = np.einsum("bdn,bd->bn", after, dy[:, t])
        g = g + dy[:, t, :, None] * C[:, t, None, :]
        in_u = np.einsum("bdn,bn->bd", g, B[:, t])
        decay = g * A_bar * h  # gradient in Delta_t A
        dx[:, t] = in_u * delta[:, t]
        d_delta[:, t] = in_u * x[:, t] + (decay * A).sum(-1)
        dA += (decay * delta[:, t, :, None]).sum(0)
        dB[:, t] = (g * u).sum(1)
        g = g * A_bar
    return [dx, d_delta, dA, dB, dC]


def largest_error(found, expected) -> float:
    """The largest difference over the largest number expected, the worst of several arrays."""
    pairs = zip(found, expected, strict=True)
    return max(float(np.max(np.abs(f - e)) / np.max(np.abs(e))) for f, e in pairs)
