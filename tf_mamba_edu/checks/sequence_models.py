"""Checks of chapter 01, sequence models and their memory."""

from __future__ import annotations

import tracemalloc

import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    NotYet,
    _raw_result,
)

WEIGHT, STATE = (
    1.3733,
    0.8,
)  # of one unit that rests: tanh(WEIGHT STATE) = STATE


def _steps_until(factor):
    """The power of a factor that is a thousandth, not rounded."""
    return np.log(1e-3) / np.log(factor)


class _TakesNever(Check):
    """A check of a number of steps that takes the word never for 0."""

    def _problem(self, answer):
        if isinstance(answer, str) and "never" in answer.lower():
            answer = 0
        return super()._problem(answer)


check_vanished = _TakesNever(
    name="vanished_after",
    spec=10,
    outputs=("vanished_after",),
    tolerance=1e-4,
    hint="by the chain rule a step multiplies the gradient by the slope of tanh where the unit "
    "rests, and by the weight. What is the slope, written with h = tanh(...) itself?",
    mistakes=(
        Mistake(
            9,
            "one step too early: 0.4944**9 is 0.0018. You rounded down; the first step below "
            "comes after the crossing.",
        ),
        Mistake(
            _steps_until(WEIGHT * (1 - STATE**2)),
            "this is where the curve crosses a thousandth, between two steps. Which is the first "
            "whole step behind it?",
        ),
        Mistake(
            7,
            "this is for the slope alone, 1 - h^2 = 0.36. On its way back a gradient meets the "
            "weight as well, once a step.",
        ),
        Mistake(
            6,
            "this is for a slope of 1 - h. The derivative of tanh is 1 - tanh^2.",
        ),
        Mistake(
            5,
            "this is for a slope of h (1 - h), which is that of the sigmoid. The derivative of "
            "tanh is 1 - tanh^2.",
        ),
        Mistake(
            22,
            "after 22 steps the power of the weight alone has passed a thousand, upwards. Where "
            "is the slope of tanh?",
        ),
        Mistake(
            0,
            "it does vanish. The weight is above 1, but a step multiplies by the slope of tanh as "
            "well, and where the unit rests the slope is far below 1.",
        ),
    ),
)


def _gru_case(rng):
    E, N = (int(v) for v in rng.integers((2, 2), (5, 5)))
    h, x = rng.normal(size=N), rng.normal(size=E)
    W, U = rng.normal(size=(E, 3 * N)), rng.normal(size=(N, 3 * N))
    return h, x, W, U, rng.normal(size=(2, 3 * N))


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _mixed_late(r, h, U, b):
    """The old state's share of the new content: reset after the product, as Keras does."""
    return r * (h @ U + b)


def _mixed_early(r, h, U, b):
    """Reset before the product, as in the paper."""
    return (r * h) @ U + b


def _gru(
    h,
    x,
    W,
    U,
    b,
    order=(0, 1, 2),
    swapped=False,
    mix=_mixed_late,
    bend=np.tanh,
):
    """The right step and, by its switches, its wrong variants."""
    N = len(h)
    Wz, Wr, Wn, Uz, Ur, Un = (
        matrix[:, i * N : (i + 1) * N]
        for matrix in (W, U)
        for i in order
    )
    (bz, br, bn), (cz, cr, cn) = (
        [row[i * N : (i + 1) * N] for i in order] for row in b
    )
    z = _sigmoid(x @ Wz + h @ Uz + bz + cz)
    r = _sigmoid(x @ Wr + h @ Ur + br + cr)
    new = bend(x @ Wn + bn + mix(r, h, Un, cn))
    return (1 - z) * h + z * new if swapped else z * h + (1 - z) * new


