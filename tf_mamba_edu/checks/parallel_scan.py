"""Checks of chapter 07, the parallel scan."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import Check, Mistake, turn_of


def _maximum_case(rng):
    """Lengths 8, 1 and others, the largest value in the middle."""
    L = ([8, 1] + [int(rng.choice([5, 6, 7, 11, 13, 21]))] * 3)[
        turn_of(rng) % 5
    ]
    x = rng.uniform(0.0, 1.0, L)
    x[0], x[L // 2], x[-1] = 1.5, 3.0, 2.0
    return (x,)


def _maxima(x):
    """The largest so far, one place after the other, and the rounds of doubling."""
    found = [max(x[: t + 1]) for t in range(len(x))]
    rounds, reach = 0, 1
    while reach < len(x):
        rounds, reach = rounds + 1, 2 * reach
    return np.array(found), rounds


def _doubling(
    x, grow=lambda reach: 2 * reach, join=np.maximum, rolled=False
):
    """Doubling and, by its parts, wrong variants."""
    x, reach, rounds = x.copy(), 1, 0
    while reach < len(x):
        if rolled:
            x = join(x, np.roll(x, reach))
        else:
            x[reach:] = join(x[reach:], x[:-reach])
        reach, rounds = grow(reach), rounds + 1
    return x, rounds


def _looking_ahead(x):
    largest, rounds = _maxima(x[::-1])
    return largest[::-1], rounds


def _one_round_less(x):
    y, reach, rounds = x.copy(), 1, 0
    while 2 * reach < len(x):
        y[reach:] = np.maximum(y[reach:], y[:-reach])
        reach, rounds = 2 * reach, rounds + 1
    return y, rounds


check_running_maximum = Check(
    name="running_maximum",
    spec=_maxima,
    outputs=("largest", "rounds"),
    cases=_maximum_case,
    hint="write down by hand what each of five places knows after one round, after two and after "
    "three. How far to the left does each look in each round?",
    mistakes=(
        Mistake(
            lambda x: _doubling(x, rolled=True),
            "every place knows the largest of *all*, and place t should know x[0] to x[t] only. If "
            "you used np.roll: what falls out on the right comes in again on the left. The first "
            "places have nobody to their left, and stay as they are.",
        ),
        Mistake(
            _looking_ahead,
            "this is the largest from here to the end. A place joins what stands to its left: "
            "x[:-reach] comes to x[reach:].",
        ),
        Mistake(
            lambda x: _doubling(x, grow=lambda reach: reach + 1),
            "the maxima are right, after L - 1 rounds: as many as the loop has. After a round a "
            "place has joined twice as much as before, so the reach can double, too, and need "
            "not grow by 1.",
        ),
        Mistake(
            _one_round_less,
            "the last round is missing, so the late places have not heard of the first ones. The "
            "reach goes on doubling as long as it is below L, not below L / 2.",
        ),
        Mistake(
            lambda x: (_maxima(x)[0], _maxima(x)[1] + 1),
            "the maxima are right, and one round more was counted than is needed: log2 L, rounded "
            "up.",
        ),
        Mistake(
            lambda x: (_maxima(x)[0], int(len(x)).bit_length()),
            "the maxima are right, and so are most counts. But for L = 1, 2, 4, 8 ... one round "
            "more is made than is needed: go on while the reach is below L, not while it is at "
            "most L.",
        ),
        Mistake(
            lambda x: _doubling(x, join=np.minimum),
            "these are the smallest so far. The operator is the maximum.",
        ),
        Mistake(
            lambda x: _doubling(x, join=np.add),
            "this is a running sum, by doubling. The scan is right, the operator is not: join by "
            "the maximum.",
        ),
    ),
)


check_best_number = Check(
    name="best_number",
    spec=200,
    outputs=("best_number",),
    tolerance=1e-4,
    hint="write the time as a function of p: twice a page, and once through all pages. One term "
    "falls with p, the other grows.",
    mistakes=(
        Mistake(
            np.sqrt(20_000),
            "this balances *one* pass over a page with the chain of pages. Each clerk works "
            "through his page twice: once to condense it, once to fill it in.",
        ),
        Mistake(
            141,
            "this balances *one* pass over a page with the chain of pages. Each clerk works "
            "through his page twice: first to condense it, then to fill it in.",
        ),
        Mistake(
            400,
            "this is the time that the best number takes, 2 L / p + p = 400. Which p is it?",
        ),
        Mistake(
            100,
            "this is how many lines a page has then. How many pages are there?",
        ),
        Mistake(
            20_000,
            "with a clerk for every line, each page is a single line, and one clerk still has to "
            "run through all 20,000 of them.",
        ),
        Mistake(
            15,
            "this is log2 L, the number of rounds if the condensed lines were scanned by doubling "
            "too. Here one clerk runs through them, line by line.",
        ),
    ),
)


def _recurrence_case(rng):
    L = int(rng.integers(5, 12))
    a = rng.uniform(0.3, 0.9, L) * rng.choice([-1, 1], L)
    return a, rng.normal(size=L) + 1, float(rng.uniform(2.0, 4.0))


def _states(a, b, initial_state):
    h, found = initial_state, []
    for t in range(len(a)):
        h = a[t] * h + b[t]
        found.append(h)
    return np.array(found)


def _right_amount(a, b, a_later, b_later):
    return a_later * b + b_later


def _swapped_amount(a, b, a_later, b_later):
    return a * b_later + b


def _in_place_amount(a, b, a_later, b_later):
    return a_later * a * b + b_later


def _scanned(
    a, b, initial_state, start="taken in", amount=_right_amount
):
    """The scan of the sheet, repaired and, by its two parts, wrong."""
    a, b = a.copy(), b.copy()
    if start == "taken in":
        b[0] += a[0] * initial_state
    elif start == "added":
        b[0] += initial_state
    reach = 1
    while reach < len(a):
        earlier, later = (
            (a[:-reach], b[:-reach]),
            (a[reach:], b[reach:]),
        )
        joined = later[0] * earlier[0], amount(*earlier, *later)
        a = np.concatenate([a[:reach], joined[0]])
        b = np.concatenate([b[:reach], joined[1]])
        reach *= 2
    return b + initial_state if start == "to all" else b


check_scanned = Check(
    name="scanned",
    spec=_states,
    outputs=("h",),
    cases=_recurrence_case,
    hint="take two steps and an initial state of your choice, and follow the states by hand: "
    "first through the recurrence, then through the function.",
    mistakes=(
        Mistake(
            lambda *args: _scanned(
                *args, start="added", amount=_swapped_amount
            ),
            "both bugs are still there. One is in what is joined with what, the other in how the "
            "account is opened.",
        ),
        Mistake(
            lambda *args: _scanned(*args, amount=_swapped_amount),
            "the initial state is right now. But the operands are still swapped: the *earlier* "
            "amount has to go through the *later* step, a' b + b'.",
        ),
        Mistake(
            lambda *args: _scanned(*args, start="added"),
            "steps are joined rightly now. But the initial state is the balance *before* the "
            "first line: that line multiplies it by a[0], like any other balance.",
        ),
        Mistake(
            lambda *args: _scanned(*args, start="forgotten"),
            "this starts from zero: the initial state has no effect at all.",
        ),
        Mistake(
            lambda *args: _scanned(*args, start="to all"),
            "the initial state is added to every state, as if nothing were ever forgotten. Its "
            "share fades with the product of all multipliers up to there.",
        ),
        Mistake(
            lambda *args: _scanned(*args, amount=_in_place_amount),
            "the amount is computed with an a that has been multiplied already. It needs the a "
            "of its own step: compute the amount first, or keep the old a.",
        ),
        Mistake(
            lambda a, b, h: np.concatenate(
                [[h], _states(a, b, h)[:-1]]
            ),
            "the states are right and one place late: h[t] is the state *after* step t, so the "
            "initial state is not among them.",
        ),
    ),
)


def _gate_case(rng):
    L = int(rng.integers(4, 9))
    g = rng.uniform(0.2, 0.8, L)
    return g, rng.normal(size=L) + 1, rng.normal(size=L) + 0.5


def _gated(g, x, start=0.0):
    h, found = start, []
    for t in range(len(g)):
        h = (1 - g[t]) * h + g[t] * x[t]
        found.append(h)
    return np.array(found)


def _by_differences(g, x, w):
    """The loss is a sum of states, each linear in any one gate and in any one input."""

    def slope(run, t):
        step = 0.1 * np.eye(len(g))[t]
        return w @ (run(step) - run(-step)) / 0.2

    return (
        np.array(
            [
                slope(lambda s: _gated(g + s, x), t)
                for t in range(len(g))
            ]
        ),
        np.array(
            [
                slope(lambda s: _gated(g, x + s), t)
                for t in range(len(g))
            ]
        ),
    )


def _gate_gradients(
    g,
    x,
    w,
    keep=lambda g: np.append(1 - g[1:], 0),
    state="before",
    local=lambda g, x, h: x - h,
    written=lambda g: g,
):
    """The reversed scan and, by its parts, wrong variants."""
    h, kept, q, found = _gated(g, x), keep(g), 0.0, []
    for t in reversed(range(len(g))):
        q = w[t] + kept[t] * q
        found.append(q)
    q = np.array(found[::-1])
    before = np.append(0.0, h[:-1]) if state == "before" else h
    return q * local(g, x, before), q * written(g)


def _run_forward(g, x, w):
    q, found = 0.0, []
    for t in range(len(g)):
        q = w[t] + (1 - g[t]) * q
        found.append(q)
    q, before = np.array(found), np.append(0.0, _gated(g, x)[:-1])
    return q * (x - before), q * g


check_gate_gradients = Check(
    name="gate_gradients",
    spec=_by_differences,
    outputs=("dg", "dx"),
    cases=_gate_case,
    tolerance=1e-6,
    hint="first the gradient q_t of the loss in h_t, from the end: what does h_t do to the loss "
    "at once, and what through h_{t+1}? Then the two derivatives of a single step.",
    mistakes=(
        Mistake(
            lambda *args: _gate_gradients(*args, keep=lambda g: 1 - g),
            "the scan uses the gate of the same step. The state h_t gets into h_{t+1} with the "
            "factor 1 - g[t + 1]: the multipliers have to be moved by one place.",
        ),
        Mistake(
            lambda *args: _gate_gradients(
                *args, keep=lambda g: np.append(g[1:], 0)
            ),
            "what is passed on is g[t + 1] here. That is what is written of the input; of the "
            "state, 1 - g[t + 1] is kept.",
        ),
        Mistake(
            lambda *args: _gate_gradients(*args, keep=lambda g: 0 * g),
            "each step looks at its own weight w[t] only. But h_t is also in all the later "
            "states, and the loss sees it there as well.",
        ),
        Mistake(
            _run_forward,
            "this scan runs from the front: a gradient at t would collect what happened *before* "
            "t. It collects what comes after: start at the last step.",
        ),
        Mistake(
            lambda *args: _gate_gradients(*args, state="after"),
            "dx is right. In dg you subtract h_t, the state after the step. The gate mixes x_t "
            "with the state before it, h_{t-1}.",
        ),
        Mistake(
            lambda *args: _gate_gradients(
                *args, local=lambda g, x, h: x
            ),
            "dx is right. But the gate does two things: it lets x_t in, and it pushes h_{t-1} "
            "out. In dg the second is missing.",
        ),
        Mistake(
            lambda *args: _gate_gradients(
                *args, local=lambda g, x, h: h - x
            ),
            "dx is right, and dg has the wrong sign: a larger gate means more of x_t and less of "
            "h_{t-1}.",
        ),
        Mistake(
            lambda *args: _gate_gradients(
                *args, written=lambda g: np.ones(len(g))
            ),
            "dg is right. But x_t is written with the factor g_t, so dx has it too.",
        ),
        Mistake(
            lambda *args: _gate_gradients(
                *args, written=lambda g: 1 - g
            ),
            "dg is right. In dx you have what is kept of the state, 1 - g; the input is written "
            "with g.",
        ),
        Mistake(
            lambda *args: _by_differences(*args)[::-1],
            "both are right, and change places: return (dg, dx), the gates first.",
        ),
    ),
)


def _break_case(rng):
    step = float(np.exp(rng.uniform(np.log(0.05), np.log(0.6))))
    return step, float(10.0 ** -rng.integers(6, 13))


def _both_ways(step, epsilon, length=2000):
    """Right states, and those by two cumulative sums, for an input that is always 1."""
    t = np.arange(1, length + 1)
    product = np.exp(-step * t)
    wrong = product * np.cumsum(1 / (product + epsilon))
    right = (1 - product) / (1 - np.exp(-step))
    return wrong, right


def _first(bad):
    return int(np.argmax(bad)) + 1


def _break(step, epsilon):
    right, h, total = [], 0.0, 0.0
    wrong, product = [], 1.0
    while not right or abs(wrong[-1] - right[-1]) <= 0.01 * right[-1]:
        h = np.exp(-step) * h + 1
        product *= np.exp(-step)
        total += 1 / (product + epsilon)
        right.append(h)
        wrong.append(product * total)
    return len(right)


def _off_by(step, epsilon, share=0.01):
    wrong, right = _both_ways(step, epsilon)
    return _first(np.abs(wrong - right) > share * right)


check_first_wrong_length = Check(
    name="first_wrong_length",
    spec=_break,
    outputs=("length",),
    cases=_break_case,
    tolerance=1e-4,
    hint="print both states side by side, with the step at which they are 1 % apart, for step = "
    "0.5 and epsilon = 1e-6. A sequence of length 1 has one step.",
    mistakes=(
        Mistake(
            lambda step, epsilon: _off_by(step, epsilon) - 1,
            "one too small: this is the index of the first wrong state, counted from 0, or the "
            "last length that is still right.",
        ),
        Mistake(
            lambda step, epsilon: int(
                np.ceil(np.log(1 / epsilon) / step)
            ),
            "this is where the product falls below epsilon. By then about a third of the state "
            "is gone already; the first percent goes earlier.",
        ),
        Mistake(
            lambda step, epsilon: np.log(1 / epsilon) / step,
            "this is where the product equals epsilon, between two steps. By then about a third "
            "of the state is gone already; the first percent goes earlier.",
        ),
        Mistake(
            lambda step, epsilon: _first(
                np.abs(np.subtract(*_both_ways(step, epsilon))) > 0.01
            ),
            "you compare the difference itself with 0.01. One percent *of the right state* is "
            "asked for, and that state is larger than 1.",
        ),
        Mistake(
            lambda step, epsilon: _off_by(step, epsilon, share=0.1),
            "this is where the state is off by ten percent. One percent comes earlier.",
        ),
        Mistake(
            lambda step, epsilon: _off_by(step, epsilon, share=0.5),
            "this is where half of the state is gone. One percent is asked for.",
        ),
        Mistake(
            lambda step, epsilon: _off_by(step, epsilon) + 1,
            "one too large. Either the index was already a length, or your product starts at 1: "
            "P_t includes the multiplier of step t itself, so the first is exp(-step).",
        ),
    ),
)


def _battery_case(rng):
    """Three pairs of limits: apart, overlapping, one within the other."""
    n = 8
    a, a_later = rng.normal(size=(2, n))
    low, low_later = rng.uniform(-2.0, 0.0, (2, n))
    high = low + rng.uniform(1.0, 3.0, n)
    high_later = low_later + rng.uniform(1.0, 3.0, n)
    a[0], a_later[0] = 1.5, -2.5  # the lower limit is met
    a[1], a_later[1] = -1.5, 2.5  # the upper one
    return a, low, high, a_later, low_later, high_later


def _clipped(h, a, low, high):
    return np.minimum(np.maximum(h + a, low), high)


def _join_by_trying(a, low, high, a_later, low_later, high_later):
    """Sends an empty and a full account through both steps, and reads the limits off."""
    limits = [
        _clipped(
            _clipped(h, a, low, high), a_later, low_later, high_later
        )
        for h in (-1e6, 1e6)
    ]
    return a + a_later, *limits


def _join(
    a, low, high, a_later, low_later, high_later, limits=None, flow=None
):
    """The operator and, by its parts, wrong ones."""

    def through(h):
        return _clipped(h, a_later, low_later, high_later)

    found = (
        (through(low), through(high))
        if limits is None
        else limits(low, high, a_later, low_later, high_later)
    )
    return a + a_later if flow is None else flow(a, a_later), *found


check_battery = Check(
    name="join",
    spec=_join_by_trying,
    outputs=("a", "low", "high"),
    cases=_battery_case,
    hint="send three charges through both steps: a very low one, a very high one, and one in "
    "between that meets no limit. What comes out of each?",
    mistakes=(
        Mistake(
            lambda *args: _join(
                *args, limits=lambda low, high, a, lo, hi: (lo, hi)
            ),
            "the limits are those of the later step alone. But the earlier step's limits remain "
            "as well: what starts below low leaves the first step at low, and goes on from there.",
        ),
        Mistake(
            lambda *args: _join(
                *args, limits=lambda low, high, a, lo, hi: (low, high)
            ),
            "the limits are those of the earlier step alone. They go through the later step, "
            "which adds its a and has limits of its own.",
        ),
        Mistake(
            lambda *args: _join(
                *args,
                limits=lambda low, high, a, lo, hi: (
                    np.maximum(low, lo),
                    np.minimum(high, hi),
                ),
            ),
            "you take the tighter of the limits. But between them lies the later a: what left the "
            "first step at low arrives at low + a_later.",
        ),
        Mistake(
            lambda *args: _join(
                *args,
                limits=lambda low, high, a, lo, hi: (low + a, high + a),
            ),
            "the earlier limits are moved by the later a, as they should be. But then they meet "
            "the later limits, which hold them back.",
        ),
        Mistake(
            lambda *args: _join(
                *args,
                limits=lambda low, high, a, lo, hi: (
                    np.maximum(low + a, lo),
                    np.minimum(high + a, hi),
                ),
            ),
            "nearly: each limit is held back on one side only. If the later step adds so much "
            "that even low + a_later is above high_later, then low itself ends at high_later.",
        ),
        Mistake(
            lambda *args: _join(*args[3:], *args[:3]),
            "the two steps are swapped: the limits of the *earlier* one have to go through the "
            "later one.",
        ),
        Mistake(
            lambda *args: _join(*args, flow=lambda a, later: a * later),
            "the limits are right. But two steps in a row add a, then add a_later: that is a sum.",
        ),
        Mistake(
            lambda *args: _join(*args, flow=lambda a, later: later),
            "the limits are right. But of the two flows only the later one is left: a charge that "
            "meets no limit gets both.",
        ),
    ),
)
