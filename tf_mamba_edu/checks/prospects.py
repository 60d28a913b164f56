"""Checks of chapter 16, prospects."""

from __future__ import annotations

import numpy as np

from tf_mamba_edu.checks.core import (
    Check,
    Mistake,
    SeesInfinity,
    turn_of,
)


def _gap_case(rng):
    """A text of five letters, two models, and a gap that is never near zero."""
    L = int(rng.integers(20, 30))
    tokens = rng.integers(5, size=L)
    better, gap = rng.uniform(1, 4, L), rng.normal(size=L)
    return (
        tokens,
        better + gap - gap.mean() + rng.uniform(0.4, 0.8),
        better,
    )


def _looked_up(tokens):
    """Pair by pair against all pairs before."""
    found = np.zeros(len(tokens), bool)
    for t in range(1, len(tokens)):
        for s in range(1, t):
            same = tokens[s - 1] == tokens[t - 1]
            found[t] |= same and tokens[s] == tokens[t]
    return found


def _anywhere(tokens):
    """Tokens whose pair stands a second time, before or later."""
    pairs = [None, *zip(tokens[:-1], tokens[1:], strict=True)]
    return np.array([pairs.count(p) > 1 for p in pairs])


def _tokens_seen(tokens):
    return np.array([t in tokens[:i] for i, t in enumerate(tokens)])


def _share(tokens, worse, better, where=_looked_up):
    gap, found = worse - better, where(tokens)
    return gap[found].sum() / gap.sum()


def _means(tokens, worse, better):
    gap = worse - better
    return gap[_looked_up(tokens)].mean() / gap.mean()


def _sizes(tokens, worse, better):
    gap = np.abs(worse - better)
    return gap[_looked_up(tokens)].sum() / gap.sum()


check_gap_share = Check(
    name="gap_share",
    spec=_share,
    outputs=("share",),
    cases=_gap_case,
    hint="try it on a, b, c, a, b by hand: only the last b can be looked up, and with a gap of 1 "
    "at each token the share is a fifth.",
    mistakes=(
        Mistake(
            lambda tokens, worse, better: _looked_up(tokens).mean(),
            "this is the share of the tokens, not of the gap: the losses do not come in at all.",
        ),
        Mistake(
            lambda tokens, worse, better: (worse - better)[
                _looked_up(tokens)
            ].sum(),
            "this is the gap at the tokens that can be looked up. Which part of the whole gap is "
            "it?",
        ),
        Mistake(
            _means,
            "this compares the mean gap at the tokens that can be looked up with the mean of all. "
            "A share also counts how many tokens there are: divide sums.",
        ),
        Mistake(
            lambda tokens, worse, better: (
                1 - _share(tokens, worse, better)
            ),
            "this is the rest: what comes from tokens that cannot be looked up.",
        ),
        Mistake(
            lambda *case: _share(*case, where=_tokens_seen),
            "you look for the token alone. It is the pair, the token and the one before it, that "
            "tells where to look.",
        ),
        Mistake(
            lambda *case: _share(*case, where=_anywhere),
            "you also count pairs that come again only later. When a pair comes for the first "
            "time there is nothing to look up.",
        ),
        Mistake(
            lambda *case: _share(
                *case,
                where=lambda v: np.append(_looked_up(v)[1:], False),
            ),
            "off by one: you count the first token of a pair that comes again. What can be looked "
            "up is the second.",
        ),
        Mistake(
            _sizes,
            "at some tokens the better model is worse. These count too, against it: no absolute "
            "values.",
        ),
    ),
)


def _pairs_case(rng):
    """Keys of length 1, and one key that comes twice with different values."""
    n, K, P = (int(v) for v in rng.integers((4, 3, 2), (8, 6, 6)))
    K += K == P  # so that a transposed state has another shape
    keys, values = rng.normal(size=(n, K)), rng.normal(size=(n, P))
    keys[-1] = keys[0]
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    keep, strength = rng.uniform(0.4, 0.9, (2, n))
    return keys, values + 0.5, keep, strength


def _entry_by_entry(keys, values, keep, strength):
    state = np.zeros((values.shape[1], keys.shape[1]))
    for key, value, a, b in zip(
        keys, values, keep, strength, strict=True
    ):
        for p in range(len(value)):
            told = sum(
                a * s * k for s, k in zip(state[p], key, strict=True)
            )
            for n in range(len(key)):
                state[p, n] = (
                    a * state[p, n] + b * (value[p] - told) * key[n]
                )
    return state