check_gru_step = Check(
    name="gru_step",
    spec=_gru,
    outputs=("h",),
    cases=_gru_case,
    hint="take the thirds of W, U and b apart first and give each a name. Then write the four "
    "lines of the formula, one by one.",
    mistakes=(
        Mistake(
            lambda *args: _gru(*args, swapped=True),
            "z and 1 - z have changed places: you replace where you should keep. Some texts "
            "write it that way; here, as in Keras, z is what is kept.",
        ),
        Mistake(
            lambda *args: _gru(*args, mix=_mixed_early),
            "you reset h before it is multiplied by U, as the paper does. Asked for is Keras' "
            "way: the reset gate multiplies the product h U + b.",
        ),
        Mistake(
            lambda *args: _gru(
                *args, mix=lambda r, h, U, b: r * (h @ U) + b
            ),
            "the second row of b stands outside of the reset gate. It belongs to the state's "
            "share: r * (h U + b).",
        ),
        Mistake(
            lambda *args: _gru(*args, mix=lambda r, h, U, b: h @ U + b),
            "the reset gate is missing: it decides how much of the old state goes into the new "
            "content.",
        ),
        Mistake(
            lambda *args: _gru(*args, order=(1, 0, 2)),
            "the two gates are swapped. The thirds of W, U and b come in the order z, r, new "
            "content.",
        ),
        Mistake(
            lambda *args: _gru(*args, bend=_sigmoid),
            "the new content is bent by a sigmoid, so it can only be positive. Gates are "
            "sigmoids; the content is a tanh.",
        ),
        Mistake(
            lambda h, x, W, U, b: _gru(
                h, x, W, U, np.stack([b[0], 0 * b[1]])
            ),
            "the second row of b is missing. There are two biases: one goes with x W, the other "
            "with h U.",
        ),
    ),
)


def _attention_case(rng):
    """The first query finds little in its only key: its score is -40."""
    L, d, width = (int(v) for v in rng.integers((4, 2, 2), (8, 6, 5)))
    q, k = rng.normal(size=(2, L, d))
    q[0] = -40 * d**0.5 * k[0] / (k[0] @ k[0])
    return q, k, rng.normal(size=(L, width))


def _softmax(scores, axis=-1):
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _attend(
    q, k, v, hidden=-1e30, axis=-1, power=0.5, first=0, flipped=False
):
    """The right attention and, by its switches, its wrong variants."""
    L, d = q.shape
    scores = q @ k.T / d**power
    seen = np.tri(L, k=first, dtype=bool)
    seen = seen.T if flipped else seen
    return (
        _softmax(np.where(seen, scores, hidden), axis) @ v
    )  # (L, width)


def _mask_on_weights(q, k, v):
    weights = _softmax(q @ k.T / q.shape[1] ** 0.5)
    return np.tril(weights) @ v


check_attend = Check(
    name="attend",
    spec=_attend,
    outputs=("y",),
    cases=_attention_case,
    hint="print the weights of a small case, (L, L). Row t is what query t gives to each place: "
    "what must its sum be, and which entries must be 0?",
    mistakes=(
        Mistake(
            lambda *args: _attend(*args, hidden=0.0, axis=0),
            "both bugs are still there. One is in what the future gets instead of its score, the "
            "other in which numbers add up to 1.",
        ),
        Mistake(
            lambda *args: _attend(*args, hidden=0.0),
            "the future is hidden behind a score of 0, and the softmax gives e^0 = 1 to that, as "
            "it does to every key at right angles to the query. A weight of 0 asks for a score of "
            "minus infinity.",
        ),
        Mistake(
            lambda *args: _attend(*args, axis=0),
            "the columns add up to 1: each key divides itself among the queries. It is the query "
            "that divides its attention among the keys, so the sum runs over the last axis.",
        ),
        Mistake(
            lambda *args: _attend(*args, hidden=-10.0),
            "the future is hidden behind a score of -10. That hides it only as long as the scores "
            "of the past are larger, and in these cases some are far smaller. Only minus infinity "
            "is below all of them.",
        ),
        Mistake(
            _mask_on_weights,
            "the mask comes after the softmax. The weights of the future are 0, but its keys are "
            "still in the denominator, and the rows no longer add up to 1. Hide the scores.",
        ),
        Mistake(
            lambda *args: _attend(*args, flipped=True),
            "the mask is upside down: each place sees itself and the future. Query t, a row, may "
            "see the keys s <= t.",
        ),
        Mistake(
            lambda *args: _attend(*args, first=-1),
            "each place is hidden from itself. It may see the keys s <= t, its own included; the "
            "first has nothing else to look at.",
        ),
        Mistake(
            lambda *args: _attend(*args, power=0.0),
            "the scores are not divided by the square root of d any more. That line was right.",
        ),
        Mistake(
            lambda *args: _attend(*args, power=1.0),
            "the scores are divided by d. It is their variance that grows with d; what brings it "
            "back to 1 is a division by the square root.",
        ),
    ),
)


