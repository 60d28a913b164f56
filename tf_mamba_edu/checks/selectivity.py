"""Checks of chapter 06, selectivity."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, SeesInfinity


def _step_case(rng):
    """As many channels as states: a wrong axis then goes unnoticed by NumPy."""
    D = N = int(rng.integers(2, 6))
    h, (x, B, C) = rng.normal(size=(D, N)), rng.normal(size=(3, N))
    delta = rng.uniform(0.3, 1.2, D)
    return h, x, delta, -rng.uniform(0.5, 2.0, (D, N)), B, C


def _step_by_step(h, x, delta, A, B, C):
    """Number by number."""
    h, y = h.copy(), np.zeros(len(x))
    for d in range(len(x)):
        for n in range(len(B)):
            keep = np.exp(delta[d] * A[d, n])
            h[d, n] = keep * h[d, n] + delta[d] * B[n] * x[d]
            y[d] += C[n] * h[d, n]
    return h, y


def _down(delta, A):
    return np.exp(delta[:, None] * A)  # (D, N)


def _write(x, delta, A, B):
    return np.outer(delta * x, B)  # (D, N)


def _step(
    h,
    x,
    delta,
    A,
    B,
    C,
    keep=_down,
    write=_write,
    read=lambda before, h, C: h @ C,
):
    """The right step and, by its three parts, wrong ones."""
    after = keep(delta, A) * h + write(x, delta, A, B)  # (D, N)
    return after, read(h, after, C)


def _along_the_row(delta, A):
    return np.exp(delta * A)


def _row_of_inputs(x, delta, A, B):
    return delta * x * B


check_selective_step = Check(
    name="selective_step",
    spec=_step_by_step,
    outputs=("h", "y"),
    cases=_step_case,
    hint="take one channel d and one state n and write its number down: what is kept of h[d, n], "
    "what is added, with which delta and which x?",
    mistakes=(
        Mistake(
            lambda *args: _step(
                *args, keep=_along_the_row, write=_row_of_inputs
            ),
            "delta and x (D,) lie along the wrong axis. NumPy sets a vector beside the last axis "
            "of an array, and that is N here; the check takes D = N, so nothing complains. A "
            "channel is a row: delta[:, None] is (D, 1).",
        ),
        Mistake(
            lambda *args: _step(*args, keep=_along_the_row),
            "the input is written as it should be, but in delta * A the step sizes lie along the "
            "states: column n fades with the step of channel n. Each channel is a row of A, so "
            "delta has to be a column, delta[:, None].",
        ),
        Mistake(
            lambda *args: _step(*args, write=_row_of_inputs),
            "the decay is right, but delta * x * B lies along the states: it multiplies x of "
            "channel n with B of state n. What is added is (D, N): each channel's delta x, times "
            "each B.",
        ),
        Mistake(
            lambda *args: _step(*args, keep=lambda d, A: np.exp(A)),
            "the decay has no step size: exp(A) is what is left after a time of 1, whatever the "
            "input wants. It is Delta that makes A selective.",
        ),
        Mistake(
            lambda *args: _step(
                *args, keep=lambda d, A: 1 + d[:, None] * A
            ),
            "this decay is Euler's, 1 + Delta A. Mamba keeps the exact one, exp(Delta A).",
        ),
        Mistake(
            lambda *args: _step(
                *args, write=lambda x, d, A, B: np.outer(x, B)
            ),
            "Delta is missing where the input is written: a step of size 0 would let it in all "
            "the same. It adds Delta B x.",
        ),
        Mistake(
            lambda *args: _step(
                *args,
                write=lambda x, d, A, B: (
                    np.expm1(d[:, None] * A) / A * np.outer(x, B)
                ),
            ),
            "this writes with the B_bar of the zero-order hold. It is no worse, but asked for is "
            "Mamba's rule: Delta B.",
        ),
        Mistake(
            lambda *args: _step(
                *args, write=lambda x, d, A, B: (d @ x) * B
            ),
            "you add delta x up over the channels, so that each channel hears all the others. A "
            "selective SSM does not mix channels: channel d takes in its own x.",
        ),
        Mistake(
            lambda *args: _step(
                *args, read=lambda before, h, C: before @ C
            ),
            "the output reads the state before the step. y_t = C_t h_t knows x_t already.",
        ),
        Mistake(
            lambda *args: _step(*args, read=lambda before, h, C: C @ h),
            "C @ h adds up the channels. The output has one number a channel, a sum over its "
            "states: the last axis of h.",
        ),
    ),
)


def _bias_for(keep):
    """The inverse softplus of -ln(keep)."""
    return np.log(1 / keep - 1)


check_needed_bias = Check(
    name="needed_bias",
    spec=_bias_for(0.75),
    outputs=("needed_bias",),
    tolerance=4e-3,
    hint="go backwards: from what is kept, exp(-Delta), to Delta, and from Delta, softplus(b), to "
    "b. Then run it forwards.",
    mistakes=(
        Mistake(
            -np.log(0.75),
            "this is Delta, and right. Delta is the softplus of the bias: which b has this "
            "softplus?",
        ),
        Mistake(
            np.log(-np.log(0.75)),
            "this is ln(Delta), as if Delta were e^b. It is softplus(b) = ln(1 + e^b), which is "
            "nearly e^b for a very negative b only.",
        ),
        Mistake(
            -_bias_for(0.75),
            "right size, wrong sign: this bias keeps one quarter and writes over three.",
        ),
        Mistake(
            np.log(np.expm1(0.25)),
            "this is for Delta = 0.25, from 1 - Delta = 0.75. That is Euler's rule; what is kept "
            "is exp(-Delta).",
        ),
        Mistake(
            0.25,
            "this is what is lost in a step, the sigmoid of the bias. Which b has this sigmoid?",
        ),
        Mistake(
            np.log10(1 / 3),
            "this is a logarithm to base 10. Softplus and the decay are made with e: np.log.",
        ),
        Mistake(
            np.log(np.expm1(-np.log10(0.75))),
            "somewhere in your Delta is a logarithm to base 10. exp(-Delta) = 0.75 asks for the "
            "natural one, np.log.",
        ),
        Mistake(
            np.log1p(1 / 0.75),
            "you applied softplus once more, to Delta = 0.288. It has to be undone.",
        ),
        Mistake(
            np.log(0.75),
            "this is the exponent, Delta A. Delta is its opposite, and the bias comes before the "
            "softplus.",
        ),
    ),
)


def _delta_case(rng):
    """From where float32 has 1 for e^Delta to where it has infinity."""
    middle = np.exp(
        rng.uniform(np.log(1e-4), np.log(20), rng.integers(3, 7))
    )
    ends = rng.uniform(1e-9, 2e-8), rng.uniform(800, 1000)
    return (rng.permutation([*middle, *ends]).astype(np.float32),)


def _bias_by_halving(delta):
    """Looks for the bias between two bounds."""
    low, high = np.full(len(delta), -50.0), np.full(len(delta), 2e3)
    for _ in range(80):
        middle = (low + high) / 2
        too_small = np.logaddexp(0, middle) < delta
        low = np.where(too_small, middle, low)
        high = np.where(too_small, high, middle)
    return low


def _silently(function):
    """The function without NumPy's warnings."""

    def silent(*arguments):
        with np.errstate(all="ignore"):
            return function(*arguments)

    return silent


