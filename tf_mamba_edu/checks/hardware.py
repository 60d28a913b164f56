"""Checks of chapter 08, the hardware-aware scan."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    _raw_result,
    counting,
    turn_of,
)


def _layer_case(rng):
    B, L, D = (
        rng.integers(2, 9),
        rng.integers(100, 3000),
        16 * rng.integers(20, 100),
    )
    return int(B), int(L), int(D)


def _moved(
    B,
    L,
    D,
    separate=("x delta y", "y x p", "p z out"),
    inside="x delta z out",
    number=4,
):
    """Bytes of three passes and of one: each lists its arrays (B, L, D)."""

    def of(passes):
        return number * B * L * D * sum(len(p.split()) for p in passes)

    return of(separate), of([inside])


check_moved = Check(
    name="moved",
    spec=_moved,
    outputs=("separate", "inside"),
    cases=_layer_case,
    tolerance=1e-6,
    hint="write a table with a row for each pass: what does it read, what does it write, and how "
    "many numbers has each of these arrays? Then add up, and remember what a number weighs.",
    mistakes=(
        Mistake(
            lambda *sizes: _moved(*sizes, number=1),
            "these are numbers, not bytes. A float32 has 32 bits: how many bytes is that?",
        ),
        Mistake(
            lambda *sizes: _moved(*sizes, number=8),
            "twice too much: eight bytes are a float64. A float32 has four.",
        ),
        Mistake(
            lambda *sizes: _moved(
                *sizes, separate=("x delta y", "y p", "p z out")
            ),
            "inside is right. In the second pass x is missing: the scan has read it once, but by "
            "now it is no longer near the core, and comes from memory again.",
        ),
        Mistake(
            lambda *sizes: _moved(
                *sizes,
                separate=("x delta", "y x", "p z"),
                inside="x delta z",
            ),
            "you count what is read. What is written travels, too: three arrays in the three "
            "passes, one in the single pass.",
        ),
        Mistake(
            lambda *sizes: _moved(
                *sizes, separate=("x delta y", "x p", "z out")
            ),
            "inside is right. But what one pass writes, the next one has to read: these two "
            "arrays travel twice, once in each direction, and skip and gate have a pass each.",
        ),
        Mistake(
            lambda *sizes: _moved(*sizes, inside="x delta out"),
            "separate is right. The single pass needs z as well, or it cannot gate.",
        ),
        Mistake(
            lambda *sizes: _moved(*sizes, inside="x x delta z out"),
            "separate is right. The single pass needs x twice, but it *fetches* it once: the "
            "number is still in a register when the skip asks for it.",
        ),
        Mistake(
            lambda *sizes: _moved(*sizes, inside="x delta z y p out"),
            "separate is right. The single pass writes down no results in between: each is a "
            "number in a register, used at once and forgotten. That is the point of fusing.",
        ),
        Mistake(
            lambda B, L, D: _moved(1, L, D),
            "this is one sequence of the batch. There are B of them.",
        ),
    ),
)


def _roofline_case(rng):
    """Six programs, from far left of the ridge to far right."""
    peak, bandwidth = rng.uniform(1e11, 1e12), rng.uniform(1e10, 5e10)
    intensity = np.array([0.02, 0.3, 0.7, 1.5, 5.0, 60.0])
    intensity *= rng.uniform(0.8, 1.2, 6) * peak / bandwidth
    moved = 10 ** rng.uniform(6.0, 7.0, 6)
    order = rng.permutation(6)
    return (intensity * moved)[order], moved[order], peak, bandwidth


def _bounds(operations, moved, peak, bandwidth):
    seconds, waits = [], []
    for count, size in zip(operations, moved, strict=True):
        computing, fetching = count / peak, size / bandwidth
        seconds.append(computing if computing > fetching else fetching)
        waits.append(1.0 if fetching > computing else 0.0)
    return np.array(seconds), np.array(waits)


def _roofline(
    operations, moved, peak, bandwidth, join=np.maximum, waits=None
):
    computing, fetching = operations / peak, moved / bandwidth
    waits = waits or (lambda computing, fetching: fetching > computing)
    return (
        join(computing, fetching),
        1.0 * waits(computing, fetching),
    )


check_shortest = Check(
    name="shortest",
    spec=_bounds,
    outputs=("seconds", "waits"),
    cases=_roofline_case,
    tolerance=1e-5,
    hint="how long would it take to compute, if fetching were free? How long to fetch, if "
    "computing were free? Both can go on at the same time. And waits is made of the numbers 1 and "
    "0: np.where makes them from truth values.",
    mistakes=(
        Mistake(
            lambda *args: _roofline(*args, join=np.add),
            "you add the two times. A processor computes while the next numbers are on their way, "
            "so at best the shorter of the two is hidden behind the longer.",
        ),
        Mistake(
            lambda *args: _roofline(*args, join=np.minimum),
            "this is the shorter of the two times. The program is not ready before it has "
            "fetched everything *and* computed everything: take the longer one.",
        ),
        Mistake(
            lambda *args: _roofline(*args, join=lambda c, f: f),
            "only fetching counts in the times. A program with much to do for each byte is held "
            "up by its arithmetic, and more than the peak is not to be had.",
        ),
        Mistake(
            lambda *args: _roofline(*args, join=lambda c, f: c),
            "only computing counts in the times, so that every program reaches the peak. Most of "
            "them wait for memory.",
        ),
        Mistake(
            lambda operations, moved, peak, bandwidth: _roofline(
                operations, moved, bandwidth, peak
            ),
            "peak and bandwidth are exchanged: operations are done at the peak, bytes come with "
            "the bandwidth.",
        ),
        Mistake(
            lambda operations, moved, peak, bandwidth: (
                np.minimum(peak, operations / moved * bandwidth),
                _bounds(operations, moved, peak, bandwidth)[1],
            ),
            "waits is right. But the first result is a *speed*, operations per second. The time "
            "is the operations divided by it.",
        ),
        Mistake(
            lambda *args: _roofline(*args, waits=lambda c, f: c > f),
            "the times are right, and waits is the wrong way round: 1 where fetching takes longer "
            "than computing.",
        ),
        Mistake(
            lambda operations, moved, peak, bandwidth: (
                _bounds(operations, moved, peak, bandwidth)[0],
                1.0 * (operations < moved),
            ),
            "the times are right. But waits compares operations with bytes, as if the machine did "
            "one of each at a time. Compare the two *times*, or the intensity with the balance "
            "peak / bandwidth.",
        ),
    ),
)


def _chunk_case(rng):
    """The last chunk is shorter than the others, but for the second case."""
    turn, K = turn_of(rng), int(rng.integers(3, 6))
    rest = 0 if turn == 1 else int(rng.integers(1, K))
    L = int(rng.integers(2, 4)) * K + rest
    a = rng.uniform(0.4, 0.9, L) * rng.choice([-1, 1], L)
    return a, rng.normal(size=L) + 1, rng.normal(size=L) + 0.5, K


def _looped(a, b, start=0.0):
    h, found = start, []
    for t in range(len(a)):
        h = a[t] * h + b[t]
        found.append(h)
    return np.array(found)


def _by_differences(a, b, w, K):
    """The loss is a sum of states, each linear in any one multiplier and in any one amount."""

    def slope(run, t):
        step = 0.1 * np.eye(len(a))[t]
        return w @ (run(step) - run(-step)) / 0.2

    steps = range(len(a))
    return (
        np.array(
            [slope(lambda s: _looped(a + s, b), t) for t in steps]
        ),
        np.array(
            [slope(lambda s: _looped(a, b + s), t) for t in steps]
        ),
    )


def _chunked(
    a,
    b,
    w,
    K,
    chunks="from the front",
    passed=lambda a, t, stop: a[t + 1] if t + 1 < len(a) else 0.0,
    keep_after=False,
):
    """The backward pass of the sheet, repaired and, by its parts, wrong."""
    L = len(a)
    states = np.append(0.0, _looped(a, b))
    kept = [states[t + keep_after] for t in range(0, L, K)]
    if chunks == "from the end":
        spans = [(max(stop - K, 0), stop) for stop in range(L, 0, -K)]
    elif chunks == "whole ones":
        spans = [(t, t + K) for t in range(0, L - K + 1, K)][::-1]
    else:
        spans = [(t, min(t + K, L)) for t in range(0, L, K)][::-1]
    da, db, g = np.zeros(L), np.zeros(L), 0.0
    for start, stop in spans:
        h = kept[start // K]
        before = np.append(h, _looped(a[start:stop], b[start:stop], h))
        for t in reversed(range(start, stop)):
            g = w[t] + passed(a, t, stop) * g
            da[t], db[t] = g * before[t - start], g
    return da, db


def _not_between(a, t, stop):
    return a[t + 1] if t + 1 < stop else 1.0


check_chunked_gradients = Check(
    name="chunked_gradients",
    spec=_by_differences,
    outputs=("da", "db"),
    cases=_chunk_case,
    tolerance=1e-6,
    hint="compare with chunks of K = L, one for all steps. db shows what happens to g on its way "
    "from one chunk to the one before it, da in addition which states a chunk starts from.",
    mistakes=(
        Mistake(
            lambda *args: _chunked(
                *args, chunks="from the end", passed=_not_between
            ),
            "both bugs are still there. One is in what is handed from chunk to chunk, the other "
            "in where the chunks are cut.",
        ),
        Mistake(
            lambda *args: _chunked(*args, passed=_not_between),
            "the states are right now. But where g goes from one chunk to the one before it, it "
            "is still not multiplied: a chunk's border is a step like any other.",
        ),
        Mistake(
            lambda *args: _chunked(*args, chunks="from the end"),
            "db is right now. But the chunks are still cut from the end, where the forward pass "
            "cut them from the front. So the kept states stand at other places than the chunks.",
        ),
        Mistake(
            lambda *args: _chunked(*args, chunks="whole ones"),
            "the last chunk, shorter than K, is left out: its gradients are 0, and what it has to "
            "hand back never reaches the others.",
        ),
        Mistake(
            lambda *args: _chunked(
                *args,
                passed=lambda a, t, stop: (
                    a[t + 1] if t + 1 < stop else 0.0
                ),
            ),
            "each chunk starts with g = 0. It has to take over what the later chunk hands back, "
            "times the multiplier of the step between them; only the last chunk has nobody "
            "behind it.",
        ),
        Mistake(
            lambda *args: _chunked(
                *args,
                passed=lambda a, t, stop: (
                    a[t + 1] if t + 1 < stop else a[t]
                ),
            ),
            "at the border of a chunk g is multiplied by a[t]. The state h_t gets into h_{t+1} "
            "with a[t + 1], also there.",
        ),
        Mistake(
            lambda *args: _chunked(
                *args, passed=lambda a, t, stop: a[t]
            ),
            "every g is multiplied by the multiplier of its own step. The state h_t gets into "
            "h_{t+1} with a[t + 1].",
        ),
        Mistake(
            lambda *args: _chunked(*args, keep_after=True),
            "db is right. For da a chunk has to start from the state *before* its first step; "
            "this starts from the state after it.",
        ),
        Mistake(
            lambda *args: _chunked(*args)[::-1],
            "both are right, and change places: return (da, db).",
        ),
    ),
)


def _fitting(L, states, count=lambda L, K: -(-L // K) + K):
    """The K, from 1 to L, whose count of states does not exceed what there is room for."""
    K = np.arange(1, L + 1)
    return K[count(L, K) <= states]


def _fewest(L):
    """By trying: K steps in a small chunk, J of those in a large one."""
    most = 3 * int(np.ceil(L ** (1 / 3))) + 1  # that many suffice
    K, J = np.arange(1, most), np.arange(1, most)[:, None]
    return int(np.min(-(-L // (K * J)) + J + K))


def _one_level(L, state_bytes, budget):
    return int(_fitting(L, budget // state_bytes)[0])


def _plan(L, state_bytes, budget):
    return _one_level(L, state_bytes, budget), _fewest(L)


# Chunk lengths by likely slips, from L, the states there is room for, and the budget in bytes.
_SLIPS = {
    "largest": lambda L, states, _: _fitting(L, states)[-1],
    "root": lambda L, *_: round(np.sqrt(L)),
    "exact root": lambda L, *_: np.sqrt(L),
    "floor": lambda L, states, _: _fitting(
        L, states, lambda L, K: L // K + K
    )[0],
    "strict": lambda L, states, _: _fitting(L, states - 1)[0],
    "checkpoints only": lambda L, states, _: _fitting(
        L, states, lambda L, K: -(-L // K)
    )[0],
    "bytes": lambda L, _, budget: _fitting(L, budget)[0],
}


def _budget_case(rng):
    """Sizes for which every slip gives another K, and the two-level formula rounds up."""
    while True:
        L = int(rng.integers(300, 2000))
        cubic = 3 * L ** (1 / 3)
        if not _fewest(L) == np.ceil(cubic) > np.round(cubic):
            continue
        state_bytes = int(rng.integers(50, 500)) * 4
        states = int(np.ceil(rng.uniform(2.1, 2.6) * np.sqrt(L)))
        budget = states * state_bytes + int(
            rng.integers(1, state_bytes)
        )
        found = {slip(L, states, budget) for slip in _SLIPS.values()}
        if len(found | {_one_level(L, state_bytes, budget)}) == 8:
            return L, state_bytes, budget


def _slip(name):
    return lambda L, state_bytes, budget: (
        _SLIPS[name](L, budget // state_bytes, budget),
        _fewest(L),
    )


def _other_count(count):
    return lambda *case: (_one_level(*case), count(case[0]))


check_plan = Check(
    name="plan",
    spec=_plan,
    outputs=("K", "fewest"),
    cases=_budget_case,
    tolerance=1e-5,
    hint="take L = 10 and K = 3 and draw the ten steps: where are the checkpoints, and how many "
    "states are in memory while the backward pass is in the last chunk but one? Then try all K.",
    mistakes=(
        Mistake(
            _slip("largest"),
            "fewest is right, and K fits, but it is the *largest* K that does. Short chunks were "
            "wanted: their states should stay in a cache.",
        ),
        Mistake(
            _slip("root"),
            "fewest is right. This K needs the fewest states, the square root of L. With the "
            "budget given there is room for more checkpoints, and so for shorter chunks.",
        ),
        Mistake(
            _slip("exact root"),
            "fewest is right. The square root of L needs the fewest states, but is no whole "
            "number of steps; and the budget has room for shorter chunks.",
        ),
        Mistake(
            _slip("floor"),
            "fewest is right. Steps that are left over at the end are a chunk as well, and have "
            "a checkpoint: L / K has to be rounded up, -(-L // K).",
        ),
        Mistake(
            _slip("strict"),
            "fewest is right. But a plan that fills the budget to the last state does fit: <=, "
            "not <.",
        ),
        Mistake(
            _slip("checkpoints only"),
            "fewest is right. In K you count the checkpoints only. While the backward pass works "
            "on a chunk, the K states of that chunk are in memory, too.",
        ),
        Mistake(
            _slip("bytes"),
            "fewest is right. In K you compare a number of states with a number of bytes: how "
            "many states are there room for?",
        ),
        Mistake(
            _other_count(lambda L: 3 * L ** (1 / 3)),
            "K is right. 3 L^(1/3) is what the derivation gives, and it is a bound. States come in "
            "whole numbers: round up.",
        ),
        Mistake(
            _other_count(lambda L: np.floor(3 * L ** (1 / 3))),
            "K is right. 3 L^(1/3) is the minimum over all real numbers, so with whole ones it "
            "takes at least that many: round up, not down.",
        ),
        Mistake(
            _other_count(lambda L: int(np.ceil(2 * np.sqrt(L)))),
            "K is right. 2 times the square root of L is the fewest for *one* level of "
            "checkpoints. With two there are three terms to balance.",
        ),
        Mistake(
            _other_count(lambda L: int(np.ceil(2 * L ** (1 / 3)))),
            "K is right. Of the three things that are in memory at the same time one is missing: "
            "the large checkpoints, the small ones of one large chunk, and the states of one "
            "small chunk.",
        ),
        Mistake(
            _other_count(lambda L: int(np.ceil(L ** (1 / 3)))),
            "K is right. The cube root of L is how long a small chunk should be. How many states "
            "are in memory then, all together?",
        ),
    ),
)


def _gated_case(rng):
    shape = 2, int(rng.integers(4, 8)), int(rng.integers(3, 6))
    s, x = rng.normal(size=shape), rng.normal(size=shape) + 0.5
    z, dy = 2 * rng.normal(size=shape), rng.normal(size=shape) + 0.5
    return s, x, z, rng.normal(size=shape[2]) + 1, dy


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _by_small_steps(s, x, z, D, dy, step=1e-4):
    """Everything a little up and down: each place of y depends on its own place only."""

    def weighted(s, x, z, D):
        return dy * (s + D * x) * z * _sigmoid(z)

    def slope(*moves):
        up, down = (
            weighted(
                *(
                    v + way * step * m
                    for v, m in zip((s, x, z, D), moves, strict=True)
                )
            )
            for way in (1, -1)
        )
        return (up - down) / (2 * step)

    of_s, of_x, of_z, of_D = (slope(*moves) for moves in np.eye(4))
    return of_z, np.sum(of_D, axis=(0, 1)), of_x, of_s


def _slope(z):
    """The derivative of SiLU."""
    return _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))


def _gated(
    s,
    x,
    z,
    D,
    dy,
    slope=_slope,
    skipped=True,
    gate=lambda z: z * _sigmoid(z),
    total=lambda product: np.sum(product, axis=(0, 1)),
    to_x=lambda D, x: D,
    to_s=lambda D: 1,
):
    """The gradients by formula and, by its parts, wrong ones."""
    p = s + (D * x if skipped else 0)
    dp = dy * gate(z)
    return (
        dy * p * slope(z),
        total(dp * x),
        dp * to_x(D, x),
        dp * to_s(D),
    )


check_output_gradients = Check(
    name="output_gradients",
    spec=_by_small_steps,
    outputs=("dz", "dD", "dx", "ds"),
    cases=_gated_case,
    tolerance=1e-5,
    hint="call what is gated p_t = s_t + D x_t, so that y_t = p_t silu(z_t). First the gradient in "
    "p_t and the one in z_t; then go on from p_t to s_t, D and x_t.",
    mistakes=(
        Mistake(
            lambda *args: _gated(*args, slope=_sigmoid),
            "the rest is right. In dz you take z as a constant factor, so that only the sigmoid "
            "is left. SiLU is z times sigmoid(z), a product, and both factors change with z.",
        ),
        Mistake(
            lambda *args: _gated(
                *args, slope=lambda z: _sigmoid(z) * (1 - _sigmoid(z))
            ),
            "the rest is right. In dz you have the derivative of the sigmoid. SiLU is z times "
            "sigmoid(z): by the product rule there is one more term, and a factor z.",
        ),
        Mistake(
            lambda *args: _gated(
                *args,
                slope=lambda z: z * _sigmoid(z) * (1 - _sigmoid(z)),
            ),
            "the rest is right. In dz one term of the product rule is missing, the one in which "
            "z itself changes and the sigmoid does not.",
        ),
        Mistake(
            lambda *args: _gated(
                *args, slope=lambda z: z * _sigmoid(z)
            ),
            "the rest is right. dz contains silu(z) itself where its derivative belongs.",
        ),
        Mistake(
            lambda *args: _gated(*args, skipped=False),
            "the rest is right. In dz the skip is missing: what the gate multiplies is "
            "s_t + D x_t, all of it.",
        ),
        Mistake(
            lambda *args: _gated(*args, gate=np.ones_like),
            "dz is right. The others go past the gate: what y_t gets from scan and skip has been "
            "multiplied by silu(z_t), and so is what goes back.",
        ),
        Mistake(
            lambda *args: _gated(*args, gate=_sigmoid),
            "dz is right. In the others you gate by sigmoid(z). The gate is silu(z), z times that.",
        ),
        Mistake(
            lambda *args: _gated(*args, gate=_slope),
            "dz is right. In the others the gate is a constant factor: silu(z), not its "
            "derivative.",
        ),
        Mistake(
            lambda *args: _gated(*args, total=lambda product: product),
            "dz, dx and ds are right. One D serves all steps of all sequences, so its gradient is "
            "a sum over both: (D,), not (B, L, D).",
        ),
        Mistake(
            lambda *args: _gated(*args, total=np.sum),
            "dz, dx and ds are right. Each channel has a D of its own: sum over batch and time, "
            "not over the channels.",
        ),
        Mistake(
            lambda *args: _gated(
                *args, total=lambda product: np.sum(product, axis=1)
            ),
            "dz, dx and ds are right. dD is summed over time only. The sequences of a batch share "
            "D as well: sum over both axes.",
        ),
        Mistake(
            lambda *args: _gated(
                *args,
                total=lambda product: np.mean(product, axis=(0, 1)),
            ),
            "dz, dx and ds are right. dD is a sum over batch and time, and this is their mean.",
        ),
        Mistake(
            lambda *args: _gated(*args, to_x=lambda D, x: x),
            "the others are right. dx has the factor x, and should have D: in the product D x the "
            "gradient of each factor holds the *other* one.",
        ),
        Mistake(
            lambda *args: _gated(*args, to_x=lambda D, x: 1),
            "the others are right. In dx the factor D is missing: this is what goes to the scan.",
        ),
        Mistake(
            lambda *args: _gated(*args, to_s=lambda D: D),
            "the others are right. ds has a factor D, as if the scan's output went through the "
            "skip. It stands beside it, with a factor of 1.",
        ),
        Mistake(
            lambda s, x, z, D, dy: (
                *_gated(s, x, z, D, dy)[:3],
                dy,
            ),
            "the others are right. The scan does not get the gradient of the layer's output as "
            "it is: the gate stands between them.",
        ),
    ),
)


def _page_case(rng):
    """In turn: a short last page, no short page, a page longer than all, pages of 1."""
    turn, K = turn_of(rng) % 5, int(rng.integers(3, 6))
    L = int(rng.integers(6, 9)) * K + int(rng.integers(1, K))
    if turn == 1:
        L -= L % K
    elif turn == 2:
        L, K = K, L
    elif turn == 3:
        K = 1
    a = rng.uniform(0.4, 0.9, L) * rng.choice([-1, 1], L)
    b, start = rng.normal(size=L) + 1, float(rng.uniform(2.0, 4.0))
    return a, b, start, K, _join


def _join(earlier, later):
    """First (a, b), then (a', b'): for numbers, or for arrays of them."""
    (a, b), (a_later, b_later) = earlier, later
    return a_later * a, a_later * b + b_later


def _page_by_page(a, b, initial_state, K, join=None):
    """Page after page, step after step."""
    page_a, page_b = [], []
    for start in range(0, len(a), K):
        product, h = 1.0, 0.0
        for t in range(start, min(start + K, len(a))):
            product, h = a[t] * product, a[t] * h + b[t]
        page_a.append(product)
        page_b.append(h)
    return (
        np.array(page_a),
        np.array(page_b),
        _looped(a, b, initial_state),
    )


def _exchanged(join):
    return lambda earlier, later: join(later, earlier)


def _all_pages_at_once(
    a, b, initial_state, K, join, condense=lambda join: join
):
    """The solution: 2 K joins of all pages, and one for each page."""
    L, room = len(a), -len(a) % K
    pages_a = np.append(a, np.ones(room)).reshape(-1, K)
    pages_b = np.append(b, np.zeros(room)).reshape(-1, K)
    steps = list(zip(pages_a.T, pages_b.T, strict=True))
    whole = steps[0]
    for step in steps[1:]:
        whole = condense(join)(whole, step)
    state, before = (0.0, initial_state), []
    for page in zip(*whole, strict=True):
        before.append(state[1])
        state = join(state, page)
    state, found = (np.zeros(len(before)), np.array(before)), []
    for step in steps:
        state = join(state, step)
        found.append(state[1])
    return *whole, np.stack(found, axis=1).reshape(-1)[:L]


def _one_after_another(a, b, initial_state, K, join):
    """The loop, by the operator; pages read off on the way."""
    state, found = (0.0, initial_state), []
    for step in zip(a, b, strict=True):
        state = join(state, step)
        found.append(state[1])
    whole = _page_by_page(a, b, initial_state, K)[:2]
    return *whole, np.array(found)


def _each_page_by_itself(a, b, initial_state, K, join):
    """Condenses and fills in step by step, though the pages do not know of each other."""
    for step in zip(a, b, strict=True):
        join((1.0, 0.0), step)
    return _one_after_another(a, b, initial_state, K, join)


NEVER_JOINED = (
    "the values are right, but join was never called. Work with it alone: then the same function "
    "scans with any other operator, too."
)
JOINED_STEP_BY_STEP = (
    "the values are right, but join is called about once for each step: one step after the other, "
    "with nothing for a second processor to do. join takes arrays: the first steps of all pages "
    "and their second steps are one call."
)
JOINED_PAGE_BY_PAGE = (
    "the values are right, but the pages are worked one after the other, with a call for each step "
    "in each phase. The pages do not know of each other: put them into an array (pages, K), and "
    "join whole columns."
)


def _calls_of_join(answer, cases) -> str | None:
    """What to say if join is called too often, or never."""
    found = []
    for a, b, start, K, join in cases:
        counted, counts = counting(join, lambda earlier, later: 1)
        _raw_result(answer, (a, b, start, K, counted))
        calls, limit = len(counts), 2 * K + -(-len(a) // K)
        found.append((calls / limit, calls, limit, len(a), K))
    if not any(calls for _, calls, *_ in found):
        return NEVER_JOINED
    worst, calls, limit, L, K = max(found)
    if worst <= 1:
        return None
    if calls >= 1.5 * L:
        return JOINED_PAGE_BY_PAGE
    if calls >= L - 1:
        return JOINED_STEP_BY_STEP
    return (
        f"the values are right, but for L = {L} and K = {K} join is called {calls} times. It "
        f"can be done with {limit}: K to condense, one for each page, K to fill in."
    )


def _carried(whole_a, whole_b, initial_state):
    after = _looped(whole_a, whole_b, initial_state)
    return np.append(initial_state, after[:-1])


def _two_level(
    a,
    b,
    initial_state,
    K,
    join=None,
    neutral=1.0,
    dealt=False,
    opened=False,
    padded=lambda L, K: -L % K,
    before=_carried,
    product=lambda pages: np.prod(pages, axis=1),
    keep_padding=False,
):
    """The scan by pages and, by its parts, wrong ones."""
    L, room = len(a), padded(len(a), K)
    if opened:
        b = np.append(a[0] * initial_state + b[0], b[1:])
    pages_a = np.append(a, np.full(room, neutral))
    pages_b = np.append(b, np.zeros(room))
    if dealt:
        pages_a, pages_b = (
            v.reshape(K, -1).T for v in (pages_a, pages_b)
        )
    else:
        pages_a, pages_b = (
            v.reshape(-1, K) for v in (pages_a, pages_b)
        )
    whole_a = product(pages_a)
    whole_b = np.array(
        [
            _looped(p, q)[-1]
            for p, q in zip(pages_a, pages_b, strict=True)
        ]
    )
    starts = before(whole_a, whole_b, 0.0 if opened else initial_state)
    h = np.concatenate(
        [
            _looped(p, q, start)
            for p, q, start in zip(
                pages_a, pages_b, starts, strict=True
            )
        ]
    )
    return whole_a, whole_b, h if keep_padding else h[:L]


check_two_level = Check(
    name="two_level",
    spec=_all_pages_at_once,
    outputs=("page_a", "page_b", "h"),
    cases=_page_case,
    tolerance=1e-6,
    cost=_calls_of_join,
    hint="five steps in pages of two, by hand: what does each page come to, a and b, if it starts "
    "from nothing? With which state does each page begin? The sheet's last cell has numbers.",
    mistakes=(
        Mistake(
            lambda *args: _two_level(*args, neutral=0.0),
            "all but the last page_a are right: the empty places of the last page are filled with "
            "a = 0, which forgets everything. A step that changes nothing has a = 1 and b = 0.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, padded=lambda L, K: K - L % K
            ),
            "there is an empty page too many where K divides L: K - L % K is K then, and should "
            "be 0. Python's -L % K does it.",
        ),
        Mistake(
            lambda *args: _two_level(*args, keep_padding=True),
            "the pages are right, and the states as well, but h still holds the states of the "
            "steps that were added to fill the last page. Cut it to L.",
        ),
        Mistake(
            lambda *args: _two_level(*args, dealt=True),
            "the steps are dealt out like cards: 0, 1, 2 go to different pages. A page holds K "
            "*successive* steps, reshape(-1, K), not reshape(K, -1).",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, before=lambda p, q, h: _carried(p, q, 0.0)
            ),
            "the pages are right. But the first of them starts from zero, where it should start "
            "from the initial state.",
        ),
        Mistake(
            lambda *args: _two_level(*args, opened=True),
            "the states are right. But the initial state went into page_b of the first page. A "
            "page is condensed from nothing, whatever stands before it; only the carrying knows "
            "where everything began.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, before=lambda p, q, h: _looped(p, q, h)
            ),
            "the pages are right. But each page is filled in from the state *after* it, not from "
            "the one before: what is carried is one place late.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, before=lambda p, q, h: np.full(len(p), h)
            ),
            "the pages are right. But each of them is filled in from the initial state, as if "
            "it were the first. What the pages before it come to is not carried.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args,
                before=lambda p, q, h: np.append(
                    h, np.zeros(len(p) - 1)
                ),
            ),
            "the pages are right. But each page after the first is filled in from zero: nothing "
            "is carried.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, before=lambda p, q, h: np.append(h, q[:-1])
            ),
            "the pages are right. But each page starts from page_b of the page before it. That "
            "page did not start from zero either: page_a times the state before it comes on top.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args,
                before=lambda p, q, h: np.append(
                    h, h + np.cumsum(q)[:-1]
                ),
            ),
            "the pages are right. But what is carried is only added up. A page also multiplies "
            "what comes in, by its page_a.",
        ),
        Mistake(
            lambda *args: _two_level(
                *args, product=lambda pages: pages[:, -1]
            ),
            "page_a is only the last multiplier of each page (in a short page, of its padding). A "
            "page multiplies what comes in by *all* of its multipliers, one after the other.",
        ),
        Mistake(
            lambda *args: _all_pages_at_once(
                *args[:-1], _exchanged(args[-1])
            ),
            "the arguments of join are exchanged, everywhere: first the earlier step, then the "
            "later one. Only page_a is right all the same, for products do not mind.",
        ),
        Mistake(
            lambda *args: _all_pages_at_once(
                *args, condense=_exchanged
            ),
            "page_a is right and page_b is not: while condensing, what the page has come to so "
            "far is the *earlier* argument of join, and the next step the later one.",
        ),
        Mistake(_page_by_page, NEVER_JOINED),
        Mistake(_one_after_another, JOINED_STEP_BY_STEP),
        Mistake(_each_page_by_itself, JOINED_PAGE_BY_PAGE),
    ),
)