def _bill_case(rng):
    heads = int(rng.integers(2, 9))
    length, size = (int(v) for v in rng.integers((50, 8), (4000, 65)))
    return length, heads * size, heads


def _bill(
    L,
    E,
    H,
    maps=4,
    tables=2,
    work_heads=False,
    score_heads=True,
    kept=2,
    kept_heads=False,
    seen=lambda L: L**2,
):
    """The right counts and, by their switches, wrong ones."""
    work = maps * L * E**2 + tables * seen(L) * E * (
        H if work_heads else 1
    )
    scores = seen(L) * (H if score_heads else 1)
    return work, scores, kept * L * E * (H if kept_heads else 1)


check_layer_bill = Check(
    name="layer_bill",
    spec=_bill,
    outputs=("multiplications", "scores", "cache"),
    cases=_bill_case,
    tolerance=1e-5,
    hint="one head has queries and keys of E / H numbers. Count for one head, multiply by H, and "
    "add the four maps (E, E) that every position passes.",
    mistakes=(
        Mistake(
            lambda *args: _bill(*args, maps=3),
            "three maps make queries, keys and values. The fourth, which mixes what the heads "
            "have found, is missing.",
        ),
        Mistake(
            lambda *args: _bill(*args, maps=0),
            "the maps are missing: queries, keys, values and output are products with matrices "
            "(E, E), one each for every position.",
        ),
        Mistake(
            lambda *args: _bill(*args, tables=1),
            "L times L dot products make the scores. The weighted sum of the values costs the "
            "same once more.",
        ),
        Mistake(
            lambda *args: _bill(*args, work_heads=True),
            "more heads do not mean more multiplications: each has E / H numbers only, and H "
            "times E / H is E.",
        ),
        Mistake(
            lambda *args: _bill(*args, score_heads=False),
            "each head has a table of scores of its own: heads cost no multiplications, but they "
            "do cost memory.",
        ),
        Mistake(
            lambda *args: _bill(*args, seen=lambda L: L * (L + 1) / 2),
            "you count the scores that a query may see. The others are computed too and thrown "
            "away afterwards: count the whole table, L times L.",
        ),
        Mistake(
            lambda *args: _bill(*args, seen=lambda L: L**2 / 2),
            "half of the table is missing. The future is hidden only after its scores have been "
            "computed: count all L times L.",
        ),
        Mistake(
            lambda *args: _bill(*args, kept=1),
            "the cache holds keys and values, E numbers each for every token.",
        ),
        Mistake(
            lambda *args: _bill(*args, kept_heads=True),
            "the heads share the E numbers of a key: H heads of E / H numbers. The cache does not "
            "know how many they are.",
        ),
    ),
)


def _memory_case(rng):
    """A state of a few numbers that listens to noise."""
    N, length, k = (
        int(v) for v in rng.integers((2, 60, 2), (5, 90, 5))
    )
    turn = np.linalg.qr(rng.normal(size=(N, N)))[0]
    write, x = rng.normal(size=N), rng.normal(size=length)
    states, h = [], np.zeros(N)
    for number in x:
        h = 0.8 * turn @ h + write * number
        states.append(h)
    return np.stack(states), x, k


