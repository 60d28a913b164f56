"""Checks of chapter 15, Mamba, GRU and Transformer compared."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from tf_mamba_edu.checks.core import Check, Mistake, turn_of

# 1. Bytes of a cache


def _cache_case(rng):
    """Mamba, GRU and Transformer in turn."""
    kind = ("mamba", "gru", "transformer")[turn_of(rng) % 3]
    sizes = (2, 8), (20, 50), (160, 400)  # layers, width, context
    return kind, *(int(rng.integers(*ends)) for ends in sizes)


def _bytes_of_arrays(kind, n_layers, d_model, context):
    """Array by array."""
    arrays = []
    for _ in range(n_layers):
        if kind == "mamba":
            arrays.append(np.zeros((3, 2 * d_model), np.float32))
            arrays.append(np.zeros((2 * d_model, 16), np.float32))
        elif kind == "gru":
            arrays.append(np.zeros(d_model, np.float32))
        else:
            keys = np.zeros((context, d_model), np.float32)
            arrays += [keys, np.zeros_like(keys)]
    return sum(array.nbytes for array in arrays)


def _cache(
    kind,
    n_layers,
    d_model,
    context,
    expand=2,
    inputs=3,
    vectors=1,
    tables=2,
    size=4,
    whole=0,
    each_token=False,
    square=False,
):
    """The solution, and by its options wrong ones."""
    numbers = {
        "mamba": expand * d_model * (16 + inputs),
        "gru": vectors * d_model,
        "transformer": tables * context * d_model,
    }
    if each_token:
        numbers["mamba"] *= context
    if square:
        numbers["transformer"] = context**2
    extra = whole if kind == "transformer" else 0
    return size * n_layers * numbers[kind] + extra


check_cache_bytes = Check(
    name="cache_bytes",
    spec=_bytes_of_arrays,
    outputs=("bytes",),
    cases=_cache_case,
    tolerance=1e-7,
    hint="one layer first: which arrays does it hand on, and how many numbers are in each? Look at "
    "the docstrings of `init_cache`. Then times the layers, then times the bytes.",
    mistakes=(
        Mistake(
            lambda *case: _cache(*case, inputs=0),
            "for Mamba this is the state of the SSM alone. The convolution looks back as well: "
            "each channel keeps its last K - 1 inputs.",
        ),
        Mistake(
            lambda *case: _cache(*case, inputs=4),
            "for Mamba you keep K inputs a channel. The convolution looks at the newest, which "
            "comes in, and at K - 1 older ones.",
        ),
        Mistake(
            lambda *case: _cache(*case, expand=1),
            "for Mamba you count d_model channels. Inside of the block there are expand times as "
            "many.",
        ),
        Mistake(
            lambda *case: _cache(*case, each_token=True),
            "for Mamba you keep a state for each token. Only the last one is needed, whatever the "
            "context.",
        ),
        Mistake(
            lambda *case: _cache(*case, vectors=3),
            "for the GRU you count three vectors a layer. Its two gates and its new content are "
            "computed and thrown away: only h is handed on.",
        ),
        Mistake(
            lambda *case: _cache(*case, vectors=2),
            "for the GRU you count two vectors a layer. It is the LSTM that has two; a GRU has h "
            "alone.",
        ),
        Mistake(
            lambda *case: _cache(*case, tables=1),
            "for the Transformer you count one vector a token and layer. There are two, a key and "
            "a value.",
        ),
        Mistake(
            lambda *case: _cache(*case, tables=3),
            "for the Transformer you keep queries, too. A query is asked once, by its own token, "
            "and never again: keys and values are enough.",
        ),
        Mistake(
            lambda *case: _cache(*case, square=True),
            "for the Transformer this is a table of scores. Scores are not kept: each new token "
            "makes its own from the keys.",
        ),
        Mistake(
            lambda *case: _cache(*case, whole=4),
            "for the Transformer you have counted its place in the text, one whole number of four "
            "bytes. Right in a sense; asked for are the float32 numbers.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=1),
            "this is how many numbers there are. A float32 has 4 bytes.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=32),
            "these are bits. Eight of them are a byte.",
        ),
        Mistake(
            lambda *case: _cache(*case, size=8),
            "this is for numbers of 8 bytes, float64. A float32 has 4.",
        ),
        Mistake(
            lambda kind, n_layers, *sizes: _cache(kind, 1, *sizes),
            "this is one layer. Each layer has a cache of its own.",
        ),
    ),
)


# 2. Fair widths


def _parameters_of(words, layers, square):
    """The count of a model of a given width: embedding, matrices, vectors."""

    def parameters(width):
        return words * width + layers * (square * width**2 + 7 * width)

    return parameters


def _budget_case(rng):
    """In turn: nearer above, nearer below, nearer below but beyond half the way, tiny, any."""
    kind = turn_of(rng) % 5
    step, words = int(rng.integers(16, 24)), int(rng.integers(10, 30))
    parameters = _parameters_of(
        words, int(rng.integers(2, 6)), int(rng.choice([6, 12]))
    )
    low = step * (1 if kind in (2, 3) else int(rng.integers(2, 8)))
    start, end = parameters(low), parameters(low + step)
    half = (parameters(low + step / 2) - start) / (end - start)
    way = (
        rng.uniform(0.65, 0.9),
        rng.uniform(0.1, 0.35),
        0.5 * (half + 0.5),
        None,
        rng.choice([0.3, 0.7]) + rng.uniform(-0.1, 0.1),
    )[kind]
    budget = (
        rng.uniform(0.25, 0.4) * start
        if way is None
        else start + way * (end - start)
    )
    return parameters, int(budget), step


def _nearest_of_all(parameters, budget, step, most=50):
    """The best of so many widths."""
    return min(
        (step * k for k in range(1, most)),
        key=lambda width: abs(parameters(width) - budget),
    )


def _below(parameters, budget, step):
    """The largest allowed width within the budget, or 0."""
    width = 0
    while parameters(width + step) <= budget:
        width += step
    return width


def _rounded_width(parameters, budget, step):
    """The nearest width of all, and then the multiple nearest to *it*."""
    width = _nearest_of_all(parameters, budget, 1, 1500)
    return max(step, step * math.floor(width / step + 0.5))


def _from_zero(parameters, budget, step):
    width = _below(parameters, budget, step)
    more = parameters(width + step) - budget
    return width if budget - parameters(width) <= more else width + step


check_fair_width = Check(
    name="fair_width",
    spec=_nearest_of_all,
    outputs=("width",),
    cases=_budget_case,
    tolerance=1e-6,
    hint="two allowed widths are neighbors of the budget, one on each side. Count the parameters "
    "of both. And what if already the smallest allowed width is too much?",
    mistakes=(
        Mistake(
            lambda *case: max(case[2], _below(*case)),
            "you never exceed the budget. Asked for is the nearest count: it may lie above.",
        ),
        Mistake(
            _below,
            "you round down, to 0 if the budget is small. The nearest count may lie above, and the "
            "smallest allowed width is `step`.",
        ),
        Mistake(
            lambda *case: _below(*case) + case[2],
            "you always take the first width that reaches the budget. The one below it may be "
            "nearer.",
        ),
        Mistake(
            lambda parameters, budget, step: _nearest_of_all(
                parameters, budget, 1, 1500
            ),
            "this would be right if any width were allowed. It has to be a multiple of `step`.",
        ),
        Mistake(
            _rounded_width,
            "you look for the width that fits best and round *that*. The count grows faster than "
            "the width, so half of the way in width is less than half of it in parameters: compare "
            "counts.",
        ),
        Mistake(
            _from_zero,
            "a model of width 0 is near to a small budget, but it is no model. The smallest "
            "allowed width is `step`.",
        ),
        Mistake(
            lambda *case: case[0](_nearest_of_all(*case)),
            "this is the number of parameters. Asked for is the width.",
        ),
        Mistake(
            lambda *case: _nearest_of_all(*case) // case[2],
            "this is how many times `step` goes into the width. Multiply.",
        ),
        Mistake(
            lambda *case: _nearest_of_all(*case) + case[2],
            "one step too far: this is the allowed width behind the nearest one.",
        ),
    ),
)


# 3. A stopwatch with two bugs


class Machine:
    """A device, and a clock in seconds that only work moves.

    A call puts work into the device's queue and returns at once; `numpy` waits for the result.
    The first call of a step compiles it before.

    Args:
        compiling: seconds that the first call of a step takes more.
        working: seconds of work in each call.
    """

    def __init__(self, compiling, working):
        self.compiling, self.working = compiling, working
        self.now = self.free = 0.0  # the queue is empty from `free` on

    def clock(self):
        return self.now

    def make_step(self):
        self.free, called = self.now, False

        def step():
            nonlocal called
            self.now += 1e-5 if called else self.compiling
            called = True
            self.free = max(self.now, self.free) + self.working
            return Pending(self, self.free)

        return step


class Pending:
    """A result that is there at a certain time."""

    def __init__(self, machine, ready):
        self.machine, self.ready = machine, ready

    def numpy(self):
        """Waits until it is there."""
        self.machine.now = max(self.machine.now, self.ready)
        return 0.0


def _machine_case(rng):
    """Compiling takes as long as several calls; any number of repetitions."""
    working = rng.uniform(0.05, 0.2)
    machine = Machine(working * rng.uniform(5, 30), working)
    tokens, repetitions = rng.integers((500, 4), (5000, 20))
    return (
        machine.make_step,
        int(tokens),
        int(repetitions),
        machine.clock,
    )


def _one_by_one(make_step, tokens, repetitions, clock):
    """Waits for each call."""
    step, seconds = make_step(), 0.0
    step().numpy()
    for _ in range(repetitions):
        began = clock()
        step().numpy()
        seconds += clock() - began
    return tokens * repetitions / seconds


def _timed(
    make_step,
    tokens,
    repetitions,
    clock,
    compiled=True,
    awaited=True,
    wait=True,
    calls=0,
    rate=lambda tokens, n, seconds: tokens * n / seconds,
):
    """The solution, and by its options wrong ones."""
    step = make_step()
    if compiled:
        result = step()
        if awaited:
            result.numpy()
    began = clock()
    for _ in range(repetitions + calls):
        result = step()
    if wait:
        result.numpy()
    return rate(tokens, repetitions, clock() - began)


def _always_new(make_step, tokens, repetitions, clock):
    began = clock()
    for _ in range(repetitions):
        make_step()().numpy()
    return tokens * repetitions / (clock() - began)


check_tokens_per_second = Check(
    name="tokens_per_second",
    spec=_one_by_one,
    outputs=("rate",),
    cases=_machine_case,
    hint="a speed must not depend on how often it is measured. Follow the clock of the machine "
    "line by line: which seconds are counted that should not be, and which are missing?",
    mistakes=(
        Mistake(
            lambda *case: _timed(*case, compiled=False, wait=False),
            "both bugs are still there: the first call compiles while the clock runs, and the "
            "clock stops before the work is done.",
        ),
        Mistake(
            lambda *case: _timed(*case, wait=False),
            "the compiler is out of it now. But this is how fast calls are put into the queue: the "
            "clock stops before the work is done.",
        ),
        Mistake(
            lambda *case: _timed(*case, compiled=False),
            "the work is waited for now. But the first call compiles, and that is counted: make "
            "one call before the clock starts.",
        ),
        Mistake(
            lambda *case: _timed(*case, awaited=False),
            "nearly: the first call is made early, but its work is still in the queue when the "
            "clock starts. Wait for it, too.",
        ),
        Mistake(
            lambda *case: _timed(*case, calls=-1),
            "you time one call fewer than you count. The first one does not belong to the "
            "repetitions.",
        ),
        Mistake(
            lambda *case: _timed(
                *case, rate=lambda tokens, n, s: tokens * (n + 1) / s
            ),
            "the first call is not timed, and its tokens are counted all the same.",
        ),
        Mistake(
            lambda *case: _timed(
                *case, rate=lambda tokens, n, s: tokens / s
            ),
            "these are the tokens of one call by the seconds of all of them.",
        ),
        Mistake(
            lambda *case: _timed(
                *case, rate=lambda tokens, n, s: n / s
            ),
            "these are calls a second. Each of them reads `tokens` tokens.",
        ),
        Mistake(
            lambda *case: _timed(
                *case, rate=lambda tokens, n, s: s / n / tokens
            ),
            "these are seconds a token. Turn it over.",
        ),
        Mistake(
            _always_new,
            "each repetition makes a new step, and so each of them compiles. Make it once.",
        ),
    ),
)


# 4. Where two lines cross


def _price_case(rng):
    """In turn: a tie; a small rest; a large one; the Transformer is dearer at once; equal."""
    kind = turn_of(rng) % 5
    b, a = int(rng.integers(20, 40)), int(rng.integers(200, 400))
    whole = b * int(rng.integers(5, 60))
    over = (
        whole,
        whole + int(rng.integers(2, b // 2 - 1)),
        whole + int(rng.integers(b // 2 + 2, b - 1)),
        -int(rng.integers(2 * b, 3 * b)),
        0,
    )[kind]
    return a + over, a, b


def _by_trying(c, a, b):
    """Token by token."""
    context = 0
    while a + b * context <= c:
        context += 1
    n, ours, theirs = 1, c, a
    while theirs <= ours:
        ours, theirs, n = ours + c, theirs + a + b * n, n + 1
    return context, n


def _crossings(c, a, b):
    """By the formulas."""
    x = (c - a) / b
    return (
        max(math.floor(x) + 1, 0),
        max(math.floor(2 * x) + 2, 1),
    )


check_crossings = Check(
    name="crossings",
    spec=_by_trying,
    outputs=("context", "length"),
    cases=_price_case,
    tolerance=1e-5,
    hint="take c = 7, a = 1 and b = 2, and write both prices down for the first ten tokens, with "
    "their sums below. The first token has nothing before it.",
    mistakes=(
        Mistake(
            lambda c, a, b: (
                max(math.ceil((c - a) / b), 0),
                max(math.ceil(2 * (c - a) / b) + 1, 1),
            ),
            "where both cost exactly the same, Mamba is not cheaper yet. It is one further on.",
        ),
        Mistake(
            lambda c, a, b: ((c - a) / b, 2 * (c - a) / b + 1),
            "these are the points where the lines cross. Asked for are the first whole numbers "
            "behind them, and not below 0 and 1.",
        ),
        Mistake(
            lambda c, a, b: (
                max(math.floor((c - a) / b), 0),
                max(math.floor(2 * (c - a) / b) + 1, 1),
            ),
            "rounded down: there the Transformer is still cheaper, or both cost the same. One "
            "further on.",
        ),
        Mistake(
            lambda *case: (
                _crossings(*case)[0],
                max(_crossings(*case)[1] - 2, 1),
            ),
            "the first is right. In the sum you let the contexts run from 1 to n. The first token "
            "of a text has none before it: 0 to n - 1.",
        ),
        Mistake(
            lambda *case: (
                _crossings(*case)[0],
                max(_crossings(*case)[0], 1),
            ),
            "both are the same here. Where single tokens begin to be cheaper, all those before "
            "have been dearer, and that must be made up for.",
        ),
        Mistake(
            lambda *case: (
                _crossings(*case)[0],
                _crossings(*case)[0] + 1,
            ),
            "the second is the number of the first token that is cheaper by itself. But the text "
            "as a whole? The sum of 0 to n - 1 is n (n - 1) / 2, with a half.",
        ),
        Mistake(
            lambda *case: (
                _crossings(*case)[0],
                2 * _crossings(*case)[0],
            ),
            "about twice, yes, but not exactly: double the point where the lines cross, and round "
            "after that.",
        ),
        Mistake(
            lambda c, a, b: ((c - a) // b + 1, 2 * (c - a) // b + 2),
            "right as long as c is not below a. If it is, Mamba is cheaper from the very first "
            "token on: context 0, length 1.",
        ),
        Mistake(
            lambda c, a, b: _crossings(c, 0, b),
            "you have left out a, what the Transformer pays whatever the context.",
        ),
        Mistake(
            lambda *case: _crossings(*case)[::-1],
            "right, in the wrong order: first the context, then the length of the text.",
        ),
    ),
)


# 5. What a list weighs


def _list_case(rng):
    """In turn: a tenth of the list fits; a third; more, twice; all of it."""
    kind = turn_of(rng) % 5
    words = int(rng.choice([41, 45, 50, 55, 60, 63]))
    bits = 3 if kind == 0 else int(rng.integers(2, 4))
    share = (
        rng.uniform(0.1, 0.13),
        rng.uniform(0.3, 0.45),
        rng.uniform(0.55, 0.9),
        rng.uniform(0.55, 0.9),
        None,
    )[kind]
    everything = _bits_of(words, words)
    capacity = (
        0.5 * (everything + words * np.log2(words))
        if share is None
        else share * everything
    )
    return words, int(capacity / bits), bits


def _bits_of(words, n):
    """Bits that tell apart all lists of n different words."""
    return math.log2(math.perm(words, n))


def _by_counting(words, numbers, bits):
    """With whole numbers: as many lists as states, at most."""
    n, lists = 0, 1
    while n < words and lists * (words - n) <= 2 ** (numbers * bits):
        lists, n = lists * (words - n), n + 1
    return n


def _longest(
    words, capacity, weight=lambda words, n: np.log2(words - n)
):
    """The longest list for so many bits, if word n adds a weight."""
    n, used = 0, 0.0
    while n < words and used + weight(words, n) <= capacity:
        used, n = used + weight(words, n), n + 1
    return n


check_longest_list = Check(
    name="longest_list",
    spec=_by_counting,
    outputs=("n",),
    cases=_list_case,
    tolerance=1e-6,
    hint="four words and lists of two: how many lists are there? And how many states have three "
    "numbers of one bit each? Now add a word at a time, and stop in time.",
    mistakes=(
        Mistake(
            lambda words, numbers, bits: _longest(
                words, numbers * bits, lambda words, n: np.log2(words)
            ),
            "you let words come twice. A word that has been said leaves one fewer for the next "
            "place, and so each place weighs a little less than the one before.",
        ),
        Mistake(
            lambda words, numbers, bits: (
                numbers * bits / np.log2(words)
            ),
            "this lets words come twice, and is not rounded. There are words - 1 for the second "
            "place, and so on: add up place by place.",
        ),
        Mistake(
            lambda words, numbers, bits: _longest(
                words,
                numbers * bits,
                lambda words, n: np.log2((words - n) / (n + 1)),
            ),
            "these are sets: you have divided by n!. A list has an order, and it counts.",
        ),
        Mistake(
            lambda *case: min(_by_counting(*case) + 1, case[0]),
            "one too many: this is the first list that does not fit.",
        ),
        Mistake(
            lambda *case: max(_by_counting(*case) - 1, 0),
            "one more fits.",
        ),
        Mistake(
            lambda words, numbers, bits: _longest(
                words,
                numbers * bits,
                lambda words, n: np.log(words - n),
            ),
            "this is a logarithm to base e. Bits are counted to base 2.",
        ),
        Mistake(
            lambda words, numbers, bits: _longest(words, numbers),
            "you count one bit a number. Each holds `bits` of them.",
        ),
        Mistake(
            lambda words, numbers, bits: _longest(
                words, numbers * 2**bits
            ),
            "a number of b bits has 2^b values, and still holds b bits: its logarithm is what adds "
            "up.",
        ),
        Mistake(
            lambda *case: case[0],
            "every list fits here. Not so: count the states.",
        ),
    ),
)


# 6. Three seeds each


def _losses_case(rng):
    """In turn: first, second, cannot tell, second, cannot tell; 3 to 7 seeds; much in common."""
    kind = turn_of(rng) % 5
    n = (3, 4, 3, 6, 7)[kind] + int(rng.integers(0, 2)) * (kind % 2)
    noise = rng.normal(size=n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    spread = rng.uniform(0.01, 0.03)
    half = stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n)
    clear = rng.uniform(1.3, 2.5)
    unclear = rng.choice([-1, 1]) * rng.uniform(0.3, 0.7)
    apart = half * (-clear, clear, unclear, clear, unclear)[kind]
    common = rng.uniform(3, 4) + rng.normal(0, 0.3, n)
    return common + apart + spread * noise, common


def _by_scipy(first, second):
    """The paired t-test of SciPy."""
    found = stats.ttest_rel(first, second).confidence_interval(0.95)
    return _judged(found.low, found.high)


def _judged(low, high):
    return low, high, 1 if high < 0 else 2 if low > 0 else 0


def _interval(
    first,
    second,
    ddof=1,
    fewer=1,
    mass=0.975,
    quantile=None,
    root=0.5,
    error=None,
    judge=_judged,
):
    """The solution, and by its options wrong ones."""
    apart, n = first - second, len(first)
    t = quantile or stats.t.ppf(mass, n - fewer)
    spread = apart.std(ddof=ddof) / n**root
    half = t * (error(first, second) if error else spread)
    return judge(apart.mean() - half, apart.mean() + half)


def _unpaired(first, second):
    n = len(first)
    return np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / n)


def _lower_is_worse(low, high):
    return low, high, (0, 2, 1)[_judged(low, high)[2]]


def _by_the_mean(low, high):
    return low, high, 1 if low + high < 0 else 2


check_paired_interval = Check(
    name="paired_interval",
    spec=_by_scipy,
    outputs=("low", "high", "better"),
    cases=_losses_case,
    hint="one difference a seed first. From these n numbers: their mean, their standard deviation "
    "with n - 1 below, and t for n - 1 degrees of freedom.",
    mistakes=(
        Mistake(
            lambda first, second: _interval(
                first,
                second,
                error=_unpaired,
                quantile=stats.t.ppf(0.975, 2 * len(first) - 2),
            ),
            "this is for two lists that have nothing to do with each other. Here each pair shares "
            "its seed: subtract first, and look at the n differences.",
        ),
        Mistake(
            lambda *case: _interval(*case, error=_unpaired),
            "you add up the variances of both lists. What a pair has in common, its seed, goes "
            "away if you subtract first.",
        ),
        Mistake(
            lambda *case: _interval(*case, ddof=0),
            "the standard deviation has n below. The mean comes from the same few numbers, and is "
            "too near to them: divide by n - 1, `ddof=1`.",
        ),
        Mistake(
            lambda *case: _interval(*case, quantile=1.96),
            "1.96 is for many seeds. The spread of three is itself hardly known, and t allows for "
            "that: 4.303 for n = 3.",
        ),
        Mistake(
            lambda *case: _interval(
                *case, quantile=stats.t.ppf(0.975, 2)
            ),
            "4.303 is for three seeds. Here are sometimes more, and t falls: ask "
            "`scipy.stats.t.ppf` with n - 1.",
        ),
        Mistake(
            lambda *case: _interval(*case, fewer=0),
            "this is t for n degrees of freedom. The mean has used up one: n - 1.",
        ),
        Mistake(
            lambda *case: _interval(*case, mass=0.95),
            "this leaves 5 % on each side, an interval of 90 %. Leave 2.5 %: 0.975.",
        ),
        Mistake(
            lambda *case: _interval(*case, root=0.0),
            "this is how far a single difference may lie from the mean. The mean itself is known "
            "better, by the square root of n.",
        ),
        Mistake(
            lambda *case: _interval(*case, root=1.0),
            "you divide by n. The error of a mean falls with the square root of n.",
        ),
        Mistake(
            lambda *case: _interval(*case, judge=_lower_is_worse),
            "the interval is right and the verdict is turned round: these are losses, and the "
            "lower one is better.",
        ),
        Mistake(
            lambda first, second: (
                *_interval(second, first)[:2],
                _interval(first, second)[2],
            ),
            "the verdict is right and the interval is that of second - first. Asked for is "
            "first - second.",
        ),
        Mistake(
            lambda first, second: _interval(second, first),
            "you have subtracted the first from the second, and everything is turned round.",
        ),
        Mistake(
            lambda *case: _interval(*case, judge=_by_the_mean),
            "the interval is right, and you do not use it: if 0 lies in it, one cannot tell, and "
            "`better` is 0.",
        ),
        Mistake(
            lambda *case: (*_interval(*case)[:2], 0),
            "the interval is right, and you never decide. If it lies on one side of 0, one of the "
            "two is better, even if their single losses overlap.",
        ),
    ),
)