def _delta_step(S, k, v, a, b):
    return a * S + b * np.outer(v - a * S @ k, k)


def _told(keys, values, keep, strength, step=_delta_step):
    """The rule and, by its step, other rules."""
    state = np.zeros((values.shape[1], keys.shape[1]))
    for k, v, a, b in zip(keys, values, keep, strength, strict=True):
        state = step(state, k, v, a, b)
    return state


def _by_rule(step):
    return lambda *case: _told(*case, step=step)


check_corrected = Check(
    name="corrected",
    spec=_entry_by_entry,
    outputs=("state",),
    cases=_pairs_case,
    hint="with keep and strength of 1, tell it one pair, then ask with the same key: do you get "
    "the value? Then tell it the same key with another value, and ask again.",
    mistakes=(
        Mistake(
            _by_rule(lambda S, k, v, a, b: a * S + b * np.outer(v, k)),
            "this fades and adds: nothing is looked up before it is written. Asked for a key that "
            "was told twice, it answers with a sum of both values.",
        ),
        Mistake(
            _by_rule(
                lambda S, k, v, a, b: a * S + b * np.outer(v - S @ k, k)
            ),
            "you look up before the state has faded, and take away more than is left. Fade first, "
            "then look.",
        ),
        Mistake(
            _by_rule(
                lambda S, k, v, a, b: (
                    a * (S + b * np.outer(v - S @ k, k))
                )
            ),
            "the state fades after the pair is written, so that the new pair fades at once. Fade "
            "first.",
        ),
        Mistake(
            _by_rule(
                lambda S, k, v, a, b: (
                    a * S + np.outer(b * v - a * S @ k, k)
                )
            ),
            "the strength multiplies the value alone. It is a share of what is missing: of the "
            "value less what the state gives already.",
        ),
        Mistake(
            _by_rule(lambda S, k, v, a, b: _delta_step(S, k, v, a, 1)),
            "the strength is not used: all that is missing is written.",
        ),
        Mistake(
            _by_rule(lambda S, k, v, a, b: _delta_step(S, k, v, 1, b)),
            "the state does not fade: `keep` is not used.",
        ),
        Mistake(
            _by_rule(
                lambda S, k, v, a, b: (
                    a * S + b * np.outer(v + a * S @ k, k)
                )
            ),
            "the sign of the correction: what the key gives already has to be taken away from the "
            "value.",
        ),
        Mistake(
            lambda *case: _told(*case).T,
            "right, but transposed: values are rows and keys are columns, (P, K), so that a key "
            "is asked by state @ key.",
        ),
        Mistake(
            lambda *case: _told(*(part[::-1] for part in case)),
            "you began with the last pair. Then the first value of a key replaces the later one.",
        ),
        Mistake(
            lambda keys, values, keep, strength: (
                strength[-1] * np.outer(values[-1], keys[-1])
            ),
            "only the last pair is left: add the product to the state that is there.",
        ),
    ),
)


def _decay_case(rng):
    """Moderate steps, then steps whose sum no exponential survives."""
    turn, L = turn_of(rng), int(rng.integers(4, 8))
    largest = (0.5, 1.5, 4000.0)[turn % 3]
    delta = rng.uniform(0.3, 1.0, L) * largest
    return delta, -float(rng.uniform(0.6, 1.4))


def _product_by_product(delta, A):
    L = len(delta)
    weights = np.zeros((L, L))
    for t in range(L):
        for s in range(t + 1):
            weights[t, s] = np.prod(np.exp(delta[s + 1 : t + 1] * A))
    return weights


def _quietly(function):
    """The function without NumPy's warnings."""

    def quiet(*arguments):
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quiet


def _masked_late(delta, A):
    age = np.cumsum(delta * A)
    return np.exp(age[:, None] - age) * np.tri(len(delta))


def _ratio(delta, A):
    left = np.exp(np.cumsum(delta * A))
    return np.where(np.tri(len(delta)) > 0, left[:, None] / left, 0.0)


def _aged(delta, A, shift=0, mask=None):
    """The right matrix and, by where sum and mask begin, wrong ones."""
    L = len(delta)
    age = np.cumsum(delta * A)
    since = age - delta * A if shift else age  # with the own step
    past = np.tri(L, dtype=bool) if mask is None else mask(L)
    span = np.where(past, age[:, None] - since, -np.inf)
    return np.exp(span)