def _share(states, target):
    weights = np.linalg.lstsq(states, target, rcond=None)[0]
    error = target - states @ weights
    return 1 - (error**2).sum() / (target**2).sum()


def _recalled(states, x, k):
    return _share(states[k:], x[: len(x) - k])


def _about_the_mean(states, x, k):
    states, target = states[k:], x[: len(x) - k]
    weights = np.linalg.lstsq(states, target, rcond=None)[0]
    return 1 - (target - states @ weights).var() / target.var()


def _with_intercept(states, x, k):
    return _recalled(
        np.column_stack([states, np.ones(len(states))]), x, k
    )


def _over(states, x, k, whole):
    """Scored against something else than the sum of squares of what is asked for."""
    target = x[: len(x) - k]
    missed = (1 - _recalled(states, x, k)) * (target**2).sum()
    return 1 - missed / whole(x, len(target))


def _newest(answer, cases) -> str | None:
    """What to say if a right answer fails at k = 0."""
    states, x, _ = cases[0]
    try:
        found = float(_raw_result(answer, (states, x, 0)))
    except (NotYet, TypeError, ValueError):
        found = np.nan
    if abs(found - _share(states, x)) <= 1e-5:
        return None
    return (
        "right for k > 0, but k = 0 fails: the state and what it has heard just now. x[:-k] is "
        "then x[:0], which is empty. x[: len(x) - k] is not."
    )


check_recalled = Check(
    name="recalled",
    spec=_recalled,
    outputs=("share",),
    cases=_memory_case,
    tolerance=1e-5,
    hint="which rows of states know x[0] for exactly k steps? The pairs are (states[k], x[0]), "
    "(states[k + 1], x[1]) and so on; then np.linalg.lstsq.",
    cost=_newest,
    mistakes=(
        Mistake(
            lambda states, x, k: _share(states[: len(x) - k], x[k:]),
            "you ask the state for what it will hear k steps later. What it heard k steps ago "
            "stands k places before it in x.",
        ),
        Mistake(
            lambda states, x, k: _share(states, x),
            "k is not used: this is how well the state knows what it has heard just now.",
        ),
        Mistake(
            lambda states, x, k: _share(states, np.roll(x, k)),
            "np.roll brings the end of x around to the front, and the first k states are asked "
            "for numbers that they have not heard yet. Leave these rows out.",
        ),
        Mistake(
            lambda states, x, k: _recalled(states, x, k - 1),
            "off by one: these states heard the number k - 1 steps ago.",
        ),
        Mistake(
            lambda states, x, k: _recalled(states, x, k + 1),
            "off by one: these states heard the number k + 1 steps ago.",
        ),
        Mistake(
            lambda states, x, k: 1 - _recalled(states, x, k),
            "this is the share that is missed. What is recalled is the rest.",
        ),
        Mistake(
            lambda states, x, k: np.sqrt(_recalled(states, x, k)),
            "this is the correlation, the root of what is asked for. Shares of variance add up "
            "over k; correlations do not.",
        ),
        Mistake(
            _about_the_mean,
            "you compare variances, which take the mean of each array off. The numbers have mean "
            "0 by themselves: compare sums of squares.",
        ),
        Mistake(
            _with_intercept,
            "your fit has a constant beside the states, one weight more than asked for: the "
            "numbers have mean 0, and h_t w is all there is.",
        ),
        Mistake(
            lambda states, x, k: _over(
                states, x, k, lambda x, n: (x**2).sum()
            ),
            "you divide by the sum over all of x. The last k numbers were not asked for: sum over "
            "the same t as in the error.",
        ),
        Mistake(
            lambda states, x, k: _over(
                states, x, k, lambda x, n: n * x.var()
            ),
            "you compare a mean error with the variance of all of x. Take the sum of squares of "
            "the numbers that were asked for, the same t as in the error.",
        ),
    ),
)