check_delta_to_bias = SeesInfinity(
    name="delta_to_bias",
    spec=_bias_by_halving,
    outputs=("bias",),
    cases=_delta_case,
    tolerance=1e-6,
    hint="try both ends by themselves, np.float32(1e-9) and np.float32(1e3), and look at each "
    "intermediate result: which of them has lost all its digits, or become infinite?",
    mistakes=(
        Mistake(
            _silently(lambda d: np.log(np.exp(d) - 1)),
            "right on paper, and broken at both ends in float32. For a small Delta e^Delta is "
            "rounded to 1, and ln(1 - 1) is minus infinity; for a large one e^Delta is infinite. "
            "Look for another way to write ln(e^Delta - 1).",
        ),
        Mistake(
            _silently(lambda d: np.log(np.expm1(d))),
            "the small end is right now, and the large one is still infinite: e^Delta overflows, "
            "although its logarithm is nearly Delta. Take e^Delta out of the bracket before you "
            "take the logarithm.",
        ),
        Mistake(
            _silently(lambda d: d + np.log(1 - np.exp(-d))),
            "the large end is right now, and the small one is still minus infinity: e^-Delta is "
            "rounded to 1 before you subtract it. NumPy has a function for e^v - 1 that keeps its "
            "digits.",
        ),
        Mistake(
            _silently(np.log),
            "ln(Delta) undoes e^b. Softplus is ln(1 + e^b), which is nearly e^b while Delta is "
            "small, and something else later.",
        ),
        Mistake(
            _silently(lambda d: np.logaddexp(0, d)),
            "this is softplus itself. It leads from a bias to a Delta; solve ln(1 + e^b) = Delta "
            "for b.",
        ),
        Mistake(
            _silently(lambda d: np.log1p(np.exp(d))),
            "this is softplus itself, ln(1 + e^Delta), with an overflow besides. It leads from a "
            "bias to a Delta; solve ln(1 + e^b) = Delta for b.",
        ),
        Mistake(
            _silently(lambda d: d - np.log(-np.expm1(-d))),
            "the second term has the wrong sign. e^Delta - 1 is the product e^Delta (1 - "
            "e^-Delta), so the logarithms add up.",
        ),
        Mistake(
            _silently(lambda d: np.log(-np.expm1(-d))),
            "Delta itself is missing: out of the bracket comes e^Delta, and its logarithm has to "
            "be added.",
        ),
    ),
)