def _overflows(answer, arguments) -> str | None:
    """What is wrong with a right answer that threw an infinity away."""
    try:
        with np.errstate(over="raise"):
            for args in arguments:
                answer(*args)
    except FloatingPointError:
        return (
            "the values are right, but above the diagonal an exponential overflowed before it was "
            "cut off. A gradient through it would be nan. Put -infinity there first."
        )
    return None


check_decay_matrix = SeesInfinity(
    name="decay_matrix",
    spec=_product_by_product,
    outputs=("weights",),
    cases=_decay_case,
    cost=_overflows,
    tolerance=1e-6,
    hint="three steps are enough to try it: the diagonal is 1, below it stands exp(Delta_t A) of "
    "the later step, above it 0. Then try steps of 4,000.",
    mistakes=(
        Mistake(
            _quietly(_ratio),
            "right on paper, and the mistake of chapter 07's museum piece: exp of the whole sum "
            "is 0 in a float after a few large steps, and 0 / 0 is no number. Subtract the sums "
            "first, then take one exponential.",
        ),
        Mistake(
            _quietly(_masked_late),
            "the mask comes too late. Above the diagonal the exponent is positive and may be "
            "huge, and infinity times 0 is no number. Put -infinity there before the exponential.",
        ),
        Mistake(
            lambda delta, A: _aged(delta, A, shift=1),
            "each input has faded once too often: on the diagonal stands exp(Delta_t A), and an "
            "input has not faded at all at its own step. The sum begins at s + 1.",
        ),
        Mistake(
            lambda delta, A: _aged(
                delta, A, mask=lambda L: np.tri(L, k=-1, dtype=bool)
            ),
            "the diagonal is 0: y_t would not know x_t. For s = t the sum is empty, and the "
            "weight is 1.",
        ),
        Mistake(
            lambda delta, A: _aged(delta, A).T,
            "transposed: the output t is a row, the input s a column, and a row sees what is to "
            "its left.",
        ),
        Mistake(
            lambda delta, A: np.tri(len(delta)),
            "this is the mask alone, attention without decay.",
        ),
        Mistake(
            lambda delta, A: _aged(np.ones_like(delta), A),
            "all steps have length 1 here. What fades an input are the Delta of the steps that "
            "came after it.",
        ),
        Mistake(
            _quietly(
                lambda delta, A: np.exp(
                    np.cumsum(delta * A)[:, None] - np.cumsum(delta * A)
                )
            ),
            "nothing is masked: above the diagonal stand weights above 1, by which outputs hear "
            "the future.",
        ),
    ),
)


def _chunk_case(rng):
    """Three chunks and a rest; the chunk is never as long as the state."""
    size, N, P = (int(v) for v in rng.integers((2, 2, 2), (5, 5, 5)))
    L = 3 * size + 1
    x, B, C = (rng.normal(size=(L, n)) + 0.4 for n in (P, N, N))
    delta = rng.uniform(0.2, 0.9, L)
    return x, delta, -float(rng.uniform(0.5, 1.0)), B, C, size


def _token_by_token(x, delta, A, B, C, size):
    h, outputs = np.zeros((B.shape[1], x.shape[1])), []
    for t in range(len(x)):
        h = np.exp(delta[t] * A) * h + delta[t] * np.outer(B[t], x[t])
        outputs.append(C[t] @ h)
    return np.stack(outputs)


def _chunked(
    x,
    delta,
    A,
    B,
    C,
    size,
    faded_by=lambda age: age,
    left_by=lambda age: age[-1] - age,
    keeps=lambda age: age[-1],
    inside=lambda delta, A: _aged(delta, A),
):
    """Chunks done right and, by each of their four exponents, wrong."""
    h, outputs = np.zeros((B.shape[1], x.shape[1])), []
    for start in range(0, len(x), size):
        here = slice(start, start + size)
        age = np.cumsum(delta[here] * A)
        u = delta[here, None] * x[here]
        own = (inside(delta[here], A) * (C[here] @ B[here].T)) @ u
        old = np.exp(faded_by(age))[:, None] * (C[here] @ h)
        outputs.append(own + old)
        added = (np.exp(left_by(age))[:, None] * B[here]).T @ u
        h = np.exp(keeps(age)) * h + added
    return np.concatenate(outputs)