def _fading_case(rng):
    L, d = (int(v) for v in rng.integers((4, 2), (9, 5)))
    q, k, v = rng.normal(size=(3, L, d))
    return q, k, v, float(rng.uniform(0.5, 0.9))


def _fading(
    q,
    k,
    v,
    a,
    update=lambda a, h, new: a * h + new,
    early=False,
    read=lambda q, h: q @ h,
    pair=np.outer,
):
    """The right recurrence and, by its switches, its wrong variants."""
    h, outputs = np.zeros((q.shape[1], v.shape[1])), []
    for t in range(len(q)):
        before, h = h, update(a, h, pair(k[t], v[t]))
        outputs.append(read(q[t], before if early else h))
    return np.stack(outputs), h


def _all_at_the_end(q, k, v, a):
    _, h = _fading(q, k, v, a)
    return q @ h, h


def _size_of_table(answer, cases) -> str | None:
    """What to say if a right answer keeps a table (L, L)."""
    L = 600
    rng = np.random.default_rng(0)
    arguments = (*rng.normal(size=(3, L, 2)), 0.9)
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        _raw_result(answer, arguments)
        most = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()
    if most < 2 * L**2:
        return None
    return (
        f"the values are right, but for L = {L} your function takes {most / 1e6:.1f} MB: that is "
        "a table (L, L). Asked for is one pass that keeps d times d numbers."
    )


check_fading_attention = Check(
    name="fading_attention",
    spec=_fading,
    outputs=("y", "h"),
    cases=_fading_case,
    hint="write y_0 and y_1 out. In both, what stands behind q is a table (d, d) that does not "
    "know q. How does the second table come from the first?",
    cost=_size_of_table,
    mistakes=(
        Mistake(
            lambda *args: _fading(*args, early=True),
            "the output reads the state before the new pair is written into it. The sum runs to "
            "s = t, so write first, then read.",
        ),
        Mistake(
            lambda *args: _fading(
                *args, update=lambda a, h, new: h + new
            ),
            "nothing fades: a is missing. Each step multiplies what the state holds by a.",
        ),
        Mistake(
            lambda *args: _fading(
                *args, update=lambda a, h, new: a * (h + new)
            ),
            "the new pair fades in the step in which it is written. Its weight is a^0 = 1: decay "
            "first, then add.",
        ),
        Mistake(
            lambda *args: _fading(
                *args, update=lambda a, h, new: a * h + (1 - a) * new
            ),
            "this is a gate: a kept, 1 - a written. In the sum above, the newest pair has the "
            "weight 1.",
        ),
        Mistake(
            lambda *args: _fading(
                *args, pair=lambda k, v: np.outer(v, k)
            ),
            "the state is transposed: you wrote v k^T. The query has to meet the keys, so k "
            "stands in the rows: k v^T, read by q @ h.",
        ),
        Mistake(
            lambda *args: _fading(
                *args,
                pair=lambda k, v: np.outer(v, k),
                read=lambda q, h: h @ q,
            ),
            "y is right, and h is the transpose of what was asked for: you wrote v k^T and read "
            "h @ q. Let k stand in the rows, so that q @ h gives y.",
        ),
        Mistake(
            lambda *args: _fading(*args, read=lambda q, h: h @ q),
            "the state is right, and read along the wrong axis: h @ q lets the query meet the "
            "values. q @ h lets it meet the keys.",
        ),
        Mistake(
            _all_at_the_end,
            "every query reads the last state, and so sees the future. y_t reads the state of "
            "step t.",
        ),
        Mistake(
            lambda q, k, v, a: _fading(q / q.shape[1] ** 0.5, k, v, a),
            "you divide by the square root of d. There is no softmax here that would need it, and "
            "the sum above has none.",
        ),
    ),
)