def _masked_case(rng):
    D, N, L = (int(v) for v in rng.integers((2, 2, 7), (4, 5, 11)))
    x, pre = rng.normal(size=(2, L, D)) + 0.5
    bias, A = (
        rng.uniform(-2.0, -1.0, D),
        -rng.uniform(0.5, 1.5, (D, N)),
    )
    mask = rng.random(L) < 0.6
    mask[:4] = True, False, True, False  # whatever chance brings
    return x, pre, bias, A, rng.normal(size=(L, N)) + 0.5, mask


def _softplus(v):
    return np.logaddexp(0, v)


def _without_hidden(x, pre, bias, A, B, mask):
    """Leaves out what is hidden; as it would be if nobody had padded."""
    h = np.zeros(A.shape)
    for t in np.flatnonzero(mask):
        delta = _softplus(pre[t] + bias)  # (D,)
        h = _step(h, x[t], delta, A, B[t], np.zeros(len(B[t])))[0]
    return h


def _masked(x, pre, bias, A, B, mask, steps, zeroed=False):
    """The scan and, by how its steps are made, wrong ones."""
    mask = mask[:, None]  # (L, 1)
    delta = steps(pre, bias, mask)  # (L, D)
    x, h = x * mask if zeroed else x, np.zeros(A.shape)
    for x_t, delta_t, B_t in zip(x, delta, B, strict=True):
        h = _down(delta_t, A) * h + _write(x_t, delta_t, A, B_t)
    return h


check_state_after = Check(
    name="state_after",
    spec=_without_hidden,
    outputs=("h",),
    cases=_masked_case,
    hint="print delta for a sequence with a hidden position. Is it positive where something is to "
    "be seen, and exactly 0 where nothing is?",
    mistakes=(
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p) + b, zeroed=True
            ),
            "both bugs are still there. One makes the state grow even if nothing is hidden, the "
            "other lets it fade where something is.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p + b), zeroed=True
            ),
            "one bug is gone: all steps are positive now. But a hidden position still takes a "
            "step: nothing comes in, and the state fades. Which step leaves a state as it is?",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: (_softplus(p) + b) * m
            ),
            "one bug is gone: hidden positions leave the state alone. But where something is to "
            "be seen a step can still be negative, and then the state grows: what does softplus "
            "have to be applied to?",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p * m + b), zeroed=True
            ),
            "at hidden positions you set to 0 what the input adds. The bias is still there, and "
            "softplus makes a step of it: softplus(b). It is Delta itself that has to be 0.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p * m + b)
            ),
            "at hidden positions you set to 0 what the input adds to Delta. A step of softplus(b) "
            "is left, and with it x is taken in there. It is Delta itself that has to be 0.",
        ),
        Mistake(
            lambda *args: _masked(
                *args,
                lambda p, b, m: _softplus((p + b) * m),
                zeroed=True,
            ),
            "at hidden positions you set to 0 what goes into softplus. But softplus(0) is "
            "ln 2 = 0.69, a large step. It is Delta itself that has to be 0.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p + b) * ~m
            ),
            "the mask is turned around: it is True where something is to be seen, and you stop "
            "the clock there.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p + b)
            ),
            "the steps are right where something is to be seen, but the mask has no effect any "
            "more: what is hidden is taken in like all the rest.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: (_softplus(p) + _softplus(b)) * m
            ),
            "hidden positions are right. But softplus is applied twice, to the input's share and "
            "to the bias: it is applied once, to their sum.",
        ),
        Mistake(
            lambda *args: _masked(
                *args, lambda p, b, m: _softplus(p) * m
            ),
            "hidden positions are right. But the bias has gone, and with it the pace: add it "
            "before softplus is applied.",
        ),
    ),
)


def _tokens_case(rng):
    """Some of everything: a gap, a pair, a reset, and a second count."""
    before, after = (
        rng.choice(3, rng.integers(3, 12), p=(0.4, 0.45, 0.15))
        for _ in range(2)
    )
    fixed = 1, 0, 1, 1, 2, 0, 1, 1, 0, 1
    return (np.concatenate([before, fixed, after]),)


def _count(tokens):
    y, n = [], 0
    for token in tokens:
        n = 0 if token == 2 else n + (token == 1)
        y.append(n)
    return np.array(y, np.float64)


def _designed(tokens, keep, write):
    """The channel's output if each kind of token keeps and adds so much."""
    h, y = 0.0, []
    for token in tokens:
        h = keep[token] * h + write[token]
        y.append(h)
    return np.array(y)