def _unfaded(age):
    return np.zeros_like(age)


check_in_chunks = Check(
    name="in_chunks",
    spec=_token_by_token,
    outputs=("y",),
    cases=_chunk_case,
    hint="follow one input of the first chunk to an output of the second by hand: it fades to the "
    "end of its own chunk, then to the place of the output. Which line does which?",
    mistakes=(
        Mistake(
            lambda *args: _chunked(
                *args,
                faded_by=_unfaded,
                left_by=lambda age: age,
            ),
            "both bugs are still there. One is about how the old state is read inside a chunk, "
            "the other about what a chunk hands on.",
        ),
        Mistake(
            lambda *args: _chunked(*args, left_by=lambda age: age),
            "one bug is gone: the old state now fades inside the chunk. But what a chunk hands on "
            "is weighted the wrong way round: its first input fades least, where it should fade "
            "most. How long is it from s to the end of the chunk?",
        ),
        Mistake(
            lambda *args: _chunked(*args, faded_by=_unfaded),
            "one bug is gone: what a chunk hands on is right. But inside a chunk the old state is "
            "read as if no time had passed since the chunk began.",
        ),
        Mistake(
            lambda *args: _chunked(
                *args, faded_by=lambda age: age - age[0]
            ),
            "nearly: the old state fades inside the chunk, but it misses the first step. At the "
            "chunk's first output one step has passed already.",
        ),
        Mistake(
            lambda *args: _chunked(
                *args, faded_by=lambda age: np.full_like(age, age[-1])
            ),
            "the old state is read with the decay of the whole chunk at each of its outputs. Each "
            "output has an age of its own.",
        ),
        Mistake(
            lambda *args: _chunked(*args, left_by=_unfaded),
            "the old state is read right now. But a chunk hands all its inputs on unfaded; the "
            "early ones have faded until its end.",
        ),
        Mistake(
            lambda *args: _chunked(*args, keeps=lambda age: 0.0),
            "the state that a chunk received is handed on unfaded. It lasts a whole chunk longer.",
        ),
        Mistake(
            lambda *args: _chunked(*args, keeps=lambda age: -np.inf),
            "the state that a chunk received is lost at its end, so that nothing is remembered "
            "for longer than two chunks.",
        ),
    ),
)


def _digits_case(rng):
    """A modulus of 3 to 7, and all its digits."""
    m = int(rng.integers(3, 8))
    digits = np.concatenate(
        [np.arange(m), rng.integers(m, size=rng.integers(4, 20))]
    )
    return rng.permutation(digits), m


def _sum_modulo(digits, m):
    return np.cumsum(digits) % m


def _clocked(digits, m, angles):
    """What the hand of the sheet's clock shows, if it is turned by these angles."""
    hand, places = 1 + 0j, []
    for turn in np.float64(angles(digits, m)):
        # Step by step as there: where two places are as near, rounding decides.
        hand = np.exp(1j * turn) * hand
        places.append(np.angle(hand) * m / (2 * np.pi))
    return np.round(places) % m


check_clock = Check(
    name="running_sum",
    spec=_sum_modulo,
    outputs=("the running sum",),
    cases=_digits_case,
    hint="a digit m would have to bring the hand back to where it was. How far does it turn then, "
    "and how far for the digit 1?",
    mistakes=(
        Mistake(
            lambda d, m: _clocked(d, m, lambda d, m: np.pi * d),
            "half a turn for each one is the lamp: right only for m = 2. Here m steps make a full "
            "turn.",
        ),
        Mistake(
            lambda d, m: _clocked(
                d, m, lambda d, m: -2 * np.pi * d / m
            ),
            "the hand turns backward, and shows minus the sum.",
        ),
        Mistake(
            lambda d, m: _clocked(d, m, lambda d, m: np.pi * d / m),
            "m steps make half a turn. A full turn is 2 pi.",
        ),
        Mistake(
            lambda d, m: _clocked(
                d, m, lambda d, m: 2 * np.pi * (d > 0) / m
            ),
            "every digit but 0 turns the hand by one place: this counts digits, and does not add "
            "them. The digit 3 turns it three times as far as the digit 1.",
        ),
        Mistake(
            lambda d, m: _clocked(
                d, m, lambda d, m: 2 * np.pi * np.cumsum(d) / m
            ),
            "you added the angles up yourself. The state adds them up once more; it wants the "
            "turn of this digit alone.",
        ),
        Mistake(
            lambda d, m: _clocked(d, m, lambda d, m: 360.0 * d / m),
            "these are degrees. The sine and the cosine want radians: a full turn is 2 pi.",
        ),
        Mistake(
            lambda d, m: _clocked(
                d, m, lambda d, m: 2 * np.pi * d / 10
            ),
            "this clock has ten places. It should have m.",
        ),
    ),
)


