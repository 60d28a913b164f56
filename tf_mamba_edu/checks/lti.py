"""Checks of chapter 04, recurrence and convolution."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake


def _diagonal_case(rng):
    N, length = (int(v) for v in rng.integers((2, 5), (6, 10)))
    A_bar = rng.uniform(0.3, 0.95, N) * rng.choice([-1, 1], N)
    B_bar, C = rng.normal(size=(2, N)) + 1
    return A_bar, B_bar, C, length


def _kernel(A_bar, B_bar, C, length, first=0):
    powers = A_bar ** (first + np.arange(length)[:, None])  # (L, N)
    return (C * powers * B_bar).sum(-1)  # (L,)


check_kernel = Check(
    name="my_kernel",
    spec=_kernel,
    outputs=("kernel",),
    cases=_diagonal_case,
    hint="entry k is what is left of a tap of strength 1 after k steps: multiplied by A_bar k "
    "times, and read with C.",
    mistakes=(
        Mistake(
            lambda A, B, C, L: _kernel(A, B, C, L, first=1),
            "your kernel is one step ahead: it starts at power 1. A tap is read in the very step "
            "in which it arrives, before it has faded: entry 0 is C B_bar.",
        ),
        Mistake(
            lambda A, B, C, L: _kernel(A, np.ones_like(B), C, L),
            "B_bar is missing: it says how strongly each state takes in the tap.",
        ),
        Mistake(
            lambda A, B, C, L: _kernel(A, B, np.ones_like(C), L),
            "C is missing: it says how strongly the output reads each state.",
        ),
        Mistake(
            lambda A, B, C, L: _kernel(A, B, C, L)[::-1],
            "the entries are right, in reversed order. Index k counts the steps since the tap: "
            "the youngest comes first.",
        ),
        Mistake(
            lambda A, B, C, L: (np.arange(L)[:, None] * A * B * C).sum(
                -1
            ),
            "this is k times A_bar. Each step multiplies the state by A_bar, so after k steps it "
            "is a power: A_bar**k.",
        ),
        Mistake(
            lambda A, B, C, L: C * A ** np.arange(L)[:, None] * B,
            "this holds every state by itself, (length, N). The output adds the states up: sum "
            "over the last axis.",
        ),
    ),
)


check_memory = Check(
    name="forgotten_after",
    spec=459,
    outputs=("forgotten_after",),
    tolerance=1e-4,
    hint="each step multiplies what is left by 0.99. Which whole power of 0.99 is the first one "
    "below 0.01?",
    mistakes=(
        Mistake(
            100,
            "1 / (1 - 0.99) is the time constant: after 100 steps 37 % are left, a share of 1 / e, "
            "and not yet 1 %.",
        ),
        Mistake(
            458,
            "one step too early: 0.99**458 is 0.01002. You rounded down; the first step below "
            "comes after the crossing.",
        ),
        Mistake(
            np.log(0.01) / np.log(0.99),
            "this is where the curve crosses 0.01, between two steps. Which is the first whole "
            "step behind it?",
        ),
        Mistake(
            69,
            "this is the half-life: after 69 steps one half is left, not one percent.",
        ),
        Mistake(
            230,
            "after 230 steps ten percent are left. One percent is a tenth of a tenth.",
        ),
        Mistake(
            461,
            "this is ln(100) / 0.01. It takes 0.99 for exp(-0.01), which is a little more: the "
            "decay of one step is -ln(0.99) = 0.01005.",
        ),
    ),
)


def _pair_case(rng):
    L = int(rng.integers(5, 13))
    x, kernel = rng.normal(size=(2, L))
    return x, kernel * np.exp(-2 * np.arange(L) / L)


def _convolve(x, kernel):
    return np.convolve(x, kernel)[: len(x)]


def _circular(x, kernel):
    spectrum = np.fft.rfft(x) * np.fft.rfft(kernel)
    return np.fft.irfft(spectrum, len(x))


def _correlate(x, kernel):
    L = len(x)
    return np.array([kernel[: L - t] @ x[t:] for t in range(L)])


def _whole(x, kernel):
    return np.append(np.convolve(x, kernel), 0.0)  # (2 L,)


def _without_size(x, kernel, size):
    """The inverse transform left to guess how many numbers there were."""
    spectrum = np.fft.rfft(x, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(spectrum)[: len(x)]


check_fft_convolution = Check(
    name="my_convolution",
    spec=_convolve,
    outputs=("y",),
    cases=_pair_case,
    hint="try a single tap, x = (0, ..., 0, 1, 0): its answer is the kernel, moved to where the "
    "tap is and cut at the end. Which of your outputs differ?",
    mistakes=(
        Mistake(
            _circular,
            "the end rings at the beginning: this is the convolution on a circle. Append L zeros "
            "before the transform, so that the tail has somewhere to go.",
        ),
        Mistake(
            lambda x, kernel: _without_size(x, kernel, len(x)),
            "the end rings at the beginning, and where the length is odd a number is missing: "
            "append L zeros before the transform, and tell np.fft.irfft how many numbers it is to "
            "return.",
        ),
        Mistake(
            lambda x, kernel: _without_size(x, kernel, 2 * len(x) - 1),
            "2 L - 1 places are enough, but np.fft.irfft cannot know from the spectrum that their "
            "number was odd, and returns one too few, all of them off. Give it the same n.",
        ),
        Mistake(
            _correlate,
            "this is a correlation: y_t looks at x_{t+k}, which is the future. A complex "
            "conjugate, or a reversed kernel, does that; the convolution needs neither.",
        ),
        Mistake(
            lambda x, kernel: _whole(x, kernel)[len(x) :],
            "you kept the last L of the 2 L numbers. Those are the tail, after the input has "
            "ended; the outputs to steps 0 ... L - 1 come first.",
        ),
        Mistake(
            lambda x, kernel: np.convolve(x, kernel, mode="same"),
            'this is the middle part, what mode="same" cuts out: each output looks half a kernel '
            "ahead. A causal convolution keeps the first L.",
        ),
        Mistake(
            _whole,
            "the numbers are right, but all 2 L are still there: cut off what comes after step "
            "L - 1.",
        ),
    ),
)


def _batch_case(rng):
    N, sequences, length = (
        int(v) for v in rng.integers((2, 2, 4), (5, 4, 8))
    )
    A_bar = 0.8 * rng.normal(size=(N, N)) / np.sqrt(N)
    B_bar, C = rng.normal(size=(2, N)) + 0.5
    return rng.normal(size=(sequences, length)), A_bar, B_bar, C


def _run(x, A_bar, B_bar, C, late=False, carried=False, resets=False):
    """The right recurrence and, by its switches, its wrong variants."""
    h, y = np.zeros(len(B_bar)), np.zeros(x.shape)
    for i in range(x.shape[0]):
        if not carried:
            h = np.zeros(len(B_bar))
        for t in range(x.shape[1]):
            before = np.zeros(len(B_bar)) if resets else h
            h = A_bar @ before + B_bar * x[i, t]
            y[i, t] = C @ (before if late else h)
    return y


def _read_between(x, A_bar, B_bar, C):
    """Reads the state after it has faded and before the input is written."""
    return _run(x, A_bar, B_bar, A_bar.T @ C, late=True)


check_repaired_recurrence = Check(
    name="repaired",
    spec=_run,
    outputs=("y",),
    cases=_batch_case,
    hint="tap each sequence at its first step only. At which step should its output begin, and "
    "what should the other sequences show?",
    mistakes=(
        Mistake(
            lambda *args: _run(*args, late=True, carried=True),
            "both bugs are still there. One is a matter of order in time, the other of what two "
            "sequences share.",
        ),
        Mistake(
            lambda *args: _run(*args, late=True),
            "the output is one step late: it reads the state before the input is written into "
            "it. y_t must know x_t: its kernel starts with C B_bar.",
        ),
        Mistake(
            _read_between,
            "the output is read between the two halves of the step: the state has faded, and the "
            "input is not written yet. y_t must know x_t.",
        ),
        Mistake(
            lambda *args: _run(*args, carried=True),
            "the state is carried from one sequence of the batch to the next, so that the second "
            "hears the first. Each sequence starts from zero.",
        ),
        Mistake(
            lambda x, A, B, C: _run(x, A.T, B, C),
            "A_bar is transposed: h_t = A_bar h_{t-1} is A_bar @ h, and h @ A_bar is something "
            "else unless A_bar is symmetric.",
        ),
        Mistake(
            lambda *args: _run(*args, resets=True),
            "the state now starts from zero at every step, and nothing is remembered. Reset it "
            "once a sequence, before the loop over time.",
        ),
    ),
)


def _state_case(rng):
    N, length = (int(v) for v in rng.integers((2, 5), (5, 10)))
    A_bar = 0.8 * rng.normal(size=(N, N)) / np.sqrt(N)
    B_bar, C, h = rng.normal(size=(3, N)) + 0.5
    kernel = _free_response(A_bar, C, B_bar, length, first=0)
    return rng.normal(size=length), kernel, A_bar, C, h


def _free_response(A_bar, C, h, length, first=1):
    """C A_bar^(first + t) h for t = 0 .. length - 1."""
    h = np.linalg.matrix_power(A_bar, first) @ h
    outputs = []
    for _ in range(length):
        outputs.append(C @ h)
        h = A_bar @ h
    return np.array(outputs)


def _from_state(x, kernel, A_bar, C, h, first=1):
    free = _free_response(A_bar, C, h, len(x), first)
    return _convolve(x, kernel) + free


def _state_at_once(x, kernel, A_bar, C, h):
    y = _convolve(x, kernel)
    y[0] += C @ A_bar @ h
    return y


def _power_of_entries(x, kernel, A_bar, C, h):
    powers = [A_bar ** (t + 1) for t in range(len(x))]
    return _convolve(x, kernel) + [C @ power @ h for power in powers]


check_from_state = Check(
    name="convolve_from_state",
    spec=_from_state,
    outputs=("y",),
    cases=_state_case,
    hint="set x to zero: what does y_0 = C h_0 become, and y_1? Then add the convolution, which "
    "is the answer with h set to zero.",
    mistakes=(
        Mistake(
            lambda *args: _from_state(*args, first=0),
            "off by one: the state h belongs to step -1. By step 0 it has been multiplied by "
            "A_bar once already, so its share of y_t is C A_bar^(t+1) h.",
        ),
        Mistake(
            lambda x, kernel, A, C, h: _convolve(x, kernel),
            "this is the convolution alone: it starts from a state of zero. What does h leave in "
            "y_t?",
        ),
        Mistake(
            _state_at_once,
            "the state is added to the first output only. It fades, but it goes on: every y_t has "
            "its share of it.",
        ),
        Mistake(
            lambda x, kernel, A, C, h: _from_state(
                x, kernel, A.T, C, h
            ),
            "A_bar is transposed: a step is A_bar @ h, with the matrix on the left.",
        ),
        Mistake(
            _power_of_entries,
            "A_bar**k raises each entry to a power. A full matrix is multiplied with itself: "
            "np.linalg.matrix_power, or one A_bar @ h a step.",
        ),
        Mistake(
            lambda x, kernel, A, C, h: _free_response(A, C, h, len(x)),
            "this is what the state leaves, and the answer to x is missing: the map is linear, so "
            "the two add up.",
        ),
        Mistake(
            lambda x, kernel, A, C, h: _convolve(x, kernel) + C @ A @ h,
            "the state's share stays the same at all steps here. Each step multiplies it by A_bar "
            "once more.",
        ),
    ),
)


check_two_in_a_row = Check(
    name="kernel_of_both",
    spec=_convolve,
    outputs=("kernel",),
    cases=_pair_case,
    hint="the kernel of both is their answer to one tap. What comes out of the first, and what "
    "does the second do to any input?",
    mistakes=(
        Mistake(
            lambda first, second: first * second,
            "entry by entry they multiply only as spectra, after a Fourier transform. In time, "
            "systems in a row make a convolution.",
        ),
        Mistake(
            lambda first, second: first + second,
            "a sum is for two systems side by side, which hear the same input and whose outputs "
            "are added. Here the second hears the first.",
        ),
        Mistake(
            np.convolve,
            "right, but longer than asked: all 2 L - 1 entries are here. Keep the first L.",
        ),
        Mistake(
            _circular,
            "this convolution runs on a circle: late entries come in again at the front. With "
            "zeros behind both kernels they do not.",
        ),
        Mistake(
            lambda first, second: np.convolve(first, second, "same"),
            'mode="same" keeps the middle: entry 0 would answer a tap that is still to come. A '
            "causal kernel keeps the first L entries.",
        ),
    ),
)