check_ones_since_reset = Check(
    name="ones_since_reset",
    spec=_count,
    outputs=("y",),
    cases=_tokens_case,
    tolerance=1e-2,
    hint="for each kind of token ask two questions: which part of the state is kept, exp(-Delta), "
    "and what is added, Delta B?",
    mistakes=(
        Mistake(
            lambda tokens: _designed(tokens, (1, 1, 0), (0, 0, 0)),
            "the output is always 0: with Delta = 0 a step adds Delta B = 0, however large B is. "
            "Delta may be as small as you like, but not 0, where something is to be written.",
        ),
        Mistake(
            lambda tokens: _designed(
                tokens, (1, np.exp(-1), 0), (0, 1, 0)
            ),
            "with Delta = 1 a one adds 1, but it also keeps only exp(-1) = 37 percent of the "
            "count so far. Make Delta smaller, and see to it that Delta B stays 1.",
        ),
        Mistake(
            lambda tokens: _designed(tokens, (1, 0, 0), (0, 1, 0)),
            "each one takes the place of the count: a large Delta replaces the state. That "
            "holds a value; to add to it, the state has to be kept as well.",
        ),
        Mistake(
            lambda tokens: _designed(tokens, (1, 1, 1), (0, 1, 0)),
            "the ones are counted, but a reset does not clear the count. Which Delta forgets "
            "everything?",
        ),
        Mistake(
            lambda tokens: _designed(tokens, (1, 1, 0), (0, 1, 1)),
            "the reset counts itself: it clears the state and writes a 1. Here only Delta is "
            "large; what is B?",
        ),
        Mistake(
            lambda tokens: _designed(tokens, (1, 1, 0), (1, 1, 0)),
            "this counts all tokens since the reset, the zeros too. A zero adds nothing.",
        ),
        Mistake(
            lambda tokens: _designed(tokens, (0, 1, 0), (0, 1, 0)),
            "this counts the ones in a row: each zero clears the count. A zero keeps it.",
        ),
    ),
)


def _gates_case(rng):
    L = int(rng.integers(4, 9))
    a = rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.5, 4.0)])
    return rng.uniform(0.2, 0.9, L), rng.normal(size=L) + 1, float(a)


def _any_gates(f, i, a, to_z=lambda d: np.log(np.expm1(d)), to_B=None):
    """The right z and B and, by their steps, wrong ones."""
    delta = -np.log(f) / a
    return to_z(delta), i / delta if to_B is None else to_B(delta)


def _gates_by_halving(f, i, a):
    """Looks for z, then sees what a B of 1 would write."""
    z = _bias_by_halving(-np.log(f) / a)
    return z, i / _softplus(z)


check_any_gates = Check(
    name="any_gates",
    spec=_gates_by_halving,
    outputs=("z", "B"),
    cases=_gates_case,
    hint="put your z and B into one step: exp(-a softplus(z)) must be f, and softplus(z) B must "
    "be i.",
    mistakes=(
        Mistake(
            lambda f, i, a: _any_gates(f, i, 1.0),
            "this is right for a = 1 only, the gate of the chapter. With A = -a what is kept is "
            "exp(-a Delta).",
        ),
        Mistake(
            lambda f, i, a: _any_gates(f, i, 1 / a),
            "you multiplied by a where you should divide: a fast state, with a large a, needs a "
            "smaller step to keep as much.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(f, i, a, to_B=lambda d: i),
            "z is right. But the input is written with Delta B, not with B: Delta has to be "
            "divided away.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(
                f, i, a, to_B=lambda d: i * a / (1 - f)
            ),
            "z is right, and this B is right for the zero-order hold, which writes (1 - f) B / a. "
            "The scan writes Delta B.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(f, i, a, to_B=lambda d: i * d),
            "z is right. But B is multiplied by Delta here: Delta B = i asks for a division.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(
                f, i, a, to_B=lambda d: i / (a * d)
            ),
            "z is right. But in B you divide by a Delta = -ln f. Only the decay knows A; what is "
            "written is Delta B.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(
                f, i, a, to_z=lambda d: -np.log(np.expm1(d))
            ),
            "B is right. z has the wrong sign: a large z opens the gate to the input, and f is "
            "what is kept, 1 - sigmoid(z) for a = 1.",
        ),
        Mistake(
            lambda f, i, a: _any_gates(f, i, a, to_z=lambda d: d),
            "B is right. Your z is Delta itself, and it still has to go through softplus: which "
            "z has this softplus?",
        ),
        Mistake(
            lambda f, i, a: _any_gates(f, i, a, to_z=np.log),
            "B is right. Your z is ln(Delta), as if Delta were e^z; it is ln(1 + e^z).",
        ),
    ),
)