class _Causal:
    """A layer from (L, 4) to (L, 4) that looks back, and mixes channels unevenly."""

    def __init__(self, rng):
        self.mix, self.keep = (
            rng.normal(size=(4, 4)),
            rng.uniform(0.3, 0.8, 4),
        )

    def __call__(self, x):
        x = np.asarray(x, np.float64)
        h, outputs = np.zeros(4), []
        for row in x @ self.mix:
            h = self.keep * h + np.tanh(row)
            outputs.append(h)
        return np.stack(outputs)


def _dna_case(rng):
    L = int(rng.integers(5, 10))
    return _Causal(rng), np.eye(4)[rng.integers(4, size=L)]


_PARTNERS = [2, 3, 0, 1]  # of A, G, T, C


def _turned_letters(x):
    """Letter by letter: reversed, A for T and C for G."""
    out = np.zeros_like(x)
    for t in range(len(x)):
        for channel in range(4):
            out[len(x) - 1 - t, _PARTNERS[channel]] = x[t, channel]
    return out


def _both(layer, x):
    return layer(x) + _turned_letters(layer(_turned_letters(x)))


def _with_turn(layer, x, turn, back=None):
    back = turn if back is None else back
    return layer(x) + back(layer(turn(x)))


check_both_strands = Check(
    name="both_strands",
    spec=_both,
    outputs=("y",),
    cases=_dna_case,
    hint="what comes out for the other strand stands in the other strand's order. Before you add "
    "it, turn it back. And a turn has two halves: the order, and the letters.",
    mistakes=(
        Mistake(
            lambda layer, x: layer(x),
            "this is the layer alone. The other strand has to go through it, too.",
        ),
        Mistake(
            lambda layer, x: _both(layer, x) / 2,
            "this is the mean of both answers, as good a symmetry. The sum was asked for.",
        ),
        Mistake(
            lambda layer, x: layer(x) + layer(_turned_letters(x)),
            "the other strand's answer is added as it comes: its first row belongs to the last "
            "letter of this strand. Turn it back first.",
        ),
        Mistake(
            lambda layer, x: _with_turn(layer, x, lambda v: v[::-1]),
            "the order is reversed, but the letters stay. On the other strand stands T for A and "
            "G for C: the channels change places, too.",
        ),
        Mistake(
            lambda layer, x: _with_turn(
                layer, x, lambda v: v[:, _PARTNERS]
            ),
            "the letters are exchanged, but the order stays. The other strand is read from its "
            "other end.",
        ),
        Mistake(
            lambda layer, x: _with_turn(
                layer, x, _turned_letters, lambda v: v[::-1]
            ),
            "on the way back only the order is reversed. The channels of the answer belong to "
            "letters, too: exchange them back.",
        ),
        Mistake(
            lambda layer, x: _with_turn(
                layer, x, _turned_letters, lambda v: v[:, _PARTNERS]
            ),
            "on the way back only the channels are exchanged. The rows have to be reversed, too.",
        ),
        Mistake(
            lambda layer, x: layer(x + _turned_letters(x)),
            "the two strands are mixed before the layer sees them. Let it read each by itself, "
            "and add the answers.",
        ),
        Mistake(
            lambda layer, x: _with_turn(
                layer, x, lambda v: v[::-1, ::-1]
            ),
            "both axes are reversed, as in the chapter, where the order is A, C, G, T. In the "
            "order A, G, T, C this exchanges A with C, and G with T.",
        ),
        Mistake(
            lambda layer, x: _with_turn(
                layer, x, lambda v: v[::-1, [1, 0, 3, 2]]
            ),
            "neighbors are exchanged here: A with G, and T with C. The partners are A and T, G "
            "and C.",
        ),
        Mistake(
            lambda layer, x: (
                layer(x) + layer(_turned_letters(x))[::-1, [1, 0, 3, 2]]
            ),
            "on the way back the channels are exchanged in the wrong pairs: the same partners as "
            "on the way there, A and T, G and C.",
        ),
    ),
)
